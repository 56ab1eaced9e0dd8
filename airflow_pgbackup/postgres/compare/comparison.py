"""A live database against what an archive's reading found: every table, sequence and large object.

Tables are compared by the digest of their COPY text, in the archive's columns. Where that differs the rows are
compared as a set, each as many times as it is there: the same rows in another order pass, and it is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from airflow_pgbackup.postgres.archive.row_digests import RowHasher, RowSet, TableDigester
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary, LargeObjects, TableDigest, TableKey
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader, Relation, Rows

ArchiveRowSets = Callable[[Collection[TableKey], Collection[TableKey]], dict[TableKey, RowSet]]
"""Reads the archive once more, for the rows of some tables as sets; counted one by one for the second ones."""

Reader = TypeVar("Reader", TableDigester, RowHasher)

_BY_SELECT = frozenset("pfv")  # partitioned and foreign tables, views: COPY takes them as a query only


@dataclass(frozen=True)
class TableComparison:
    """What became of a table.

    :param result: ``same``; ``reordered``: the same rows in another order; ``contained``: among others, in a table of
        an extension; ``different``; ``notcompared``.
    :param detail: why.
    """

    table: TableDigest
    result: str
    detail: str | None = None


def compare_tables(
    restored: DatabaseReader, tables: Collection[TableDigest], row_sets: ArchiveRowSets
) -> Iterator[TableComparison]:
    """Compare one database's tables.

    :param tables: all of one database.
    """
    relations = restored.relations()
    readable: list[tuple[TableDigest, Relation]] = []
    for table in tables:
        relation = relations.get((table.schema, table.name))
        missing = relation and sorted(set(table.columns or ()) - relation.columns)
        if relation is None:
            yield TableComparison(table, "different", "the table is missing after the restore")
        elif missing:
            yield TableComparison(table, "different", f"column {missing[0]} is missing after the restore")
        elif relation.kind == "f":
            yield TableComparison(table, "notcompared", "foreign data: its server is not part of the backup")
        else:
            readable.append((table, relation))
    inserts = [(table, relation) for table, relation in readable if table.comparable != "copy"]
    copies = [(table, relation) for table, relation in readable if table.comparable == "copy"]
    yield from _count_inserts(restored, inserts)
    yield from _compare_copies(restored, copies, row_sets)


def _compare_copies(
    restored: DatabaseReader, tables: list[tuple[TableDigest, Relation]], row_sets: ArchiveRowSets
) -> Iterator[TableComparison]:
    again: list[tuple[TableDigest, Relation]] = []
    # The same text has the same rows; they are counted where it is not.
    for (table, relation), digester in _each(restored, tables, lambda _: TableDigester(count=False)):
        if digester.sha256 == table.sha256:
            yield TableComparison(table, "same")
        else:
            again.append((table, relation))
    if again:
        yield from _compare_sets(restored, again, row_sets)


def _compare_sets(
    restored: DatabaseReader, tables: list[tuple[TableDigest, Relation]], row_sets: ArchiveRowSets
) -> Iterator[TableComparison]:
    archived = row_sets([t.key for t, _ in tables], [t.key for t, relation in tables if relation.of_extension])
    for (table, relation), hasher in _each(restored, tables, lambda relation: RowHasher(count=relation.of_extension)):
        found = hasher.finish()
        if found == archived[table.key]:
            yield TableComparison(table, "reordered", "the same rows in another order")
        elif relation.of_extension and (contained := found.contains(archived[table.key])) is not False:
            # CREATE EXTENSION has put rows of its own there.
            what = "all dumped rows are there" if contained else "too many rows to look for each"
            detail = f"an extension's own table: {what}, {found.rows:,} after the restore, {table.rows:,} dumped"
            yield TableComparison(table, "contained" if contained else "notcompared", detail)
        elif found.rows != table.rows:
            yield _other_rows(table, found.rows)
        else:
            yield TableComparison(table, "different", f"{table.rows:,} rows, not all of them as dumped")


def _count_inserts(restored: DatabaseReader, tables: list[tuple[TableDigest, Relation]]) -> Iterator[TableComparison]:
    for table, relation in tables:
        rows = restored.count(table.schema, table.name, only=relation.kind != "p")
        if rows == table.rows:
            yield TableComparison(table, "notcompared", "dumped as INSERT: rows counted, values not compared")
        else:
            yield _other_rows(table, rows)


def _other_rows(table: TableDigest, found: int) -> TableComparison:
    return TableComparison(table, "different", f"{found:,} rows after the restore, {table.rows:,} were dumped")


def _each(
    restored: DatabaseReader, tables: list[tuple[TableDigest, Relation]], reader: Callable[[Relation], Reader]
) -> Iterator[tuple[tuple[TableDigest, Relation], Reader]]:
    """Read tables, several at once, the largest first; give them back in their own order."""

    def read(number: int) -> Reader:
        table, relation = tables[number]
        made = reader(relation)
        columns = table.columns or ()
        restored.read(Rows(table.schema, table.name, columns, by_select=relation.kind in _BY_SELECT), made.update)
        return made

    by_size = sorted(range(len(tables)), key=lambda number: -tables[number][0].bytes)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="compare") as pool:
        try:
            readers = dict(zip(by_size, pool.map(read, by_size), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for number, table in enumerate(tables):
        yield table, readers[number]


def compare_sequences(
    restored: DatabaseReader, summary: ArchiveSummary, database: str | None
) -> Iterator[tuple[str, str]]:
    """Name and difference of each sequence whose value is not the dumped one."""
    dumped = {(value.schema, value.name): value for value in summary.sequences if value.database == database}
    relations = restored.relations()
    there = [name for name in dumped if (relation := relations.get(name)) and relation.kind == "S"]
    for schema, name in dumped.keys() - set(there):
        yield f"{schema}.{name}", "is missing after the restore"
    for value in restored.sequences(there):
        wanted = dumped[value.schema, value.name]
        if (value.last_value, value.is_called) != (wanted.last_value, wanted.is_called):
            yield f"{value.schema}.{value.name}", f"is at {value.last_value}, {wanted.last_value} was dumped"


def compare_materialized_views(
    restored: DatabaseReader, summary: ArchiveSummary, database: str | None
) -> Iterator[tuple[str, str]]:
    """Name and difference of each materialized view with data that should have none, or the other way round.

    What they show follows from tables and definitions, which are compared."""
    dumped = {(schema, name) for key, schema, name in summary.refreshed if key == database}
    views = {name: view for name, view in restored.relations().items() if view.kind == "m" and not view.of_extension}
    for schema, name in sorted(dumped | views.keys()):
        view = views.get((schema, name))
        if view is not None and view.populated != ((schema, name) in dumped):
            found = "has data after the restore, dumped was none" if view.populated else "has no data after the restore"
            yield f"{schema}.{name}", found


def compare_large_objects(
    restored: DatabaseReader, summary: ArchiveSummary, database: str | None
) -> Iterator[tuple[str, str]]:
    """OID and difference of each large object that is not as dumped."""
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
            yield str(oid), "was not dumped, and is there after the restore"
        elif before[oid] != after[oid]:
            yield str(oid), f"its content of {after[oid][0]:,} bytes is not the dumped {before[oid][0]:,} bytes"
