"""Tables: which were added and dropped, and how their rows and bytes changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_pgbackup.backup.diff.contents import Contents, Table
from airflow_pgbackup.backup.diff.result import ADDED, BYTES_BY_TABLE, CHANGED, DROPPED, NotCompared, TableChange
from airflow_pgbackup.quantities import human_time
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import LEVELS
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.text import first_of

_ORDER = (DROPPED, ADDED, CHANGED)
# Options of dumps in which not all rows can be counted by table.
_LEAVE_OUT_ROWS = (
    *("exclude_table_data", "exclude_table_data_and_children", "filters", "sections", "extra_args"),
    *("no_data", "schema_only", "statistics_only", "no_unlogged_table_data", "load_via_partition_root"),
    *("inserts", "column_inserts", "rows_per_insert"),
)
_NAMED = 5
_COUNTING = LEVELS[LEVELS.index("archive") :]


@dataclass(frozen=True)
class Counted:
    """Rows of each table that has data.

    :param digests: of the rows, None where there is none.
    :param source: who counted them.
    :param complete: a table that is not in it does not exist: the options of the dump leave out no rows.
    :param with_extensions: it has the rows that the dump has of extensions' tables.
    """

    rows: Mapping[Table, int]
    digests: Mapping[Table, str | None]
    source: str
    complete: bool = True
    with_extensions: bool = True


def counted(evidence: Evidence, manifest: Manifest) -> Counted | None:
    """Return the rows of a backup: as the newest verification of level archive or restore read them in the artifact,
    else as they were counted in the source. None where neither was done."""
    # The options of an adopted dump are not known.
    complete = "adopted_from" not in manifest.origin and not any(map(manifest.options.get, _LEAVE_OUT_ROWS))
    looks = [each for each in evidence.verifications if each.level in _COUNTING and each.lists_tables]
    looks = [each for each in looks if each.tables or (complete and each.result == "pass")]
    looks = [each for each in looks if each.result == "pass"] or looks
    if looks:
        rows: dict[Table, int] = {}
        digests: dict[Table, str | None] = {}
        for each in looks[-1].tables:
            table = (each.database, each.schema, each.name)
            # --load-via-partition-root dumps a partitioned table in several blocks, whose digests cannot be combined.
            digests[table] = each.sha256 if table not in rows else None
            rows[table] = rows.get(table, 0) + each.rows
        source = f"verification {looks[-1].level} of {human_time(looks[-1].finished_at)}"
        return Counted(rows, digests, source, complete)
    if manifest.source_rows is not None:
        counts: dict[Table, int] = {(None, each.schema, each.name): each.rows for each in manifest.source_rows}
        return Counted(counts, {}, "counted in the source", complete, with_extensions=False)
    return None


@dataclass(frozen=True)
class Tables:
    """The differences of tables.

    :param unchanged: how many are equal; None where the tables were not compared.
    """

    changes: tuple[TableChange, ...]
    unchanged: int | None
    not_compared: tuple[NotCompared, ...]


def compare_tables(
    before: tuple[Counted | None, Contents | str], after: tuple[Counted | None, Contents | str], ids: tuple[str, str]
) -> Tables:
    """Compare the tables of two backups.

    :param before, after: the rows, and the table of contents or why there is none.
    :param ids: of the two backups, for reasons.
    """
    (old, old_toc), (new, new_toc) = before, after
    skipped: list[NotCompared] = []
    known = [toc for toc in (old_toc, new_toc) if isinstance(toc, Contents)]
    uncounted = [id for id, rows in zip(ids, (old, new), strict=True) if rows is None]
    if uncounted:
        reason = f"no verification of level archive or restore of {' and '.join(uncounted)} has counted them"
        skipped.append(NotCompared("rows by table", reason))
        old = new = None
    sizes = [toc.sizes for toc in known if toc.sizes is not None]
    if len(sizes) < 2:
        sizes = []
        reason = "only the manifest of a directory archive has the size of each table's data"
        skipped.append(NotCompared(BYTES_BY_TABLE, reason))
    if old is None and len(known) < 2:
        skipped.append(NotCompared("tables added and dropped", "neither rows nor two tables of contents are known"))
        return Tables((), None, tuple(skipped))
    there = [frozenset(rows.rows) if rows else frozenset() for rows in (old, new)]
    if len(known) == 2:
        unknown, reason = _uncounted(there, known, old, new), "{} has no count of their rows"
        there = [tables | toc.tables for tables, toc in zip(there, known, strict=True)]
    else:
        unknown, reason = _unknown(there, before, after), "may exist in {}, which leaves out rows of tables"
    for id, tables in zip(ids, unknown, strict=True):
        if tables:
            names = sorted(".".join(filter(None, table)) for table in tables)
            skipped.append(NotCompared(first_of(names, _NAMED), reason.format(id)))
    there = [tables - unknown[0] - unknown[1] for tables in there]
    changes = []
    for table in there[0] | there[1]:
        change = _compare(table, there, old, new, sizes)
        if change:
            changes.append(change)
    changes.sort(key=_size_of_change)
    return Tables(tuple(changes), len(there[0] | there[1]) - len(changes), tuple(skipped))


def _uncounted(
    there: list[frozenset[Table]], tocs: list[Contents], old: Counted | None, new: Counted | None
) -> tuple[frozenset[Table], ...]:
    """Return, for each of the two backups, the tables that only the other one has counted although both may have them.

    The tables of contents tell which tables were added and dropped, except tables of extensions, which neither has.
    """
    if old is None or new is None or all(each.complete and each.with_extensions for each in (old, new)):
        return (frozenset(), frozenset())
    one_sided = tocs[0].tables ^ tocs[1].tables
    return tuple(other - own - one_sided for own, other in (there, reversed(there)))


def _unknown(
    there: list[frozenset[Table]], *sides: tuple[Counted | None, Contents | str]
) -> tuple[frozenset[Table], ...]:
    """Return, for each of the two backups, the tables of the other one that it may have without rows."""
    found = []
    for (rows, toc), own, other in zip(sides, there, reversed(there), strict=True):
        missing = other - own
        if isinstance(toc, Contents):
            found.append(missing & toc.tables)
        else:
            found.append(frozenset() if rows and rows.complete else missing)
    return tuple(found)


def _compare(
    table: Table,
    there: list[frozenset[Table]],
    old: Counted | None,
    new: Counted | None,
    sizes: list[Mapping[Table, int]],
) -> TableChange | None:
    """Return what changed of a table, None for nothing."""
    rows = (old.rows.get(table) if old else None, new.rows.get(table) if new else None)
    bytes_ = (sizes[0].get(table), sizes[1].get(table)) if sizes else (None, None)
    digests = (old.digests.get(table) if old else None, new.digests.get(table) if new else None)
    differs = digests[0] != digests[1] if all(digests) else None
    change = ADDED if table not in there[0] else DROPPED if table not in there[1] else CHANGED
    # Equal rows may be compressed otherwise, and the data of an unchanged table may have another size.
    if change == CHANGED and rows[0] == rows[1] and not differs and (differs is False or bytes_[0] == bytes_[1]):
        return None
    database, schema, name = table
    return TableChange(
        change=change,
        database=database,
        schema=schema,
        name=name,
        rows_before=rows[0],
        rows_after=rows[1],
        bytes_before=bytes_[0],
        bytes_after=bytes_[1],
        content_differs=differs,
    )


def _size_of_change(one: TableChange) -> tuple[int, int, int, str]:
    rows, size = abs(one.rows_change or 0), abs(one.bytes_change or 0)
    return _ORDER.index(one.change), -rows, -size, one.label
