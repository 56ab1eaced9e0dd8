"""Delete rows whose referenced rows are missing, until every foreign key holds.

Neither indexes nor statistics exist yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, translated_errors
from airflow_pgbackup.backup.subset.foreign_keys import ForeignKey
from airflow_pgbackup.backup.subset.selection import Table
from airflow_pgbackup.postgres.definitions.identifiers import qualified, quoted
from airflow_pgbackup.postgres.sql.anybytes import encoded

# The equality operator and collation with which a foreign key compares: those of the referenced column, as its unique
# index is of the default operator class (ATAddForeignKeyConstraint in tablecmds.c).
_KEYS = """
WITH RECURSIVE base(attname, attcollation, oid) AS (
    SELECT a.attname, a.attcollation, a.atttypid FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = %s::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT base.attname, base.attcollation, t.typbasetype
      FROM base JOIN pg_catalog.pg_type AS t ON t.oid = base.oid WHERE t.typtype = 'd')
SELECT base.attname, n.nspname, o.oprname, cn.nspname, c.collname
  FROM base JOIN pg_catalog.pg_type AS t ON t.oid = base.oid AND t.typtype <> 'd'
  LEFT JOIN pg_catalog.pg_opclass AS oc ON oc.opcintype = t.oid AND oc.opcdefault
        AND oc.opcmethod = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'btree')
  LEFT JOIN pg_catalog.pg_amop AS ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
        AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
  LEFT JOIN pg_catalog.pg_operator AS o ON o.oid = ao.amopopr
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
  LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = base.attcollation
  LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.collnamespace
"""
_LEAVES = """
WITH RECURSIVE tree(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) IN (
           SELECT * FROM ROWS FROM (pg_catalog.unnest(%s::name[]), pg_catalog.unnest(%s::name[])) AS named)
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN tree ON i.inhparent = tree.oid)
SELECT n.nspname, c.relname
  FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' ORDER BY 1, 2
"""
_INDEX = "pgbackup_subset_orphans"
_KIND = "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = %s::pg_catalog.regclass"


def delete_orphans(
    connection: Session,
    keys: Sequence[ForeignKey],
    start: Collection[Table],
    root: Callable[[Table], Table],
) -> set[Table]:
    """Delete the rows that reference missing rows, and the rows that reference those, until none is left.

    Each statement handles one foreign key for all rows, with a hash join. Rows that only reference one another stay.

    :param keys: the foreign keys that can have lost rows.
    :param start: tables that lack rows.
    :param root: returns the partitioned table of a partition.
    :return: the tables from which rows were deleted.
    """
    found: set[Table] = set()
    pending = {key: None for key in keys if root(key.referenced) in start}
    while pending:
        key = next(iter(pending))
        del pending[key]
        with translated_errors(f"deleting rows that violate the foreign key {key}"), connection.transaction():
            deleted = _delete(connection, key)
        if deleted:
            found.add(key.table)
            # After one statement no row violates a key whose two tables are one and the same.
            pending |= {each: None for each in keys if root(each.referenced) == root(key.table) and each != key}
            if key.table != key.referenced and root(key.referenced) == root(key.table):
                pending[key] = None
    return found


@dataclass(frozen=True)
class _Column:
    """A referenced column: how it is compared."""

    operator: str
    collation: str

    def equals(self, left: str, right: str) -> str:
        return f"{left}{self.collation} {self.operator} {right}"


def _delete(connection: Session, key: ForeignKey) -> int:
    """Delete the rows that reference missing rows, and within one table the rows that reference those, and so on.

    :return: how many.
    """
    table, referenced = _relation(connection, key.table), _relation(connection, key.referenced)
    columns = _columns(connection, key.referenced)
    pairs = [(columns[name], quoted(name), quoted(column)) for name, column in zip(key.keys, key.columns, strict=True)]
    # A key with a null references nothing: MATCH SIMPLE says so, and with MATCH FULL all its columns are null.
    given = " AND ".join(f"child.{column} IS NOT NULL" for _, _, column in pairs)
    same = " AND ".join(each.equals(f"parent.{name}", f"child.{column}") for each, name, column in pairs)
    orphans = f"{given} AND NOT EXISTS (SELECT FROM {referenced} AS parent WHERE {same})"
    connection.execute("SET LOCAL enable_nestloop = off")  # without statistics, any table is taken for a small one
    if key.table != key.referenced:
        return connection.execute(encoded(f"DELETE FROM {table} AS child WHERE {orphans}")).rowcount  # noqa: S608
    names = ", ".join(f"child.{name} AS key_{number}" for number, (_, name, _) in enumerate(pairs))
    rows = f"SELECT child.tableoid AS part, child.ctid AS line, {names} FROM {table} AS child"  # noqa: S608  quoted
    first = f"CREATE TEMPORARY TABLE orphan ON COMMIT DROP AS {rows} WHERE {orphans}"
    if not connection.execute(encoded(first)).rowcount:
        return 0
    # A chain of references can be as long as the table: an index, as each step would read the complete table.
    step = " AND ".join(
        each.equals(f"orphan.key_{number}", f"child.{column}") for number, (each, _, column) in enumerate(pairs)
    )
    indexed = ", ".join(column for _, _, column in pairs)
    connection.execute(encoded(f"CREATE INDEX {_INDEX} ON {table.removeprefix('ONLY ')} ({indexed})"))
    for setting in ("enable_nestloop = on", "enable_mergejoin = off", "enable_seqscan = off"):
        connection.execute(f"SET LOCAL {setting}")
    deletion = f"""
