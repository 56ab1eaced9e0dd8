"""The database that the demo backs up: our sample, or somebody's dump; and what is in it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from airflow_pgbackup.errors import ConfigurationError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.tools.process import run_tool

if TYPE_CHECKING:
    import psycopg

LOAD_DEADLINE = 3600.0
"""Seconds; pg_restore spins for ever on some truncated tar files."""

_TABLES = """
    SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1, 2
"""


def create_database(params: ConnectionParams, name: str) -> ConnectionParams:
    """A new, empty database beside the one of `params`; the parameters for it."""
    with params.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return params.with_database(name)


def load_sample(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The film-rental sample, 15 tables and 114,149 rows, into an empty database: the same every time."""
    with connection.transaction():
        connection.execute(files(__package__).joinpath("sample.sql").read_bytes())
    connection.execute("VACUUM ANALYZE")


def load_dump(dump: Path, params: ConnectionParams, bin_dir: Path, folder: Path) -> None:
    """Restore a dump of any age into an empty database, without its owners and grants.

    :param bin_dir: where the ``pg_restore`` to use is.
    :param folder: for a temporary file.
    :raises ConfigurationError: not a custom, tar or directory dump.
    :raises ToolError: pg_restore failed; no error is passed over.
    """
    pg_restore = bin_dir / "pg_restore"
    env = client_environment(params)
    try:
        toc = run_tool([pg_restore, "--list", dump.absolute()], env=env, deadline=LOAD_DEADLINE).decode()
    except ToolError as error:
        raise ConfigurationError(
            f"cannot read {dump}: {error.message}", hint="give a dump made by pg_dump -Fc, -Ft or -Fd"
        ) from error
    chosen = folder / "toc.list"
    chosen.write_text("".join(line for line in toc.splitlines(keepends=True) if not _is_schema_public(line)))
    options = ["--no-password", "--no-owner", "--no-privileges", "--exit-on-error", f"--use-list={chosen}"]
    # PGDATABASE names the database, but pg_restore connects only where there is a --dbname too.
    run_tool([pg_restore, *options, "--dbname=", dump.absolute()], env=env, deadline=LOAD_DEADLINE)
    with params.connect() as connection:
        connection.execute("VACUUM ANALYZE")


def _is_schema_public(line: str) -> bool:
    # "6; 2615 2200 SCHEMA - public postgres": dumps by pg_dump 10 and older make the schema that every database has.
    return line.split()[3:6] == ["SCHEMA", "-", "public"]


def count_rows(params: ConnectionParams) -> dict[str, int]:
    """``schema.table`` to its number of rows, for every table that holds rows of its own; one snapshot."""
    with params.connect() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        counts = {}
        for schema, name in cast("list[tuple[str, str]]", connection.execute(_TABLES).fetchall()):
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name))
            (counts[f"{schema}.{name}"],) = cast("tuple[int]", connection.execute(query).fetchone())
        return counts
