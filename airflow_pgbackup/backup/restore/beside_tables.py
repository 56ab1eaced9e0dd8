"""Move restored tables into a schema of their own, without what could touch other tables; and copy rows back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value, translated_errors
from airflow_pgbackup.backup.restore.beside_selection import left_out_partition, own_schema, require_one
from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.definitions.identifiers import qualified, quoted
from airflow_pgbackup.postgres.sql.anybytes import encoded


@dataclass(frozen=True)
class MovedTable:
    """A table that was moved.

    :param root: not a partition of another one that was moved.
    :param is_parent: others inherit from it, and it is not partitioned.
    :param rows: its own.
    """

    schema: str
    name: str
    root: bool
    is_parent: bool
    rows: int


_NAMED = """
SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relname = %s AND c.relkind IN ('r', 'p') AND c.oid >= 16384 AND (n.nspname = ANY(%s) OR %s)
"""

# The tables that were named, and all their partitions.
_TABLES = """
WITH RECURSIVE moved(oid, root) AS (
    SELECT c.oid, true FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p') AND c.oid >= 16384 AND (n.nspname = ANY(%s) OR %s)
    UNION
    SELECT i.inhrelid, false FROM moved JOIN pg_inherits AS i ON i.inhparent = moved.oid
      JOIN pg_class AS c ON c.oid = i.inhrelid WHERE c.relispartition AND c.relkind IN ('r', 'p'))
SELECT moved.oid, n.nspname, c.relname, bool_and(moved.root),
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = moved.oid)
  FROM moved JOIN pg_class AS c ON c.oid = moved.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 GROUP BY moved.oid, n.nspname, c.relname, c.relkind ORDER BY 2, 3
"""

_FOREIGN = """
SELECT i.inhrelid::regclass::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
 WHERE c.relispartition AND c.relkind = 'f' AND i.inhparent = ANY(%s) ORDER BY 1
"""

# Each query returns statements. regclass is qualified, as the session's search_path is empty.
# Foreign keys are dropped from all tables: a partition keeps that of its parent when it is detached, and a foreign key
# that references its parent prevents that.
_DETACH = (
    """SELECT format('DROP EVENT TRIGGER %%I', evtname) FROM pg_event_trigger""",
    """SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname) FROM pg_constraint
        WHERE contype = 'f' AND conparentid = 0""",
    """SELECT format('DROP TRIGGER %%I ON %%s', tgname, tgrelid::regclass) FROM pg_trigger
        WHERE NOT tgisinternal AND tgparentid = 0 AND tgrelid = ANY(%s)""",
    """SELECT format('DROP RULE %%I ON %%s', rulename, ev_class::regclass) FROM pg_rewrite WHERE ev_class = ANY(%s)""",
    """SELECT format('DROP POLICY %%I ON %%s', polname, polrelid::regclass) FROM pg_policy WHERE polrelid = ANY(%s)""",
    """SELECT format('ALTER TABLE %%s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', oid::regclass)
         FROM pg_class WHERE (relrowsecurity OR relforcerowsecurity) AND oid = ANY(%s)""",
    """SELECT CASE WHEN c.relispartition
              THEN format('ALTER TABLE %%s DETACH PARTITION %%s', i.inhparent::regclass, i.inhrelid::regclass)
              ELSE format('ALTER TABLE %%s NO INHERIT %%s', i.inhrelid::regclass, i.inhparent::regclass) END
         FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhrelid = ANY(%s) AND NOT i.inhparent = ANY(%s)""",
)

# A default that draws from a sequence of another table would draw from the live one.
_DEFAULTS = """
SELECT d.adrelid::regclass::text, a.attname
  FROM pg_attrdef AS d JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
 WHERE d.adrelid = ANY(%s) AND EXISTS (
       SELECT FROM pg_depend AS p JOIN pg_class AS s ON s.oid = p.refobjid AND s.relkind = 'S'
        WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
          AND NOT EXISTS (SELECT FROM pg_depend AS o
                           WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid
                             AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i')
                             AND o.refobjid = ANY(%s)))
