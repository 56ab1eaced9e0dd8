"""Compare a restored database with the archive: every table, sequence, materialized view and large object.

Tables are compared by the digest of their COPY text, with the columns of the archive. If the digests differ, the rows
are compared as a multiset: the same rows in another order pass, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from airflow_pgbackup.postgres.archive.row_digests import RowHasher, RowSet, TableDigester
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary, LargeObjects, SequenceValue, TableDigest, TableKey
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader, Relation, Rows
from airflow_pgbackup.processors import usable_processors
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.threads import run_each

ArchiveRowSets = Callable[[Collection[TableKey], Collection[TableKey]], dict[TableKey, RowSet]]
"""Read the archive again, and return the rows of some tables as sets, see :meth:`.ArchiveReader.row_sets`."""

Reader = TypeVar("Reader", TableDigester, RowHasher)

_BY_SELECT = frozenset("pfv")  # partitioned and foreign tables, views: COPY reads them by a query only


_SMALL = 1 << 16  # bytes of a table that is read together with others
_TOGETHER = 64  # tables


@dataclass(frozen=True, slots=True)
class TableComparison:
    """The result for one table.

    :param result: ``same``; ``reordered``: the same rows in another order; ``contained``: a table of an extension
        has the dumped rows and others; ``different``; ``notcompared``.
    :param detail: the reason, unless the result is ``same``.
    :param unproven: the rows differ, perhaps only in the text that the server writes for equal values.
    """

    table: TableDigest
    result: str
    detail: str | None = None
    unproven: bool = False


def compare_tables(
    restored: DatabaseReader, tables: Collection[TableDigest], row_sets: ArchiveRowSets
) -> Iterator[TableComparison]:
    """Compare the tables of one database, and yield a result for each.

    :param tables: all of one database.
    :param row_sets: called once if any digest differs.
    :raises ToolError: a table could not be read.
    :raises Canceled, DeadlineExceeded: the comparison was stopped.
    """
    relations = restored.relations()
    readable: list[tuple[TableDigest, Relation]] = []
    for table in tables:
        relation = relations.get((table.schema, table.name))
        missing = relation and sorted(set(table.columns or ()) - set(relation.columns))
        if relation is None:
            yield TableComparison(table, "different", "the table is missing after the restore")
        elif missing:
            detail = f"column {missing[0]} is missing after the restore"
            if relation.of_extension:
                detail = f"table of an extension, perhaps of another version: {detail}"
            result = "notcompared" if relation.of_extension else "different"
            yield TableComparison(table, result, detail, unproven=relation.of_extension)
        elif relation.kind == "f":
            yield TableComparison(table, "notcompared", "foreign data: its server is not part of the backup")
        elif relation.foreign:
            detail = "a partition has foreign data: its server is not part of the backup"
            yield TableComparison(table, "notcompared", detail)
        else:
            readable.append((table, relation))
    inserts = [(table, relation) for table, relation in readable if table.comparable != "copy"]
    copies = [(table, relation) for table, relation in readable if table.comparable == "copy"]
    # pg_dump loads a tree through its root if one of its branches is hash partitioned by an enum. The partitions of
    # other branches have data of their own.
    own = tuple(relation.partition for _, relation in readable if relation.partition)
    yield from _count_inserts(restored, inserts, own)
    yield from _compare_copies(restored, copies, own, row_sets)


def _compare_copies(
    restored: DatabaseReader,
    tables: list[tuple[TableDigest, Relation]],
    own: tuple[int, ...],
    row_sets: ArchiveRowSets,
) -> Iterator[TableComparison]:
    again: list[tuple[TableDigest, Relation]] = []
    # Rows are counted only if the text differs.
    for (table, relation), digester in _each(restored, tables, own, lambda _: TableDigester(count=False)):
        if digester.sha256 == table.sha256:
            yield TableComparison(table, "same")
        else:
            again.append((table, relation))
    if again:
        yield from _compare_sets(restored, again, own, row_sets)


def _compare_sets(
    restored: DatabaseReader,
    tables: list[tuple[TableDigest, Relation]],
    own: tuple[int, ...],
    row_sets: ArchiveRowSets,
) -> Iterator[TableComparison]:
    archived = row_sets([t.key for t, _ in tables], [t.key for t, relation in tables if relation.of_extension])
    hashers = _each(restored, tables, own, lambda relation: RowHasher(count=relation.of_extension))
    for (table, relation), hasher in hashers:
        found = hasher.finish()
        if found == archived[table.key]:
            yield TableComparison(table, "reordered", "the same rows in another order")
        elif relation.of_extension and (contained := found.contains(archived[table.key])) is not False:
            # CREATE EXTENSION has inserted its own rows.
            what = "contains all dumped rows" if contained else "has too many rows to compare each"
            detail = f"table of an extension {what}: found {counted(found.rows, 'row')}, dumped {table.rows:,}"
            yield TableComparison(table, "contained" if contained else "notcompared", detail)
        elif found.rows != table.rows:
            yield _other_rows(table, found.rows)
        elif relation.unstable:
            causes = " or ".join(relation.unstable)
            detail = f"{counted(table.rows, 'row')}, some of which differ, perhaps because of {causes}"
            yield TableComparison(table, "notcompared", detail, unproven=True)
        else:
            yield TableComparison(
                table, "different", f"{counted(table.rows, 'row')}, some of which differ from the dump"
            )


def _count_inserts(
    restored: DatabaseReader, tables: list[tuple[TableDigest, Relation]], own: tuple[int, ...]
) -> Iterator[TableComparison]:
    for table, relation in tables:
        root = relation.kind == "p"
        rows = restored.count(table.schema, table.name, only=not root, without=own if root else ())
        if rows == table.rows:
            yield TableComparison(table, "notcompared", "dumped as INSERT: rows counted, values not compared")
        else:
            yield _other_rows(table, rows)


def _other_rows(table: TableDigest, found: int) -> TableComparison:
    return TableComparison(table, "different", f"found {counted(found, 'row')}, expected {table.rows:,}")


def _each(
    restored: DatabaseReader,
    tables: list[tuple[TableDigest, Relation]],
    own: tuple[int, ...],
    reader: Callable[[Relation], Reader],
) -> Iterator[tuple[tuple[TableDigest, Relation], Reader]]:
    """Read several tables at the same time, the largest first, and yield them in the given order.

    :param own: the OIDs of partitions that have data of their own, which is not that of the partitioned table.
    """

    def read(numbers: list[int]) -> list[tuple[int, Reader]]:
        made: list[tuple[int, Rows, Reader]] = []
        for number in numbers:
            table, relation = tables[number]
            without = own if relation.kind == "p" else ()
            rows = Rows(table.schema, table.name, table.columns or (), relation.kind in _BY_SELECT, without)
            made.append((number, rows, reader(relation)))
        if len(made) == 1:
            restored.read(made[0][1], made[0][2].update)
        else:
            restored.read_together([(rows, each.update) for _, rows, each in made])
        return [(number, each) for number, _, each in made]

    with ThreadPoolExecutor(min(usable_processors(), restored.sessions), thread_name_prefix="pgbackup-compare") as pool:
        try:
            readers = dict(chain.from_iterable(run_each(pool, read, _batches(tables))))
        except BaseException:
            restored.stop()  # leaving the pool waits for what is being read
            raise
    for number, table in enumerate(tables):
        yield table, readers[number]


def _batches(tables: list[tuple[TableDigest, Relation]]) -> Iterator[list[int]]:
    """Yield the numbers of tables to read together, the largest first: each large table alone."""
    small: list[int] = []
    for number in sorted(range(len(tables)), key=lambda number: -tables[number][0].bytes):
        table, relation = tables[number]
        if table.bytes > _SMALL or relation.kind in _BY_SELECT:
            yield [number]
            continue
        small.append(number)
        if len(small) == _TOGETHER:
            yield small
            small = []
    if small:
        yield small


def compare_sequences(
    restored: DatabaseReader,
    summary: ArchiveSummary,
    database: str | None,
    *,
    has_value: Callable[[str, str], bool] = lambda schema, name: False,
    advanced: list[tuple[str, str]] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield name and difference of each sequence whose value differs from the dumped one.

    :param has_value: returns whether the dump must have the value of a sequence, by schema and name. It is not asked
        about those of extensions, and unlogged ones, whose values pg_dump leaves out on a standby.
    :param advanced: takes name and difference of each sequence whose value a refresh of a materialized view may have
        drawn, instead.
    """
    dumped = {(value.schema, value.name): value for value in summary.sequences if value.database == database}
    relations = restored.relations()
    existing = [name for name in dumped if (relation := relations.get(name)) and relation.kind == "S"]
    for schema, name in dumped.keys() - set(existing):
        yield f"{schema}.{name}", "is missing after the restore"
    for key, relation in sorted(relations.items()):
        if relation.kind != "S" or key in dumped or relation.of_extension or relation.unlogged:
            continue
        if has_value(*key):
            yield f"{relation.schema}.{relation.name}", "has no value in the dump"
    populated = any(relation.kind == "m" and relation.populated for relation in relations.values())
    steps: dict[tuple[str, str], tuple[int, bool]] | None = None
    for value in restored.sequences(existing):
        wanted = dumped[value.schema, value.name]
        if (value.last_value, value.is_called) != (wanted.last_value, wanted.is_called):
            found = f"{value.schema}.{value.name}", _sequence_detail(value, wanted)
            if populated and advanced is not None:
                steps = restored.steps() if steps is None else steps
                if _drawn(value, wanted, *steps[value.schema, value.name]):
                    advanced.append(found)
                    continue
            yield found


