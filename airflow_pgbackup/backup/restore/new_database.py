"""Create a database with the properties of another one, and count and analyze it once it is filled."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from airflow_pgbackup.backup.databases.sessions import fetch_value, session, translated_errors
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.databases.user_objects import count_objects, count_rows
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.grantors import apply_statement
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, quoted
from airflow_pgbackup.postgres.definitions.public_schema import PublicSchema
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.wording import parameter

_TABLESPACE = re.compile(rf" TABLESPACE = {IDENTIFIER}$")
_QUIET_SECONDS = 5.0  # the longest wait for the sessions of pg_restore and psql to end
_IS_SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
# What the clocks of the session's time zone have shown since 1970: zones can have several names.
_CLOCK = """
SELECT pg_catalog.array_agg(t::timestamp::text)
  FROM pg_catalog.generate_series('1970-01-01 00:00+00'::timestamptz, pg_catalog.now(), '720 hours') AS t
"""
_TOOL_SESSIONS = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE application_name = %s"


def read_properties(run: RestoreContext, params: ConnectionParams, server_version: int) -> DatabaseProperties:
    """Return the properties of an existing database as pg_dump writes them: CREATE DATABASE, settings, privileges.

    :param server_version: ``server_version_num``.
    :raises ClientError: this machine has no pg_dump for that server.
    :raises ToolError: pg_dump failed.
    """
    client = choose_client(server_version, client_dirs=run.settings.client_dirs)
    # All schemas are excluded, so that no table is locked.
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
    is_final: bool = True,
) -> ConnectionParams:
    """Create a database under a temporary name, with the properties that matter while it is filled.

    :param properties: of the dumped or the old database.
    :param encoding: used if `properties` has none.
    :param exactly: fail if the server lacks the tablespace or the locale; False falls back to the default tablespace,
        then to the server's default locale, then to C.
    :param is_final: False omits the settings of roles, and database settings that fail.
    """
    owner = f" OWNER = {quoted(properties.owner)}" if properties.owner else ""
    encoding = properties.encoding or encoding or "UTF8"
    plain = f" TEMPLATE = template0 ENCODING = '{encoding}'{owner}"
    attempts = _attempts(properties.create, plain, owner, exactly=exactly)
    params, number = temporary.create([statement for statement, _ in attempts], owner=properties.owner)
    if warning := attempts[number][1]:
        run.warn(warning)
    if is_final:
        apply_statements(run, params, properties.settings)
    else:
        _apply_settings(run, params, properties.settings)
    run.log(f"created database {params.dbname}, encoding {encoding}")
    return params


def _attempts(
    create: DatabaseStatement | None, plain: str, owner: str, *, exactly: bool
) -> list[tuple[Callable[[str], str], str]]:
    """Return functions that return CREATE DATABASE for a name, the best first, each with what to warn of.

    :param create: the dump's own statement, None if it has none.
    :param plain: the options to use instead.
    """
    in_default_locale: Callable[[str], str] = lambda name: f"CREATE DATABASE {name}{plain}"  # noqa: E731
    in_locale_c: Callable[[str], str] = lambda name: (  # noqa: E731
        f"CREATE DATABASE {name}{plain} LC_COLLATE = 'C' LC_CTYPE = 'C'"
    )
    if create is None:
        return [(in_default_locale, ""), (in_locale_c, "")]
    attempts: list[tuple[Callable[[str], str], str]] = [(lambda name: _create(create, name, owner), "")]
    if exactly:
        return attempts
    options = create.rest.strip().rstrip(";")
    if _TABLESPACE.search(options):
        attempts.append(
            (
                lambda name: _TABLESPACE.sub("", _create(create, name, "")) + owner,
                f"the server lacks the tablespace of the dumped database: using the default one instead of {options}",
            )
        )
    for statement, locale in ((in_default_locale, "its default locale"), (in_locale_c, "locale C")):
        attempts.append(
            (
                statement,
                "the server lacks the locale or another option of the dumped database, so text may sort differently: "
                f"using {locale} instead of {options}; to choose one, create the database with it and restore with "
                f"{parameter('mode', 'into_empty')}",
            )
        )
    return attempts


def _create(statement: DatabaseStatement, name: str, owner: str) -> str:
    return statement.about(name).strip().rstrip(";") + owner


def apply_statements(run: RestoreContext, params: ConnectionParams, statements: list[DatabaseStatement]) -> None:
    """Run the statements of database properties for the database that `params` names."""
    if not statements:
        return
    refused = (
        "Connect as a superuser, or as a role that may change this for that role, parameter or database. Or create a "
        f"database yourself and restore into it with {parameter('mode', 'into_empty')}, which sets no properties."
    )
    with session(params, run.cancel) as connection:
        for statement in statements:
            with translated_errors(f"applying {statement.verb.strip()} to the database", refused=refused):
                apply_statement(connection, statement, params.dbname, run.warn)


def _apply_settings(run: RestoreContext, params: ConnectionParams, settings: list[DatabaseStatement]) -> None:
    """Set the parameters of a database that rows only pass through, as far as that is possible."""
    for statement in settings:
        if statement.role is None:
            try:
                apply_statements(run, params, [statement])
            except RestoreError as error:
                run.log(f"the temporary database lacks a setting: {error.message}")


def change_existing(
    run: RestoreContext, params: ConnectionParams, properties: DatabaseProperties, *, settings: bool
) -> None:
    """Give an existing database, such as ``postgres``, the properties of the dumped one. A failure is a warning.

    The dumped comment may contain the marker of an earlier restore; the caller removes it.

    :param settings: True: its settings, which also apply to the restore, such as the time zone; False: the others.
    """
    for statement in properties.changes():
        if statement.is_setting != settings:
            continue
        try:
            apply_statements(run, params, [statement])
        except RestoreError as error:
            run.warn(f"database {params.dbname} differs from the dumped one: {error.message}")


def warn_of_time_zone(run: RestoreContext, params: ConnectionParams, source: str | None) -> None:
    """Warn if the sessions that restore have another time zone than those of the source.

    :param source: from the manifest; None if it is unknown.
    """
    if source is None:
        return
    with session(params, run.cancel) as connection:
        here, clock = fetch_value(connection, "SHOW timezone"), fetch_value(connection, _CLOCK)
        with suppress(psycopg.errors.InvalidParameterValue):  # the server does not know it
            connection.execute("SELECT pg_catalog.set_config('TimeZone', %s, false)", [source])
            if fetch_value(connection, _CLOCK) == clock:
                return
    run.warn(
        f"the time zone here is {here}, but {source} in the source: what generated columns, indexes and materialized "
        "views compute from times may differ, and CHECK constraints may fail; if that is not wanted, set the time zone "
        "of the server or the database first (ALTER DATABASE … SET timezone), and restore again"
    )


def prepare_public_schema(run: RestoreContext, params: ConnectionParams, public: PublicSchema | None) -> bool:
    """Prepare schema public of a new database for a dump that creates it.

    The schema is kept with the privileges that initdb gave it, because the dump contains only those that differ. Its
    owner and comment become those that it has after CREATE SCHEMA.

    :param public: how the dump creates the schema; None if it does not.
    :return: whether the database has a schema public now, so that the dump must not create it.
    """
    if public is None:
        return True
    owner = "CURRENT_USER" if public.owner is None else quoted(public.owner)
    with session(params, run.cancel) as connection:
        try:
            if public.anew:
                connection.execute("DROP SCHEMA public")
                return False
            with connection.transaction():
                connection.execute(encoded(f"ALTER SCHEMA public OWNER TO {owner}"))
                if fetch_value(connection, _IS_SUPERUSER):  # for others, a restore skips the standard comment
                    connection.execute("COMMENT ON SCHEMA public IS NULL")
        except psycopg.errors.InsufficientPrivilege as error:
            if public.owner is not None:
                run.warn(f"schema public does not get the owner {public.owner}: {server_message(error)}")
    return True


def give_public_schema(run: RestoreContext, params: ConnectionParams, owner: str) -> None:
    """Give schema public, which the restore did not create, the owner of the dumped one. A failure is a warning."""
    with session(params, run.cancel) as connection:
        try:
            connection.execute(encoded(f"ALTER SCHEMA public OWNER TO {quoted(owner)}"))
        except psycopg.errors.InsufficientPrivilege as error:
            run.warn(f"schema public does not get the owner {owner}: {server_message(error)}")


@dataclass(frozen=True)
class DatabaseCounts:
    """What a database contains.

    :param objects: user objects.
    :param rows: of tables, None if the server does not count them.
    :param size: bytes on disk.
    """

    objects: int
    rows: int | None
    size: int


def count_contents(run: RestoreContext, params: ConnectionParams) -> DatabaseCounts:
    """Count objects and rows, after the sessions of pg_restore and psql have ended and reported their statistics."""
    with (
        session(params, run.cancel) as connection,
        translated_errors(f"counting the objects and rows in {params.dbname}"),
    ):
        deadline = time.monotonic() + _QUIET_SECONDS
        while fetch_value(connection, _TOOL_SESSIONS, [run.application]) and time.monotonic() < deadline:
            time.sleep(0.05)
        size = fetch_value(connection, "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
        return DatabaseCounts(count_objects(connection), count_rows(connection), int(size))


def analyze(run: RestoreContext, params: ConnectionParams) -> None:
    """Gather planner statistics, which dumps before version 18 do not contain. A failure is a warning."""
    started = time.monotonic()
    with session(params, run.cancel) as connection:
        try:
            connection.execute("RESET search_path")
            connection.execute("ANALYZE")
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.Error as error:
            run.warn(f"ANALYZE failed, so the planner lacks statistics: {server_message(error)}")
            return
    run.log(f"analyzed {params.dbname} in {time.monotonic() - started:.1f} s")
