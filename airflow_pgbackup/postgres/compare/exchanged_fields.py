"""Values of the row type of a table whose columns have another order after a restore.

pg_dump writes such a value as text, with its fields in the order of the columns in the source. A restore creates a
child table with the columns of its parents first, so it can put the fields into other columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from airflow_pgbackup.postgres.archive.summary import TableDigest
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader


def exchanged_fields(restored: DatabaseReader, tables: Collection[TableDigest]) -> Iterator[tuple[str, str]]:
    """Yield the name of each table with such values, and what may be wrong with them.

    :param tables: all of one database.
    """
    relations = restored.relations()
    reordered = []
    for table in tables:
        relation = relations.get((table.schema, table.name))
        if relation is None or not table.columns or (relation.kind == "p" and not relation.partition):
            continue  # a topmost partitioned table keeps its order, but can have rows of partitions with another one
        if not _in_order(table.columns, relation.columns):
            reordered.append((table.schema, table.name))
    if not reordered:
        return
    filled = {(table.schema, table.name) for table in tables if table.rows}
    for (schema, name), other in restored.with_rows_of(reordered):
        if (schema, name) in filled:
            of = ".".join(other)
            yield f"{schema}.{name}", f"rows of {of} may have exchanged fields: {of} has another order of columns"


def _in_order(dumped: tuple[str, ...], restored: tuple[str, ...]) -> bool:
    known = set(dumped)
    return [column for column in restored if column in known] == list(dumped)