def _drawn(found: SequenceValue, expected: SequenceValue, increment: int, cycles: bool) -> bool:
    """Return whether calls of nextval() can lead from the expected value to the one found."""
    if not found.is_called:
        return False
    if not expected.is_called and found.last_value == expected.last_value:
        return True
    return cycles or (found.last_value > expected.last_value) == (increment > 0)


def _sequence_detail(found: SequenceValue, expected: SequenceValue) -> str:
    if found.last_value == expected.last_value:
        return f"is_called is {found.is_called}, expected {expected.is_called}"
    return f"has value {found.last_value}, expected {expected.last_value}"


def compare_materialized_views(
    restored: DatabaseReader, summary: ArchiveSummary, database: str | None
) -> Iterator[tuple[str, str]]:
    """Yield name and difference of each materialized view that has data but should not, or should have data.

    Their rows follow from tables and definitions, which are compared.
    """
    dumped = {(schema, name) for key, schema, name in summary.refreshed if key == database}
    views = {name: view for name, view in restored.relations().items() if view.kind == "m" and not view.of_extension}
    for schema, name in sorted(dumped | views.keys()):
        view = views.get((schema, name))
        if view is not None and view.populated != ((schema, name) in dumped):
            found = "has data, but was dumped WITH NO DATA" if view.populated else "has no data after the restore"
            yield f"{schema}.{name}", found


def compare_large_objects(
    restored: DatabaseReader, summary: ArchiveSummary, database: str | None
) -> Iterator[tuple[str, str]]:
    """Yield OID and difference of each large object that differs from the dump."""
    dumped = next((objects for objects in summary.large_objects if objects.database == database), LargeObjects())
    found = restored.large_objects()
    if (dumped.count, dumped.digest) == (found.count, found.digest):
        return
    before = {oid: (size, sha256) for oid, size, sha256 in dumped}
    after = {oid: (size, sha256) for oid, size, sha256 in found}
    for oid in sorted(before.keys() | after.keys()):
        if oid not in after:
            yield str(oid), "is missing after the restore"
        elif oid not in before:
            yield str(oid), "exists after the restore, but was not dumped"
        elif before[oid] != after[oid]:
            yield str(oid), f"content differs: found {after[oid][0]:,} bytes, expected {before[oid][0]:,} bytes"
