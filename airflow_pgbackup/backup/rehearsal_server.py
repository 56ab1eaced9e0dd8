"""Where a rehearsal runs: a throwaway server of the right version, with the roles and tablespaces a dump speaks of."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.errors import (
    ConnectError,
    DeadlineExceeded,
    NotProven,
    ToolError,
    ToolKilled,
    VerificationFailed,
)
from airflow_pgbackup.postgres.clients import Client, find_clients, where_to_get
from airflow_pgbackup.postgres.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server import PostgresServer
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings

ROOM = 1.3
"""Bytes of disk a rehearsal is given for each byte that the database took: the restored copy is smaller, WAL is not."""

_UNKNOWN_SETTING = 17  # https://www.postgresql.org/docs/17/release-17.html: transaction_timeout

_LOST = re.compile(
    r"server closed the connection unexpectedly|terminating connection because of (?:crash|unexpected)"
    r"|the database system is (?:in recovery|shutting down|starting up)|terminating connection due to administrator"
)

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
}


def choose_programs(manifest: Manifest, settings: Settings) -> tuple[Client, Client]:
    """The server programs to rehearse with, and the client that restores into that server.

    The server's major version is that of the pg_dump that wrote the dump, since that is what the dump's SQL is for;
    else the lowest newer one. pg_restore must know the archive's compression, and the server what pg_restore says:
    from version 17 on it sets ``transaction_timeout``, which older servers do not know. psql says nothing by itself,
    and the newest knows all commands that a dump may hold.

    :raises NotProven: none here.
    """
    wanted = int(manifest.client.version.split(".")[0])
    clients = find_clients(settings.client_dirs)
    servers = [client for client in clients if client.has("initdb", "postgres", "psql") and client.major >= wanted]
    if not servers:
        listed = "; ".join(str(client) for client in clients if client.has("initdb", "postgres")) or "none at all"
        raise NotProven(
            f"no PostgreSQL server {wanted} or newer on this worker to rehearse with; found: {listed}",
            hint=f"{where_to_get(wanted, tools=('initdb', 'postgres'))}",
        )
    if manifest.artifact.format == "plain":
        return min(servers, key=_preference), next(client for client in clients if client.has("psql"))
    method = manifest.artifact.compression.method if manifest.artifact.compression.by == "pg_dump" else None
    loaders = [
        client
        for client in clients
        if client.has("pg_restore", "pg_dump") and client.major >= wanted
        if method in (None, "none") or method in client.compression_methods
    ]
    for server in sorted(servers, key=_preference):
        for loader in sorted(loaders, key=_preference):
            if loader.major <= max(server.major, _UNKNOWN_SETTING - 1) or server.major >= _UNKNOWN_SETTING:
                return server, loader
    listed = "; ".join(map(str, [*servers, *loaders]))
    raise NotProven(
        f"no pg_restore here that knows {method} and a server that knows what it says; found: {listed}",
        hint=where_to_get(wanted, tools=("initdb", "postgres"), embedded=False),
    )


def _preference(client: Client) -> tuple[int, int]:
    return client.major, -client.version[1]


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
def throwaway(manifest: Manifest, programs: Client, settings: Settings) -> Iterator[PostgresServer]:
    """A private server, gone afterwards whatever happens."""
    check_room(manifest, settings)
    directory = Path(settings.temp_dir) if settings.temp_dir else None
    jobs = str(os.cpu_count() or 1)
    settings_ = {**BULK_LOAD, "max_parallel_maintenance_workers": jobs}
    with PostgresServer(programs.bin_dir, directory=directory, settings=settings_, contained=True) as server:
        yield server


def without_login_triggers(connection: ConnectionParams, programs: Client) -> ConnectionParams:
    """To look at a restored copy: what the database does at every login would change it."""
    if programs.major < 17:  # https://www.postgresql.org/docs/17/event-trigger-definition.html
        return connection
    return replace(connection, keywords={**connection.keywords, "options": "-c event_triggers=off"})


def with_bootstrap_superuser(connection: ConnectionParams, name: str) -> ConnectionParams:
    """Give the server's own superuser that name, and make another one, with a random name, to connect as.

    Memberships that the source's own superuser granted are dumped as granted by it, and from version 16 on a server
    takes that of its own superuser only, or of one who has the ADMIN option.
    """
    ours = replace(connection, keywords={**connection.keywords, "user": f"pgb_{secrets.token_hex(8)}"})
    with connection.connect() as session:
        session.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(sql.Identifier(ours.user)))
    with ours.connect() as session:
        session.execute(
            sql.SQL("ALTER ROLE {} RENAME TO {}").format(sql.Identifier(connection.user), sql.Identifier(name))
        )
    return ours


@contextmanager
def kept(server: PostgresServer, programs: Client) -> Iterator[None]:
    """While it lasts the server must too: that it was killed, by a lack of memory say, is no finding.

    :raises NotProven: it is gone, or broke off a session.
    """
    try:
        yield
    except (ToolError, VerificationFailed, ConnectError, psycopg.OperationalError) as error:
        said = "\n".join([*getattr(error, "stderr", []), str(error)])
        if isinstance(error, (ToolKilled, DeadlineExceeded)) or not (_LOST.search(said) or _gone(server)):
            raise
        raise NotProven(
            f"the throwaway PostgreSQL {programs.version_text} went away during the rehearsal: {error}",
            hint="somebody killed it; often that is the kernel, out of memory (see dmesg, memory limits)",
        ) from error


def _gone(server: PostgresServer) -> bool:
    try:
        server.params.connect().close()
    except ConnectError:
        return True
    return False


def check_extensions(connection: ConnectionParams, extensions: Iterable[str]) -> None:
    """:raises NotProven: naming those that the server does not have."""
    with connection.connect() as session:
        available = {name for (name,) in session.execute("select name from pg_catalog.pg_available_extensions")}
    missing = sorted(set(extensions) - available)
    if missing:
        raise NotProven(
            f"the server here lacks extensions of this database: {', '.join(missing)}",
            hint="install their packages on this worker",
        )


def make_roles(connection: ConnectionParams, names: Iterable[str]) -> None:
    """Stand-ins, so that owners and grants restore as they are. Superusers, because event triggers and foreign data
    wrappers must be owned by one; without login, in a server that nobody else reaches."""
    with connection.connect() as session:
        there = {name for (name,) in session.execute("select rolname from pg_catalog.pg_roles")}
        for name in sorted(set(names) - there - {"public"}):  # to which a user mapping may belong
            if not name.startswith("pg_"):
                session.execute(sql.SQL("CREATE ROLE {} SUPERUSER NOLOGIN").format(sql.Identifier(name)))


def make_tablespaces(connection: ConnectionParams, names: Iterable[str]) -> None:
    """In the server's own folder. https://www.postgresql.org/docs/current/runtime-config-developer.html"""
    with connection.connect() as session:
        there = {name for (name,) in session.execute("select spcname from pg_catalog.pg_tablespace")}
        for name in sorted(set(names) - there - {""}):
            session.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(sql.Identifier(name)))
