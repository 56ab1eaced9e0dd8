"""A new database made as another one was, and what is done to it once its objects are there."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from airflow_pgbackup.backup.databases.sessions import fetch_value, server_message, session, translated_errors
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.databases.user_objects import count_objects, count_rows
from airflow_pgbackup.backup.restore.client_programs import APPLICATION, RestoreContext
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement, quoted
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.process import run_tool

_QUIET_SECONDS = 5.0
_STILL_THERE = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE application_name = %s"


def read_properties(run: RestoreContext, params: ConnectionParams, server_version: int) -> DatabaseProperties:
    """A database of a server as a whole, in the words of pg_dump: how it is created, its settings, privileges, comment.

    :raises ClientError: no pg_dump here for that server. :raises ToolError: it failed.
    """
    client = choose_client(server_version, client_dirs=run.settings.client_dirs)
    # Everything in a schema left out, so that no table is locked.
    options = ["--no-password", "--format=custom", "--create", "--schema-only", "--exclude-schema=*"]
    argv = [str(client.tool("pg_dump")), *options]
    env = client_environment(params)
    dump = run_tool(argv, env=env, cancel=run.cancel, deadline=run.remaining(), limit=1 << 28)
    toc, _ = read_toc(io.BytesIO(dump), what=f"the properties of {params.dbname}")
    return DatabaseProperties.of_entries(toc.entries)


def create_like(
    run: RestoreContext,
    temporary: TemporaryDatabases,
    properties: DatabaseProperties,
    *,
    encoding: str | None,
    exactly: bool,
) -> ConnectionParams:
    """A new database under a temporary name, with the settings that its sessions begin with.

    :param properties: how it is to be.
    :param encoding: where `properties` have none.
    :param exactly: False takes the server's own locale where it lacks that of the dump.
    """
    owner = f" OWNER = {quoted(properties.owner)}" if properties.owner else ""
    encoding = properties.encoding or encoding or "UTF8"
    plain = f" TEMPLATE = template0 ENCODING = '{encoding}'{owner}"
    attempts: list[Callable[[str], str]] = []
    if properties.create:
        attempts.append(lambda name: _create(properties.create, name, owner))  # type: ignore[arg-type]
    if not exactly or not attempts:
        attempts.append(lambda name: f"CREATE DATABASE {name}{plain}")
        attempts.append(lambda name: f"CREATE DATABASE {name}{plain} LC_COLLATE = 'C' LC_CTYPE = 'C'")
    params, number = temporary.create(attempts)
    if properties.create and number:
        instead = "its own locale" if number == 1 else "locale C"
        run.warn(
            f"this server does not have the dump's locale or an option of its database, so text may sort otherwise: "
            f"{instead} instead of {properties.create.rest.strip().rstrip(';')}"
        )
    apply_statements(run, params, properties.settings)
    run.say(f"new database {params.dbname} made, encoding {encoding}")
    return params


def _create(statement: DatabaseStatement, name: str, owner: str) -> str:
    return statement.about(name).strip().rstrip(";") + owner


def apply_statements(run: RestoreContext, params: ConnectionParams, statements: list[DatabaseStatement]) -> None:
    """Settings, privileges and the like, for this database."""
    if not statements:
        return
    with session(params, run.cancel) as connection:
        for statement in statements:
            with translated_errors(f"applying {statement.verb.strip()} to the database"):
                connection.execute(encoded(statement.about(params.dbname)))


def drop_public_schema(run: RestoreContext, params: ConnectionParams, *, makes_public: bool) -> bool:
    """Whether there is a schema public afterwards: in a new database it makes way for one of the dump's own."""
    if not makes_public:
        return True
    with session(params, run.cancel) as connection:
        try:
            connection.execute("DROP SCHEMA public")
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


@dataclass(frozen=True)
class DatabaseCounts:
    """:ivar rows: None where the server does not count. :ivar size: bytes on disk."""

    objects: int
    rows: int | None
    size: int


def count_contents(run: RestoreContext, params: ConnectionParams) -> DatabaseCounts:
    """What is in a database, once the last session of the tools has told the server what it did."""
    with session(params, run.cancel) as connection, translated_errors(f"counting what is in {params.dbname}"):
        deadline = time.monotonic() + _QUIET_SECONDS
        while fetch_value(connection, _STILL_THERE, [APPLICATION]) and time.monotonic() < deadline:
            time.sleep(0.05)
        size = fetch_value(connection, "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
        return DatabaseCounts(count_objects(connection), count_rows(connection), int(size))


def analyze(run: RestoreContext, params: ConnectionParams) -> None:
    """Statistics for the planner, which a dump before 18 does not carry. A failure is a warning: the data is there."""
    started = time.monotonic()
    with session(params, run.cancel) as connection:
        try:
            connection.execute("RESET search_path")
            connection.execute("ANALYZE")
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.Error as error:
            run.warn(f"ANALYZE failed, the planner lacks statistics: {server_message(error)}")
            return
    run.say(f"analyzed in {time.monotonic() - started:.1f} s")
