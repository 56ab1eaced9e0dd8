"""Where a rehearsal runs: a throwaway server of the right version, with the roles and tablespaces a dump speaks of."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.clients import Client, find_clients, where_to_get
from airflow_pgbackup.postgres.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server import PostgresServer
from airflow_pgbackup.postgres.toc import TocEntry
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
}

_NAME = r'("(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)'
# Roles that a definition names without being owned by them.
_ROLES = re.compile(rf"\b(?:TO|FROM|FOR ROLE|FOR|AUTHORIZATION|GRANTED BY|OWNER TO)\s+((?:{_NAME}\s*,\s*)*{_NAME})")
_ROLE_KINDS = frozenset({"ACL", "DEFAULT ACL", "POLICY", "USER MAPPING", "DATABASE PROPERTIES", "DATABASE"})
_NOT_ROLES = frozenset({"public", "current_user", "session_user", "current_role"})


def choose_server(manifest: Manifest, settings: Settings) -> Client:
    """The server programs to rehearse with: the major version of the pg_dump that wrote the dump, since that is what
    the dump's SQL is for; else the lowest newer one.

    :raises NotProven: none here.
    """
    wanted = int(manifest.client.version.split(".")[0])
    found = [client for client in find_clients(settings.client_dirs) if client.has("initdb", "postgres", "psql")]
    fitting = [client for client in found if client.major >= wanted]
    if not fitting:
        listed = "; ".join(map(str, found)) or "none at all"
        raise NotProven(
            f"no PostgreSQL server {wanted} or newer on this worker to rehearse with; found: {listed}",
            hint=f"{where_to_get(wanted, tools=('initdb', 'postgres'))}; or name a scratch server by its connection",
        )
    return min(fitting, key=lambda client: (client.major, -client.version[1]))


def check_room(manifest: Manifest, settings: Settings) -> None:
    """:raises NotProven: the disk would fill up half-way."""
    folder = settings.temp_dir or tempfile.gettempdir()
    needed = int((manifest.source.size_bytes or 3 * manifest.artifact.size) * ROOM) + _SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotProven(
            f"a rehearsal of {human_bytes(manifest.source.size_bytes or 0)} needs about {human_bytes(needed)} in "
            f"{folder}, {human_bytes(free)} are free",
            hint="set [pgbackup] temp_dir to a larger disk, or name a scratch server by its connection",
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


def check_extensions(connection: ConnectionParams, extensions: Iterable[str]) -> None:
    """:raises NotProven: naming those that the server does not have."""
    with connection.connect() as session:
        available = {name for (name,) in session.execute("select name from pg_catalog.pg_available_extensions")}
    missing = sorted(set(extensions) - available)
    if missing:
        raise NotProven(
            f"the server here lacks extensions of this database: {', '.join(missing)}",
            hint="install their packages on this worker, or name a scratch server that has them",
        )


def roles_of(entries: Iterable[TocEntry]) -> set[str]:
    """The roles that an archive speaks of: owners, grantees, those of policies and user mappings."""
    found = set()
    for entry in entries:
        if entry.owner:
            found.add(entry.owner)
        if entry.kind in _ROLE_KINDS:
            found |= roles_in(entry.definition)
    return found - _NOT_ROLES


def roles_in(text: str) -> set[str]:
    """Names that stand where SQL has roles; too many do no harm, a missing one shows when it is missed."""
    found = set()
    for match in _ROLES.finditer(text):
        for name in re.findall(_NAME, match[1]):
            found.add(name[1:-1].replace('""', '"') if name.startswith('"') else name.lower())
    return found - _NOT_ROLES


def make_roles(connection: ConnectionParams, names: Iterable[str]) -> None:
    """Stand-ins, so that owners and grants restore as they are. Superusers, because event triggers and foreign data
    wrappers must be owned by one; without login, in a server that nobody else reaches."""
    with connection.connect() as session:
        there = {name for (name,) in session.execute("select rolname from pg_catalog.pg_roles")}
        for name in sorted(set(names) - there):
            if not name.startswith("pg_"):
                session.execute(sql.SQL("CREATE ROLE {} SUPERUSER NOLOGIN").format(sql.Identifier(name)))


def make_tablespaces(connection: ConnectionParams, names: Iterable[str]) -> None:
    """In the server's own folder. https://www.postgresql.org/docs/current/runtime-config-developer.html"""
    with connection.connect() as session:
        there = {name for (name,) in session.execute("select spcname from pg_catalog.pg_tablespace")}
        for name in sorted(set(names) - there - {""}):
            session.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(sql.Identifier(name)))
