"""Triggers that ignore rows while they are loaded, so that those rows never are in a file of the server.

A trigger BEFORE INSERT also sees the rows of COPY. It runs before the triggers of masking, which follow in the order of
their names, and so sees the values that were dumped. For a row that it ignores, masking does not run.
https://www.postgresql.org/docs/current/trigger-definition.html
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value, translated_errors
from airflow_pgbackup.backup.subset.selection import Table
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.definitions.identifiers import qualified, quoted
from airflow_pgbackup.postgres.sql.anybytes import encoded

SCHEMA = "pgbackup_subset"
"""Ours, in the copy, while it is loaded."""
TRIGGER = "pgbackup_00_subset"
"""Sorts before the triggers of masking."""

_GENERATED = """
SELECT a.attname FROM pg_catalog.pg_constraint AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)
 WHERE c.conrelid = %s::pg_catalog.regclass AND c.contype = 'c' AND a.attgenerated <> ''
"""
# Tables with rows of their own: partitions of partitions too, and what inherits.
_LEAVES = """
WITH RECURSIVE tree(oid) AS (
    SELECT %s::pg_catalog.regclass::oid
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN tree ON i.inhparent = tree.oid)
SELECT n.nspname, c.relname, c.relkind::text
  FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'f') ORDER BY 1, 2
"""
_FUNCTION = """
CREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql AS ${tag}$
#variable_conflict use_column
BEGIN
    IF (SELECT ({where}
               ) FROM (SELECT NEW.*) AS {table}) THEN
        RETURN NEW;
    END IF;
    PERFORM pg_catalog.nextval('{schema}.{counter}');
    RETURN NULL;
END ${tag}$
"""


class RowFilter:
    """The expressions that select the rows of tables.

    :param where: an SQL expression for each table.
    """

    def __init__(self, where: Mapping[Table, str]) -> None:
        self._where = where
        self._leaves: dict[Table, Table] = {}  # with the table whose expression selects their rows

    def install(self, connection: Session) -> None:
        """Create the triggers. :raises ConfigurationError, RestoreError: see :meth:`.SubsetPlan.install`."""
        if not self._where:
            return
        for table, where in self._where.items():
            _check(connection, table, where)
        with translated_errors("creating triggers that select rows"), connection.transaction():
            connection.execute(encoded(f"CREATE SCHEMA {SCHEMA}"))
            for table, where in self._where.items():
                self._create_triggers(connection, table, where)

    def remove(self, connection: Session) -> dict[Table, int]:
        """Drop the triggers; return the rows that each table ignored."""
        if not self._leaves:
            return {}
        with translated_errors("dropping triggers that select rows"):
            query = f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {SCHEMA}.ignored_"  # noqa: S608
            ignored: dict[Table, int] = {
                table: fetch_value(connection, encoded(f"{query}{number}")) for number, table in enumerate(self._leaves)
            }
            connection.execute(encoded(f"DROP SCHEMA {SCHEMA} CASCADE"))
        return ignored

    def _create_triggers(self, connection: Session, table: Table, where: str) -> None:
        for schema, name, kind in connection.execute(_LEAVES, [_quoted(table)]).fetchall():
            leaf, number = Table(schema, name), len(self._leaves)
            if kind == "f":
                continue
            if other := self._leaves.get(leaf):
                if self._where[other] == where:
                    continue
                raise ConfigurationError(
                    f"two expressions are given for the rows of {leaf}: those of {other} and {table}",
                    hint="Give one for the table that others belong to or inherit from, or for each of them.",
                )
            self._leaves[leaf] = table
            counter = f"ignored_{number}"
            connection.execute(encoded(f"CREATE SEQUENCE {SCHEMA}.{counter}"))
            function = _FUNCTION.format(
                schema=SCHEMA,
                name=f"select_{number}",
                tag=f"where_{secrets.token_hex(8)}",
                where=where,
                table=quoted(table.name),
                counter=counter,
            )
            connection.execute(encoded(function))
            on = _quoted(leaf)
            connection.execute(
                encoded(
                    f"CREATE TRIGGER {TRIGGER} BEFORE INSERT ON {on} FOR EACH ROW "
                    f"EXECUTE FUNCTION {SCHEMA}.select_{number}()"
                )
            )
            connection.execute(encoded(f"ALTER TABLE {on} ENABLE ALWAYS TRIGGER {TRIGGER}"))


def _check(connection: Session, table: Table, where: str) -> None:
    """Check an expression: as a constraint, where PostgreSQL refuses what sees more than a row; and as it will be used.

    :raises ConfigurationError: PostgreSQL refuses it, or it uses a generated column, which is computed after triggers.
    """
    # A table of the same name and columns, as the expression can name both. A constraint of the table itself would
    # concern its partitions too, which have other names.
    copy = f"pg_temp.{quoted(table.name)}"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(encoded(f"CREATE TABLE {copy} (LIKE {_quoted(table)} INCLUDING GENERATED)"))
            # binary: the extended protocol, which takes a single statement.
            connection.execute(encoded(f"ALTER TABLE {copy} ADD CHECK (({where}\n))"), binary=True)
            generated = fetch_column(connection, _GENERATED, [copy])
            query = f"SELECT ({where}\n) FROM (SELECT * FROM {copy}) AS {quoted(table.name)}"  # noqa: S608
            connection.execute(encoded(query), binary=True)
    except (psycopg.errors.QueryCanceled, psycopg.OperationalError):
        raise
    except psycopg.Error as error:
        raise ConfigurationError(
            f"invalid expression for the rows of {table}: {server_message(error)}",
            hint="It sees the columns of one row: subqueries and aggregates are impossible, and names of your own "
            "functions and operators need their schema. Foreign keys are followed without it.",
        ) from None
    if generated:
        raise ConfigurationError(
            f"the expression for the rows of {table} uses the generated column {generated[0]}",
            hint="Write the column's own expression instead: its value is computed after rows are selected.",
        )


def _quoted(table: Table) -> str:
    return qualified(table.schema, table.name)
