"""Problems of the client and the server as a whole: versions, connection poolers, standbys, the connection's role."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.role_passwords import MAY_READ_PASSWORDS
from airflow_pgbackup.backup.dump_plan import plan_dump
from airflow_pgbackup.backup.findings import Findings, first_named
from airflow_pgbackup.backup.member_count import check_member_count
from airflow_pgbackup.backup.source import Source
from airflow_pgbackup.errors import Canceled, ClientError, ConfigurationError, ConnectError, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.pooler import DIRECT_HINT, described, pooler_mode
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.capabilities import runs_scripts_of
from airflow_pgbackup.postgres.tools.client_choice import choose_client, choose_servers
from airflow_pgbackup.postgres.tools.clients import Client, find_clients, where_to_get
from airflow_pgbackup.postgres.tools.extensions import installed_extensions
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.wording import parameter

if TYPE_CHECKING:
    from typing_extensions import LiteralString

TRIAL_SECONDS = 120.0
"""Deadline of the trial run of pg_dump."""

EXPIRES = "14 days"
"""How early an expiring password is reported: longer than most vacations."""

_ROLE: LiteralString = """
select pg_catalog.quote_ident(rolname), rolconnlimit, rolsuper,
       pg_catalog.to_char(rolvaliduntil at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
       rolvaliduntil < pg_catalog.now() + %s::pg_catalog.interval
  from pg_catalog.pg_roles where rolname = session_user
"""
_STANDBY: LiteralString = """
select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('hot_standby_feedback')::bool,
       pg_catalog.current_setting('max_standby_streaming_delay')
"""
# -2 marks a database whose DROP was interrupted (src/include/catalog/pg_database.h); pg_dumpall skips those.
_DATABASES: LiteralString = """
select datname, pg_catalog.has_database_privilege(oid, 'connect'), datname operator(pg_catalog.~) any (%s::text[])
  from pg_catalog.pg_database where datallowconn and datconnlimit <> -2 order by datname
"""


def check_client(
    connection: ConnectionParams,
    source: Source,
    options: DumpOptions | DumpAllOptions,
    settings: Settings,
    findings: Findings,
    cancel: Cancel | None,
) -> Client | None:
    """Check that there is a client for this server, that it knows the options, and that it can connect.

    :return: the client; None if there is none.
    """
    try:
        client = choose_client(
            source.server_version_num, tools=("pg_dump", options.tool), client_dirs=settings.client_dirs
        )
    except ClientError as error:
        findings.add_error("client", error, "Add the directory of a newer client to PGBACKUP_CLIENT_DIRS.")
        return None
    try:
        plan = plan_dump(options, client, lock_wait_timeout=settings.lock_wait_timeout, connect_to=connection.dbname)
        check_member_count(connection, source, options, plan, encrypted=bool(settings.recipients))
    except (ConfigurationError, ConnectError) as error:
        findings.add_error("options", error, "See the page of the dump in the documentation.")
    server_major = source.server_version_num // 10000
    plain = isinstance(options, DumpAllOptions) or options.format == "plain"
    if plain and not runs_scripts_of(server_major, client.major):
        findings.warning(
            "newer_client",
            f"a plain dump by pg_dump {client.version_text} cannot be restored into PostgreSQL {server_major}",
            where_to_get(server_major, tools=(options.tool,), embedded=server_major == 16),
        )
    try:
        _try_tool(connection, client, options.role, cancel)
    except Canceled:
        raise
    except PgBackupError as error:
        findings.add_error("tool", error, f"Run {client.tool('pg_dump')} by hand on this worker.")
    return client


def _try_tool(connection: ConnectionParams, client: Client, role: str | None, cancel: Cancel | None) -> None:
    # Connects as the dump will and reads every catalog, but locks no table and dumps no user object. The tool's libpq
    # is another build than ours, perhaps without TLS, and may fail where our session did not.
    argv = [str(client.tool("pg_dump")), "--no-password", "--schema-only", "--exclude-schema=*", "--no-publications"]
    argv += ["--no-subscriptions", *([f"--role={role}"] if role else [])]
    env = client_environment(connection)
    run_tool(argv, env=env, cancel=cancel, deadline=TRIAL_SECONDS, limit=64 << 20)


def check_pooler(connection: ConnectionParams, findings: Findings) -> None:
    """Check for a connection pooler; see :mod:`airflow_pgbackup.postgres.connection.pooler`."""
    try:
        mode = pooler_mode(connection)
    except (ConnectError, psycopg.Error):
        return  # the role may have one session only, which is all that a dump needs
    if mode == "session":
        findings.warning(
            "pooler",
            f"{connection.label} is {described(mode)}",
            "Connect to PostgreSQL directly. If that is impossible, set query_timeout, idle_transaction_timeout and "
            "server_lifetime of the pooler to more than a dump takes. PgBouncer also needs ignore_startup_parameters = "
            "options. It then drops bytea_output = hex, which a dump needs: set it for the role (ALTER ROLE … SET).",
        )
    elif mode is not None:
        findings.error("pooler_transactions", f"{connection.label} is {described(mode)}", DIRECT_HINT)


def check_server(
    db: InspectedDatabase, connection: ConnectionParams, options: DumpOptions | DumpAllOptions, source: Source
) -> None:
    """Check for a standby, the limits of the role, and for pg_dumpall the privilege to read passwords."""
    _standby(db, options)
    _role(db, connection, options)
    _service(db, options, source)
    if isinstance(options, DumpAllOptions) and not (options.no_role_passwords or options.tablespaces_only):
        for (may,) in db.rows(MAY_READ_PASSWORDS):
            if not may:
                db.findings.error(
                    "role_passwords",
                    "pg_dumpall reads the roles' passwords from pg_authid, but this user may not",
                    f"Dump with {parameter('no_role_passwords')}, or as a superuser.",
                    ("pg_catalog.pg_authid",),
                )


def _service(db: InspectedDatabase, options: DumpOptions | DumpAllOptions, source: Source) -> None:
    service, cluster = source.limits.service, isinstance(options, DumpAllOptions)
    missing = source.limits.left_out() if cluster else source.limits.missing_elsewhere(source.extensions)
    if service and missing:
        db.findings.warning(
            "managed_service",
            f"{service.name}: {'a dump of the cluster leaves out' if cluster else 'a restore elsewhere lacks'} "
            f"{first_named(missing)}",
            "Set passwords for the roles after a restore; the service's databases hold nothing of yours."
            if cluster
            else "Restore on the same service, or remove what depends on these extensions first.",
            missing,
        )


def _standby(db: InspectedDatabase, options: DumpOptions | DumpAllOptions) -> None:
    for in_recovery, feedback, delay in db.rows(_STANDBY):
        if not in_recovery:
            continue
        if getattr(options, "serializable_deferrable", False):
            db.findings.error(
                "standby_serializable",
                f"the server is a standby, which does not support {parameter('serializable_deferrable')}",
                f"Dump without {parameter('serializable_deferrable')}, or dump from the primary.",
            )
        if delay != "-1":
            conflict = "a lock of the primary, as of ALTER TABLE or TRUNCATE," if feedback else "replay"
            db.findings.warning(
                "standby",
                f"the server is a standby with hot_standby_feedback {'on' if feedback else 'off'} and "
                f"max_standby_streaming_delay = {delay}: {conflict} cancels a dump that conflicts with it for longer",
                "Set a delay longer than a dump takes (with an archive, max_standby_archive_delay too), or "
                "dump from the primary. hot_standby_feedback = on prevents conflicts with VACUUM only.",
            )


def _role(db: InspectedDatabase, connection: ConnectionParams, options: DumpOptions | DumpAllOptions) -> None:
    for name, limit, superuser, until, soon in db.rows(_ROLE, EXPIRES):
        sessions = 2 if isinstance(options, DumpAllOptions) else 1 + (options.jobs or 0)
        if not superuser and 0 <= limit < sessions:
            db.findings.error(
                "connection_limit",
                f"role {name} is limited to {counted(limit, 'connection')}, but this dump needs {sessions}",
                f"Run ALTER ROLE {name} CONNECTION LIMIT {sessions + 2}, or use fewer jobs.",
                (name,),
            )
        if soon and connection.password is not None:
            db.findings.warning(
                "password_expires",
                f"the password of role {name} expires at {until} UTC",
                f"Set a new password in PostgreSQL and in the connection, and run ALTER ROLE {name} VALID UNTIL ....",
                (name,),
            )


def dumped_databases(db: InspectedDatabase, options: DumpAllOptions) -> list[str]:
    """Return the databases that pg_dumpall dumps. Those that it cannot connect to are findings."""
    if options.globals_only or options.roles_only or options.tablespaces_only:
        return []
    excluded = [pattern_regexes(pattern)[-1] for pattern in options.exclude_databases]
    dumped = [(name, may_enter) for name, may_enter, left_out in db.rows(_DATABASES, excluded) if not left_out]
    shut = [name for name, may_enter in dumped if not may_enter]
    if shut:
        db.findings.error(
            "database_connect",
            f"pg_dumpall would fail, as this user may not connect to {first_named(shut)}",
            f"Run GRANT CONNECT ON DATABASE ... TO the user, or dump with {parameter('exclude_databases')}.",
            shut,
        )
    # It runs pg_dump through a shell (appendShellString in src/fe_utils/string_utils.c).
    broken = [name for name, _ in dumped if set(name) & {"\n", "\r"}]
    if broken:
        db.findings.error(
            "database_name",
            "pg_dumpall cannot dump databases with a line break in their names: "
            + first_named([repr(name) for name in broken]),
            f"Dump with {parameter('exclude_databases')}, and each of them with pg_dump.",
            broken,
        )
    return [name for name, may_enter in dumped if may_enter]


def rehearsal_extensions(major: int, settings: Settings, findings: Findings) -> dict[str, str] | None:
    """Return the extensions, with versions, of the server that a rehearsal on this machine would start.

    :param major: major version of pg_dump, by which :func:`airflow_pgbackup.backup.rehearsal.programs.choose_programs`
        chooses the server.
    :return: None if this machine has no suitable server programs, which is a finding.
    """
    if servers := choose_servers(find_clients(settings.client_dirs), major):
        return installed_extensions(servers[0])
    findings.warning(
        "rehearsal",
        f"this machine has no server programs of PostgreSQL {major} or newer, so it cannot rehearse a restore",
        where_to_get(major, tools=("initdb", "postgres")),
    )
    return None
