"""The database that the demo backs up, the sample or a dump of the user, and its row counts."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from airflow_pgbackup.errors import ConfigurationError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import INHERITED, client_environment
from airflow_pgbackup.postgres.tools.process import run_tool

if TYPE_CHECKING:
    import psycopg

LOAD_DEADLINE = 3600.0
"""In seconds; pg_restore never ends on some truncated tar files."""

_TABLES = """
    SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1, 2
"""


def create_database(params: ConnectionParams, name: str) -> ConnectionParams:
    """Create an empty database on the server of `params`, and return the parameters for it."""
    with params.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return params.with_database(name)


def load_sample(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Load the film-rental sample into an empty database: 15 tables with 114,149 rows, the same every time."""
    with connection.transaction():
        connection.execute(files(__package__).joinpath("sample.sql").read_bytes())
    connection.execute("VACUUM ANALYZE")


def table_of_contents(dump: Path, bin_dir: Path) -> str:
    """Return the list of a dump's entries, as ``pg_restore --list`` writes it.

    :param bin_dir: the directory with the ``pg_restore`` to use.
    :raises ConfigurationError: not a custom, tar or directory dump.
    """
    env = {"LC_MESSAGES": "C", **{name: os.environ[name] for name in INHERITED if name in os.environ}}
    try:
        return run_tool([bin_dir / "pg_restore", "--list", dump.absolute()], env=env, deadline=LOAD_DEADLINE).decode()
    except ToolError as error:
        raise ConfigurationError(
            f"cannot read {dump}: {error.message}", hint="Give a dump made by pg_dump -Fc, -Ft or -Fd."
        ) from error


def load_dump(dump: Path, params: ConnectionParams, bin_dir: Path, directory: Path) -> None:
    """Restore a dump by any version of pg_dump into an empty database, without owners and privileges.

    :param bin_dir: the directory with the ``pg_restore`` to use.
    :param directory: for a temporary file.
    :raises ConfigurationError: not a custom, tar or directory dump.
    :raises ToolError: pg_restore reported an error.
    """
    pg_restore = bin_dir / "pg_restore"
    env = client_environment(params, restoring=True)
    toc = table_of_contents(dump, bin_dir)
    chosen = directory / "toc.list"
    chosen.write_text("".join(line for line in toc.splitlines(keepends=True) if not _is_schema_public(line)))
    options = ["--no-password", "--no-owner", "--no-privileges", "--exit-on-error", f"--use-list={chosen}"]
    # PGDATABASE names the database, but without --dbname pg_restore does not connect.
    run_tool([pg_restore, *options, "--dbname=", dump.absolute()], env=env, deadline=LOAD_DEADLINE)
    with params.connect() as connection:
        connection.execute("VACUUM ANALYZE")


def _is_schema_public(line: str) -> bool:
    # "6; 2615 2200 SCHEMA - public postgres": dumps by pg_dump 10 and older create the schema that every database has.
    return line.split()[3:6] == ["SCHEMA", "-", "public"]


def count_rows(params: ConnectionParams) -> dict[str, int]:
    """Return the number of rows of every ordinary table, as ``schema.table``, in one snapshot."""
    with params.connect() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        counts = {}
        for schema, name in cast("list[tuple[str, str]]", connection.execute(_TABLES).fetchall()):
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name))
            (counts[f"{schema}.{name}"],) = cast("tuple[int]", connection.execute(query).fetchone())
        return counts
