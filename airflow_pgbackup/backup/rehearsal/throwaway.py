"""Where a rehearsal runs: a throwaway server of the right version, with the roles and tablespaces a dump speaks of."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from psycopg import sql

from airflow_pgbackup.backup.artifact import reader_requirements
from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.errors import ConfigurationError, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.sql.anybytes import Identifier, is_utf8
from airflow_pgbackup.postgres.tools import client_choice
from airflow_pgbackup.postgres.tools.client_choice import choose_psql, choose_servers
from airflow_pgbackup.postgres.tools.clients import Client, find_clients, where_to_get
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings

ROOM = 1.3
"""Bytes of disk a rehearsal is given for each byte that the database took: the restored copy is smaller, WAL is not."""

_SPARE = 256 * 1024**2  # an empty cluster and its first WAL

# For loading, and for a machine that does other things too.
BULK_LOAD = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_connections": "30",
    "jit": "off",
    "allow_in_place_tablespaces": "on",
    "max_locks_per_transaction": "512",
    "log_line_prefix": "%e ",  # the SQLSTATE, by which a rehearsal tells whose fault an error is
}

JOBS = 20
"""The most sessions of a restore; the others are for those that compare."""

# Extensions that do something only, or can be made only, in a server that has loaded a library of theirs at its start;
# and what each then needs to be still. Tried or taken from their documentation.
PRELOADED: dict[str, dict[str, str]] = {
    "age": {},
    "anon": {},
    "citus": {},
    "documentdb_core": {},
    "pg_cron": {"cron.launch_active_jobs": "off"},
    "pg_hint_plan": {},
    "pg_net": {},
    "pg_partman_bgw": {},
    "pg_qualstats": {},
    "pg_squeeze": {},
    "pg_stat_kcache": {},
    "pg_stat_monitor": {},
    "pg_stat_statements": {},
    "pg_wait_sampling": {},
    "pgaudit": {},
    "pglogical": {},
    "pgsodium": {},
    "set_user": {},
    "timescaledb": {"timescaledb.telemetry_level": "off", "timescaledb.max_background_workers": "0"},
}
_NAMES_DATABASE = {"pg_cron": "cron.database_name", "pg_net": "pg_net.database_name"}


def choose_programs(manifest: Manifest, settings: Settings) -> tuple[Client, Client]:
    """The server programs to rehearse with, and the client that restores into that server.

    The server's major version is that of the pg_dump that wrote the dump, since that is what the dump's SQL is for;
    else the lowest newer one. pg_restore must know the archive's compression, and the server what pg_restore says:
    from version 17 on it sets ``transaction_timeout``, which older servers do not know. psql says nothing by itself.

    :raises NotProven: none here.
    """
    wanted = int(manifest.client.version.split(".")[0])
    clients = find_clients(settings.client_dirs)
    servers = choose_servers(clients, wanted)
    if not servers:
        listed = "; ".join(str(client) for client in clients if client.has("initdb", "postgres")) or "none at all"
        raise NotProven(
            f"no PostgreSQL server {wanted} or newer on this worker to rehearse with; found: {listed}",
            hint=f"{where_to_get(wanted, tools=('initdb', 'postgres'))}",
        )
    if manifest.artifact.format == "plain":
        return servers[0], choose_plain_loader(servers[0].major, clients)
    for server in servers:
        if loader := choose_loader(manifest, server.major, clients):
            return server, loader
    raise NotProven(
        f"no pg_restore here that knows {manifest.artifact.compressed_inside} and a server that knows what it says; "
        f"found: {'; '.join(map(str, clients))}",
        hint=where_to_get(wanted, tools=("initdb", "postgres"), embedded=False),
    )


def choose_loader(manifest: Manifest, server: int, clients: Sequence[Client]) -> Client | None:
    """Return the client that restores this archive into a server of that major version, or None."""
    return client_choice.choose_loader(clients, reader_requirements(manifest), server)


def choose_plain_loader(server: int, clients: Sequence[Client]) -> Client:
    """The client whose psql runs a plain dump, in a server of that major version.

    :raises NotProven: none here that runs it safely.
    """
    try:
        return choose_psql(clients, server)
    except ConfigurationError as error:
        raise NotProven(error.message, hint=error.hint) from None


def check_room(manifest: Manifest, settings: Settings) -> None:
    """:raises NotProven: the disk would fill up half-way."""
    folder = settings.temp_dir or tempfile.gettempdir()
    needed = int((manifest.source.size_bytes or 3 * manifest.artifact.size) * ROOM) + _SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotProven(
            f"a rehearsal of {human_bytes(manifest.source.size_bytes or 0)} needs about {human_bytes(needed)} in "
            f"{folder}, {human_bytes(free)} are free",
            hint="set [pgbackup] temp_dir to a larger disk",
        )


@contextmanager
def throwaway_server(
    manifest: Manifest, programs: Client, settings: Settings, *, extensions: Collection[str] = ()
) -> Iterator[PostgresServer]:
    """A private server, gone afterwards whatever happens.

    :param extensions: that the dump needs; what of them must be loaded at the start is, where the machine has it.
    """
    check_room(manifest, settings)
    directory = Path(settings.temp_dir) if settings.temp_dir else None
    jobs = str(len(os.sched_getaffinity(0)))
    settings_ = {**BULK_LOAD, "max_parallel_maintenance_workers": jobs, **_preload(programs, manifest, extensions)}
    with PostgresServer(programs.bin_dir, directory=directory, settings=settings_, contained=True) as server:
        yield server


def _preload(programs: Client, manifest: Manifest, extensions: Collection[str]) -> dict[str, str]:
    """The settings of a server for these extensions."""
    found = [name for name in sorted(PRELOADED.keys() & set(extensions)) if programs.has_library(name)]
    if not found:
        return {}
    settings = {"shared_preload_libraries": ",".join(found)}
    for name in found:
        settings |= PRELOADED[name]
        if (setting := _NAMES_DATABASE.get(name)) and manifest.series.database:
            settings[setting] = manifest.series.database
    return settings


def with_bootstrap_superuser(connection: ConnectionParams, name: str) -> ConnectionParams:
    """Give the server's own superuser that name, and make another one, with a random name, to connect as.

    Memberships that the source's own superuser granted are dumped as granted by it, and from version 16 on a server
    takes that of its own superuser only, or of one who has the ADMIN option.
    """
    ours = replace(connection, keywords={**connection.keywords, "user": f"pgb_{secrets.token_hex(8)}"})
    with connection.connect() as session:
        session.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(Identifier(ours.user)))
    with ours.connect() as session:
        session.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(connection.user), Identifier(name)))
    return ours


def check_extensions(
    connection: ConnectionParams,
    extensions: Iterable[str],
    *,
    label: str = "the server here",
    hint: str = "install their packages on this worker, or name a scratch server that has them",
) -> None:
    """:raises NotProven: naming those that the server does not have."""
    with connection.connect() as session:
        available = {name for (name,) in session.execute("select name from pg_catalog.pg_available_extensions")}
    missing = sorted(set(extensions) - available)
    if missing:
        raise NotProven(f"{label} lacks extensions of this database: {', '.join(missing)}", hint=hint)


def make_roles(connection: ConnectionParams, names: Iterable[str]) -> None:
    """Stand-ins, so that owners and grants restore as they are. Superusers, because event triggers and foreign data
    wrappers must be owned by one; without login, in a server that nobody else reaches."""
    names = {name for name in names if not name.startswith("pg_")} - {"public"}  # to which a user mapping may belong
    with _takes_names(connection, names) as place, place.connect() as session:
        there = {name for (name,) in session.execute("select rolname from pg_catalog.pg_roles")}
        for name in sorted(names - there):
            session.execute(sql.SQL("CREATE ROLE {} SUPERUSER NOLOGIN").format(Identifier(name)))


@contextmanager
def _takes_names(connection: ConnectionParams, names: Iterable[str]) -> Iterator[ConnectionParams]:
    """A database from which roles of these names can be made: of one that is not UTF-8 only a database in SQL_ASCII."""
    if all(map(is_utf8, names)):
        yield connection
        return
    place = connection.with_database(f"pgb_{secrets.token_hex(8)}")
    with connection.connect() as session:
        name = Identifier(place.dbname)
        locale = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        session.execute(sql.SQL("CREATE DATABASE {} {}").format(name, sql.SQL(locale)))
        yield place
        session.execute(sql.SQL("DROP DATABASE {}").format(name))


def make_tablespaces(connection: ConnectionParams, names: Iterable[str]) -> None:
    """In the server's own folder. https://www.postgresql.org/docs/current/runtime-config-developer.html"""
    with connection.connect() as session:
        there = {name for (name,) in session.execute("select spcname from pg_catalog.pg_tablespace")}
        for name in sorted(set(names) - there - {""}):
            session.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(Identifier(name)))
