"""The rules of freshness, and whether a series meets them: ``judge_series(backups, contents, rules, now)``. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from statistics import median

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.quantities import counted as counted_things
from airflow_pgbackup.quantities import human_bytes
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import check_level
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.time_spans import check_span
from airflow_pgbackup.wording import parameter

_MOST_TABLES, _LONGEST_NAME = 20, 300


@dataclass(frozen=True, kw_only=True)
class FreshnessRules:
    """When a series is fresh. A backup counts if it is verified at ``minimum_level``.

    :param max_age: the greatest time between the start of the newest backup that counts and now: what a restore would
        lose at most.
    :param minimum_level: the level at which a backup must be verified to count; None: every backup counts that has not
        failed.
    :param max_drop: the share by which the artifact's size, the sum of all rows, or the rows of a table may not fall
        below the median of the previous backups. None: no comparison, and only listings are read.
    :param compare_with: how many previous backups that count, of the same format, compression and options.
    :param minimum_rows: tables with fewer rows are compared only in the sum of all rows.
    :param allow_drop: tables that may become empty, such as queues: ``schema.table`` with ``*`` and ``?``
        (``database.schema.table`` in a cluster's backups).
    :raises ConfigurationError: an invalid value.
    """

    max_age: timedelta
    minimum_level: str | None = "archive"
    max_drop: float | None = 0.9
    compare_with: int = 5
    minimum_rows: int = 1000
    allow_drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_span("max_age", self.max_age)
        check_level(self.minimum_level)
        if self.max_drop is not None and not (_is_number(self.max_drop) and 0 < self.max_drop <= 1):
            raise ConfigurationError(
                f"invalid {parameter('max_drop')} {self.max_drop!r}",
                hint="Give a share above 0 and of at most 1, such as 0.9.",
            )
        for name, least in (("compare_with", 1), ("minimum_rows", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(
                    f"invalid {parameter(name)} {value!r}", hint=f"Give a whole number, {least} or more."
                )
        if isinstance(self.allow_drop, str):
            raise ConfigurationError(f"invalid allow_drop {self.allow_drop!r}", hint="Pass a list of tables.")

    def describe(self) -> dict[str, object]:
        """Return the rules as plain JSON, ``max_age`` in seconds."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "max_age": self.max_age.total_seconds(), "allow_drop": list(self.allow_drop)}


@dataclass(frozen=True, kw_only=True)
class BackupContents:
    """The contents of a backup as its manifest and verifications state them.

    :param kind: equal for backups that may be compared: format, compression, options.
    :param rows: table to rows, from the newest verification that counted them; None where none has.
    """

    kind: object
    rows: Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class SeriesFreshness:
    """The result for one series.

    :param problems: why it is not fresh; empty where it is.
    :param notes: further facts for people.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    newest: Backup | None = None
    rows: int | None = None


def judge_series(
    backups: Iterable[Backup], contents: Mapping[str, BackupContents], rules: FreshnessRules, now: datetime
) -> SeriesFreshness:
    """Return whether a series is fresh. Pure.

    :param backups: all of the series, in any order. Their states are trusted here, so the caller reads those that
        :func:`backups_compared` returns first, see :mod:`.evidence`.
    :param contents: by backup id, of those that :func:`backups_compared` returns; a backup without is not compared.
    """
    ordered = _newest_first(backups)
    counting = backups_compared(ordered, rules, now)
    notes = [
        # Clocks differ by less than SKEW. A backup from further in the future would always be fresh.
        f"{b.id} starts in the future and is ignored; check the clocks"
        for b in ordered
        if b.started_at > now + SKEW
    ]
    past = [backup for backup in ordered if backup.started_at <= now + SKEW]
    level = f"verified at {rules.minimum_level}" if rules.minimum_level else "that has not failed"
    if not counting:
        problem = "no backup"
        if past:
            problem += f" {level}; the newest of {len(past)}, {past[0].id}, {past[0].standing}"
        return SeriesFreshness(problems=(problem,), notes=tuple(notes))
    for backup in past[: past.index(counting[0])][:3]:
        notes.append(f"newer backup {backup.id} {backup.standing}")
    newest, problems = counting[0], []
    age = now - newest.started_at
    if age > rules.max_age:
        problems.append(
            f"the newest backup {level}, {newest.id}, is {hours(age)} old, more than {hours(rules.max_age)}"
        )
    rows = None
    if rules.max_drop is not None:
        mine = contents.get(newest.id)
        if mine is not None:
            rows = None if mine.rows is None else sum(mine.rows.values())
            before = [(b, theirs) for b in counting[1:] if (theirs := contents.get(b.id)) and theirs.kind == mine.kind]
            found = _drops(newest, mine, before, rules, rules.max_drop)
            problems += found[0]
            notes += found[1]
    return SeriesFreshness(problems=tuple(problems), notes=tuple(notes), newest=newest, rows=rows)


def backups_compared(backups: Iterable[Backup], rules: FreshnessRules, now: datetime) -> list[Backup]:
    """Return the newest backup that counts, and the previous ones that :func:`judge_series` compares it with."""
    counting = [b for b in _newest_first(backups) if b.started_at <= now + SKEW and counts(b, rules.minimum_level)]
    return counting[: 1 + rules.compare_with]


def _drops(
    newest: Backup,
    mine: BackupContents,
    before: Sequence[tuple[Backup, BackupContents]],
    rules: FreshnessRules,
    max_drop: float,
) -> tuple[list[str], list[str]]:
    """Return problems (what is much smaller than before) and notes (tables that no longer exist)."""
    problems: list[str] = []
    notes: list[str] = []
    if not before:
        return problems, notes

    def dropped(value: float, values: Sequence[float]) -> bool:
        usual = median(values)
        return usual > 0 and (usual - value) / usual >= max_drop

    def share(value: float, values: Sequence[float]) -> str:
        return f"{(1 - value / median(values)) * 100:.0f} % less than the median of the last {len(values)}"

    sizes = [backup.size for backup, _ in before]
    if dropped(newest.size, sizes):
        problems.append(
            f"{newest.id} has {human_bytes(newest.size)}, {share(newest.size, sizes)} ({human_bytes(median(sizes))})"
        )
    counted = [theirs.rows for _, theirs in before if theirs.rows is not None]
    if mine.rows is None or not counted:
        return problems, notes
    total, totals = sum(mine.rows.values()), [sum(rows.values()) for rows in counted]
    if dropped(total, totals):
        problems.append(f"{newest.id} has {total:,} rows, {share(total, totals)} ({median(totals):,.0f})")
    of_tables: list[str] = []
    missing: list[str] = []
    for table in sorted({name for rows in counted for name in rows}):
        usual = [rows[table] for rows in counted if table in rows]
        if median(usual) < rules.minimum_rows or any(fnmatchcase(table, pattern) for pattern in rules.allow_drop):
            continue
        if table not in mine.rows:
            # Somebody dropped or renamed it, or it is an old partition; the sum of all rows shows a great loss.
            if table in counted[0]:
                missing.append(
                    f"table {_cut(table)} is missing from {newest.id}; it had {counted[0][table]:,} rows before"
                )
        elif dropped(mine.rows[table], usual):
            of_tables.append(
                f"table {_cut(table)} has {mine.rows[table]:,} rows in {newest.id}, {share(mine.rows[table], usual)} "
                f"({median(usual):,.0f})"
            )
    return [*problems, *_first(of_tables, "have fewer rows")], [*notes, *_first(missing, "are missing")]


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _first(lines: list[str], what: str) -> list[str]:
    """Return the first lines, for a log and XCom, and how many more there are."""
    more = len(lines) - _MOST_TABLES
    return [*lines[:_MOST_TABLES], f"{counted_things(more, 'more table')} {what}"] if more > 0 else lines


def _newest_first(backups: Iterable[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda backup: (backup.started_at, backup.id), reverse=True)


def hours(span: timedelta) -> str:
    """Return a span as a number with one unit, to compare an age with its limit: ``26.0 h``, ``5 min``, ``3.5 days``.

    :func:`.quantities.human_age` writes an age that is not compared.
    """
    seconds = span.total_seconds()
    if abs(seconds) < 60:
        return f"{seconds:.0f} s"
    if abs(seconds) < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 86_400:.1f} days" if seconds >= 3 * 86_400 else f"{seconds / 3600:.1f} h"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
