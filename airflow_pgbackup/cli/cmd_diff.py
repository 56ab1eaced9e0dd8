"""``pgbackup diff``: show what changed between two backups."""

from __future__ import annotations

from collections import Counter

from airflow_pgbackup.backup.choose_backup import choose_evidence, parse_series
from airflow_pgbackup.backup.diff import diff, last_two
from airflow_pgbackup.backup.diff.result import (
    ADDED,
    DROPPED,
    DefinitionChange,
    Diff,
    Measure,
    PropertyChange,
    Side,
    TableChange,
    percent,
)
from airflow_pgbackup.backup.formats import measure
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.listing import Listing, columns
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.quantities import human_bytes, noun
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.state import in_words

_NONE = "-"


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    with session.working(f"comparing two backups of {arguments.series}"):
        before, after = _chosen(session, repository, arguments.series, arguments.before, arguments.after)
        found = diff(repository=repository, before=before, after=after, context=session.context)
    session.result(found.as_json(), *_lines(found))


def _chosen(
    session: Session, repository: Repository, series: str, before: str | None, after: str | None
) -> tuple[Evidence, Evidence]:
    """Return the two backups. Each is an ID of the series, or SERVER/DATABASE/ID of another one."""
    if after is None and (before is None or "/" not in before):
        id = before and choose_evidence(repository, series, before, minimum_level="integrity").backup.id
        return last_two(repository, parse_series(series), before=id)

    def named(text: str | None) -> Evidence:
        other, slash, id = (text or "latest").rpartition("/")
        return choose_evidence(repository, other if slash else series, id, minimum_level="integrity", log=session.log)

    return named(before), named(after)


def _lines(found: Diff) -> list[str | Listing]:
    before, after = found.before, found.after
    lines: list[str | Listing] = [f"before: {_side(before)}", f"after:  {_side(after)}"]
    lines += [f"note: {note}" for note in found.notes]
    numbers = Listing(("", "before", "after", "change"), names=1, right=(1, 2), labeled=(1, 2, 3))
    for one in found.measures:
        numbers.add(*_measure(one))
    lines += ["", numbers]
    if found.properties:
        lines += ["", "properties:", *columns([*map(_property, found.properties)])]
    if found.extensions:
        lines += ["", "extensions:", *columns([*map(_property, found.extensions)])]
    if found.sequences:
        lines += ["", "sequences:", *columns([*map(_property, found.sequences)])]
    if found.tables_unchanged is not None:
        changes = Counter(one.change for one in found.tables)
        lines += ["", f"tables: {_counts(changes, found.tables_unchanged)}"]
        tables = Listing(("", "", "rows before", "rows after", "change"), names=2, right=(2, 3), labeled=(2, 3))
        for table in found.tables:
            tables.add(*_table(table))
        lines += [tables] if found.tables else []
    if found.definitions_unchanged is not None:
        changes = Counter(one.change for one in found.definitions)
        lines += ["", f"definitions: {_counts(changes, found.definitions_unchanged)}"]
        lines += [line for one in found.definitions for line in _definition(one)]
    if found.not_compared:
        lines += ["", "not compared:", *(f"  {one.what}: {one.reason}" for one in found.not_compared)]
    return lines


def _side(side: Side) -> str:
    state = f"verified: {side.level}" if side.level else in_words(side.state)
    rows = f"; rows: {side.rows_from}" if side.rows_from else ""
    return f"{side.series.path} {side.id}, {side.format}, {state}{rows}"


def _measure(one: Measure) -> list[str]:
    sign = "-" if one.change < 0 else "+"
    change = f"{sign}{measure(abs(one.change), one.unit)}{_percent(one.percent)}" if one.change else "none"
    return [one.name, measure(one.before, one.unit), measure(one.after, one.unit), change]


def _property(one: PropertyChange) -> list[str]:
    before, after = ("(none)" if value is None else value for value in (one.before, one.after))
    return [f"  {one.name}", f"{before} -> {after}"]


def _table(one: TableChange) -> list[str]:
    rows = [_NONE if value is None else f"{value:,}" for value in (one.rows_before, one.rows_after)]
    said: list[str] = []
    if one.rows_change:
        more = _percent(percent(one.rows_before, one.rows_after))
        said.append(f"{one.rows_change:+,} {noun(abs(one.rows_change), 'row')}{more}")
    elif one.content_differs:
        said.append("as many rows, with other content or in another order")
    if one.bytes_change:
        sign = "-" if one.bytes_change < 0 else "+"
        more = _percent(percent(one.bytes_before, one.bytes_after))
        said.append(f"{sign}{human_bytes(abs(one.bytes_change))}{more}")
    return [f"  {one.change}", one.label, rows[0], rows[1], ", ".join(said)]


def _definition(one: DefinitionChange) -> list[str]:
    details = [f"      {line}" for line in one.detail.split("\n")] if one.detail else []
    return [f"  {one.change:<7}  {one.kind} {one.label}", *details]


def _counts(changes: Counter[str], unchanged: int) -> str:
    parts = [f"{changes[change]:,} {change}" for change in (DROPPED, ADDED, "changed")]
    return ", ".join([*parts, f"{unchanged:,} unchanged"])


def _percent(value: float | None) -> str:
    return "" if value is None else f" ({value:+.1f} %)"