WITH RECURSIVE orphans AS (
    SELECT * FROM pg_temp.orphan
    UNION ALL {rows} JOIN orphans AS orphan ON {step})
DELETE FROM {table} AS child WHERE (child.tableoid, child.ctid) IN (SELECT part, line FROM orphans)"""  # noqa: S608
    deleted = connection.execute(encoded(deletion)).rowcount
    connection.execute(encoded(f"DROP INDEX {quoted(key.table.schema)}.{_INDEX}"))
    return deleted


def _relation(connection: Session, table: Table) -> str:
    """Return a table for FROM: a foreign key concerns its partitions, and not what inherits from it."""
    name = qualified(table.schema, table.name)
    return name if fetch_value(connection, _KIND, [name]) == "p" else f"ONLY {name}"


def _columns(connection: Session, table: Table) -> dict[str, _Column]:
    found = {}
    name = qualified(table.schema, table.name)
    for column, schema, operator, collation_schema, collation in connection.execute(_KEYS, [name]):
        found[column] = _Column(
            f"OPERATOR({quoted(schema)}.{operator})" if operator else "OPERATOR(pg_catalog.=)",
            f" COLLATE {qualified(collation_schema, collation)}" if collation else "",
        )
    return found


def count_rows(connection: Session, tables: Iterable[Table]) -> dict[Table, int]:
    """Return the number of rows in each of the tables, their partitions and inheriting tables that holds rows of its
    own."""
    named = list(tables)
    with translated_errors("counting rows"):
        leaves = connection.execute(_LEAVES, [[t.schema for t in named], [t.name for t in named]]).fetchall()
        counts = {}
        for schema, name in leaves:
            query = f"SELECT pg_catalog.count(*) FROM ONLY {qualified(schema, name)}"  # noqa: S608  quoted
            counts[Table(schema, name)] = int(fetch_value(connection, encoded(query)))
    return counts


def shrink(connection: Session, before: Mapping[Table, int], after: Mapping[Table, int]) -> None:
    """Rewrite the tables that lost more than half of their rows, because their files would not shrink otherwise."""
    for table, rows in after.items():
        if rows < before[table] / 2:
            name = qualified(table.schema, table.name)
            with translated_errors(f"rewriting {table}"):
                connection.execute(encoded(f"VACUUM (FULL) {name}"))
