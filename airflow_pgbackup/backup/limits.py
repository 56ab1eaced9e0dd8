"""What a fresh series is, and whether one is: ``evaluate(backups, contents, limits, now)``. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from statistics import median

from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.evidence import SKEW
from airflow_pgbackup.repository.retention import check_level, counts


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is fresh.

    :param max_age: between the start of the newest good backup and now: what a restore would lose at most.
    :param minimum_level: what a backup must have passed to be good; None: every one that has not failed.
    :param max_drop: by which share of the median of the last ones the artifact's size, all rows together, and the
        rows of each larger table may be smaller; that much is too much. None: not looked at, and nothing is read but
        listings.
    :param compare_with: how many earlier good backups, of the same format, compression and options.
    :param minimum_rows: smaller tables are not looked at by themselves.
    :param allow_drop: tables that may empty, queues and the like: ``schema.table`` with ``*`` and ``?``
        (``database.schema.table`` in a cluster's backups).
    :raises ConfigurationError: for a value that makes no sense.
    """

    max_age: timedelta
    minimum_level: str | None = "archive"
    max_drop: float | None = 0.9
    compare_with: int = 5
    minimum_rows: int = 1000
    allow_drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.max_age, timedelta) or self.max_age <= timedelta(0):
            raise ConfigurationError(f"max_age is {self.max_age!r}", hint="give a datetime.timedelta above zero")
        check_level(self.minimum_level)
        if self.max_drop is not None and not (_is_number(self.max_drop) and 0 < self.max_drop <= 1):
            raise ConfigurationError(
                f"max_drop is {self.max_drop!r}", hint="give a share like 0.9, or None for no check"
            )
        for name, least in (("compare_with", 1), ("minimum_rows", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(f"{name} is {value!r}", hint=f"give a whole number, {least} or more")
        if isinstance(self.allow_drop, str):
            raise ConfigurationError(f"allow_drop is {self.allow_drop!r}", hint="pass a list of tables")

    def describe(self) -> dict[str, object]:
        """As plain JSON, ``max_age`` in seconds."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "max_age": self.max_age.total_seconds(), "allow_drop": list(self.allow_drop)}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is known of what is in a backup, beyond its listing.

    :param kind: equal for backups that may be compared: format, compression, options.
    :param rows: table to rows, of the newest verification that counted them; None where none has.
    """

    kind: object
    rows: Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """:param problems: why it is not fresh, empty where it is. :param notes: what else a person should know."""

    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    newest: Backup | None = None
    rows: int | None = None


def evaluate(backups: Iterable[Backup], contents: Mapping[str, Contents], limits: Limits, now: datetime) -> Finding:
    """Judge one series. Pure.

    :param backups: all of the series, in any order. What :func:`compared` names is judged by what it is said to be
        here, so the caller reads those before, see :mod:`.evidence`.
    :param contents: by backup id, of those that :func:`compared` names; a missing one is not compared.
    """
    ordered = _newest_first(backups)
    good = compared(ordered, limits, now)
    notes = [
        # Clocks disagree by less than this. A backup from further in the future would always be fresh.
        f"{b.id} starts in the future and is passed over: a clock was wrong"
        for b in ordered
        if b.started_at > now + SKEW
    ]
    past = [backup for backup in ordered if backup.started_at <= now + SKEW]
    level = f"verified at {limits.minimum_level}" if limits.minimum_level else "that has not failed"
    if not good:
        problem = "there is no backup"
        if past:
            problem += f" {level} among {len(past)}: the newest, {past[0].id}, {past[0].standing}"
        return Finding(problems=(problem,), notes=tuple(notes))
    for backup in past[: past.index(good[0])][:3]:
        notes.append(f"{backup.id}, which is newer, {backup.standing}")
    newest, problems = good[0], []
    age = now - newest.started_at
    if age > limits.max_age:
        problems.append(
            f"the newest backup {level}, {newest.id}, is {_hours(age)} old, at most {_hours(limits.max_age)} is allowed"
        )
    rows = None
    if limits.max_drop is not None:
        mine = contents.get(newest.id)
        if mine is not None:
            rows = None if mine.rows is None else sum(mine.rows.values())
            before = [(b, theirs) for b in good[1:] if (theirs := contents.get(b.id)) and theirs.kind == mine.kind]
            found = _drops(newest, mine, before, limits, limits.max_drop)
            problems += found[0]
            notes += found[1]
    return Finding(problems=tuple(problems), notes=tuple(notes), newest=newest, rows=rows)


def compared(backups: Iterable[Backup], limits: Limits, now: datetime) -> list[Backup]:
    """The good ones that :func:`evaluate` looks at: the newest, and those before it that it is compared with."""
    good = [b for b in _newest_first(backups) if b.started_at <= now + SKEW and counts(b, limits.minimum_level)]
    return good[: 1 + limits.compare_with]


def _drops(
    newest: Backup, mine: Contents, before: Sequence[tuple[Backup, Contents]], limits: Limits, max_drop: float
) -> tuple[list[str], list[str]]:
    """What is so much smaller than before that it is a problem, and what is gone."""
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
            f"{newest.id} has {human_bytes(newest.size)}, {share(newest.size, sizes)}, {human_bytes(median(sizes))}"
        )
    counted = [theirs.rows for _, theirs in before if theirs.rows is not None]
    if mine.rows is None or not counted:
        return problems, notes
    total, totals = sum(mine.rows.values()), [sum(rows.values()) for rows in counted]
    if dropped(total, totals):
        problems.append(f"{newest.id} has {total:,} rows, {share(total, totals)}, {median(totals):,.0f}")
    for table in sorted({name for rows in counted for name in rows}):
        usual = [rows[table] for rows in counted if table in rows]
        if median(usual) < limits.minimum_rows or any(fnmatchcase(table, pattern) for pattern in limits.allow_drop):
            continue
        if table not in mine.rows:
            # A DROP or RENAME is a deed, and old partitions go every day; the sums tell where it was too much.
            if table in counted[0]:
                notes.append(f"table {table}, which had {counted[0][table]:,} rows, is no more in {newest.id}")
        elif dropped(mine.rows[table], usual):
            problems.append(
                f"table {table} has {mine.rows[table]:,} rows in {newest.id}, {share(mine.rows[table], usual)}, "
                f"{median(usual):,.0f}"
            )
    return problems, notes


def _newest_first(backups: Iterable[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda backup: (backup.started_at, backup.id), reverse=True)


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 72 else f"{hours:.1f} h"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