"""


def move_tables(
    connection: Session, names: Sequence[str], schemas: Sequence[str], schema: str
) -> tuple[list[MovedTable], list[str]]:
    """Move tables and their partitions into a new schema, without foreign keys, triggers, rules and policies.

    :param schemas: of the tables; empty for any.
    :return: the tables, and a line for each default that they lost too, and for each partition that is left out.
    :raises OptionError: a table does not exist, or two would have the same name.
    :raises ConfigurationError: the schema exists.
    :raises RestoreError: a statement failed.
    """
    where = [list(schemas), not schemas]
    for name in names:
        require_one(name, fetch_column(connection, _NAMED, [name, *where]))
    with translated_errors(f'moving tables to schema "{schema}"'):
        found = connection.execute(_TABLES, [list(names), *where]).fetchall()
        seen: set[str] = set()
        for _, _, name, _, _ in found:
            if name in seen:
                raise OptionError(f'two tables or partitions are named "{name}"', hint="Restore them one by one.")
            seen.add(name)
        oids = [row[0] for row in found]
        for query in _DETACH:
            statements = fetch_column(connection, query.encode(), [oids] * query.count("%s)"))
            for statement in statements:
                connection.execute(encoded(statement))
        lost = [left_out_partition(name) for name in fetch_column(connection, _FOREIGN, [oids])]
        for table, column in connection.execute(_DEFAULTS, [oids, oids]).fetchall():
            connection.execute(encoded(f"ALTER TABLE {table} ALTER {quoted(column)} DROP DEFAULT"))
            lost.append(f"column {column} of {table} is restored without its default, a sequence of another table")
        if fetch_value(connection, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", [schema]):
            raise own_schema(schema)
        connection.execute(encoded(f"CREATE SCHEMA {quoted(schema)}"))
        tables = []
        for _, old, name, root, is_parent in found:
            connection.execute(encoded(f"ALTER TABLE {qualified(old, name)} SET SCHEMA {quoted(schema)}"))
            count = f"SELECT count(*) FROM ONLY {qualified(schema, name)}"  # noqa: S608  quoted
            rows = fetch_value(connection, encoded(count))
            tables.append(MovedTable(old, name, root, is_parent, int(rows)))
    return tables, lost


_EXISTS = """
SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS = """
SELECT a.attname, a.attgenerated <> '', a.attidentity <> '', format_type(a.atttypid, a.atttypmod),
       t.typnamespace = c.relnamespace
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_HAS_KEY = """
SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s
"""

_FOREIGN_KEYS = """
SELECT n.nspname, c.relname, fn.nspname, f.relname
  FROM pg_constraint AS k
  JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_class AS f ON f.oid = k.confrelid JOIN pg_namespace AS fn ON fn.oid = f.relnamespace
 WHERE k.contype = 'f'
"""


def copying_statements(connection: Session, tables: Sequence[MovedTable], schema: str) -> list[str]:
    """Return, for each table, the statement that copies its rows into the live table, after those of the tables that it
    references.

    Where the live table has a primary key, rows that exist there are not changed. Comments name what differs.
    """
    with translated_errors("querying the foreign keys"):
        keys = [((row[0], row[1]), (row[2], row[3])) for row in connection.execute(_FOREIGN_KEYS)]
    left = {(table.schema, table.name): table for table in tables if table.root}
    lines = []
    while left:
        waiting = {child for child, parent in keys if parent in left and child != parent}
        table = next((name for name in left if name not in waiting), next(iter(left)))  # in a circle, any
        lines += _copying(connection, left.pop(table), schema)
    return lines


def _copying(connection: Session, table: MovedTable, schema: str) -> list[str]:
    live = qualified(table.schema, table.name)
    restored = qualified(schema, table.name)
    live_columns = {name: rest for name, *rest in connection.execute(_COLUMNS, [table.schema, table.name])}
    if not fetch_value(connection, _EXISTS, [table.schema, table.name]):
        return [f"ALTER TABLE {restored} SET SCHEMA {quoted(table.schema)};  -- there is no table {_comment(live)} now"]
    restored_columns = {name: rest for name, *rest in connection.execute(_COLUMNS, [schema, table.name])}
    both = [name for name in restored_columns if name in live_columns and not live_columns[name][0]]
    lines = []
    if lost := [name for name in restored_columns if name not in live_columns]:
        lines.append(f"-- the live table lacks {_comment(', '.join(lost))}")
    if new := [name for name in live_columns if name not in restored_columns]:
        lines.append(f"-- the backup lacks {_comment(', '.join(new))}")
    if not both:
        return [*lines, f"-- {_comment(live)} and {_comment(restored)} have no column in common"]
    has_key = fetch_value(connection, _HAS_KEY, [table.schema, table.name])
    if not has_key:
        lines.append(f"-- {_comment(live)} has no primary key: this copies every row, also those that it still has")
    columns = ", ".join(map(quoted, both))
    # A column may have the row type of a table that was restored too: of that in the new schema.
    values = ", ".join(
        f"{quoted(name)}::text::{live_columns[name][2]}" if restored_columns[name][3] else quoted(name) for name in both
    )
    overriding = " OVERRIDING SYSTEM VALUE" if any(live_columns[name][1] for name in both) else ""
    conflict = " ON CONFLICT DO NOTHING" if has_key else ""
    # The rows of tables that inherit from it are not its own, and have statements of their own.
    source = f"ONLY {restored}" if table.is_parent else restored
    copy = f"INSERT INTO {live} ({columns}){overriding} SELECT {values} FROM {source}{conflict};"  # noqa: S608
    return [*lines, copy]


def _comment(text: str) -> str:
    """Return a text for a SQL comment, which a line break would end."""
    return " ".join(text.split())


def analyze_tables(connection: Session, tables: Sequence[MovedTable], schema: str) -> None:
    """Gather planner statistics of the restored tables."""
    names = ", ".join(qualified(schema, table.name) for table in tables if table.root)
    with translated_errors(f'analyzing the tables of schema "{schema}"'):
        connection.execute(encoded(f"ANALYZE {names}"))
