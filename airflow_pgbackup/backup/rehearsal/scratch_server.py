"""A rehearsal on a scratch server that a connection names: in a database of its own name, and gone afterwards.

For databases with extensions or locales that this worker's own PostgreSQL lacks. The server may hold other things: none
of its databases is touched, whatever the dump's own is called. Roles that it lacks are made as stand-ins without login
and dropped again. The dump's SQL runs there as a superuser all the same: it should be a server for that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import fetch_column, fetch_value, session
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.rehearsal import throwaway
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer, make_schemas
from airflow_pgbackup.backup.rehearsal.throwaway import choose_loader, choose_plain_loader
from airflow_pgbackup.errors import ClientError, ConfigurationError, ConnectError, NotProven, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.sql.anybytes import Identifier, is_utf8
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.clients import find_clients, where_to_get
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings

_STAND_IN = "stand-in of airflow-pgbackup, for a rehearsal"


@dataclass(kw_only=True)
class ScratchServer(RehearsalServer):
    """:ivar server: what the scratch server said of itself."""

    server: ServerInfo
    temporary: TemporaryDatabases

    local: ClassVar[bool] = False
    own_names: ClassVar[bool] = False
    session_options: ClassVar[str] = "-c synchronous_commit=off -c lc_messages=C"  # what it says is looked up
    hint: ClassVar[str] = "install it there"

    @property
    def major(self) -> int:
        return self.server.major

    @property
    def version_text(self) -> str:
        return f"{self.server.version_num // 10000}.{self.server.version_num % 10000}"

    @property
    def label(self) -> str:
        return f"the scratch server {self.params.label} (PostgreSQL {self.version_text})"

    def most_jobs(self) -> int:
        """A half of the connections that are free."""
        with session(self.params) as connection:
            free = fetch_value(
                connection,
                "SELECT pg_catalog.current_setting('max_connections')::int - count(*) FROM pg_catalog.pg_stat_activity",
            )
        return max(1, min(int(free) // 2, throwaway.JOBS))

    def provide(self, needs: Requirements) -> None:
        throwaway.check_extensions(self.params, needs.extensions, label=self.label, hint=self.hint)
        if missing := sorted(needs.tablespaces - self.server.tablespaces - {""}):
            raise NotProven(
                f"{self.label} lacks tablespaces of this database: {', '.join(missing)}",
                hint="create them there, in any folder",
            )
        self.make_roles(needs.roles)

    def make_roles(self, names: Iterable[str]) -> None:
        with session(self.params) as connection:
            there = set(fetch_column(connection, "SELECT rolname FROM pg_catalog.pg_roles"))
            missing = [name for name in sorted(set(names) - there - {"public"}) if not name.startswith("pg_")]
            if other := [name for name in missing if not is_utf8(name)]:
                raise NotProven(
                    f"{self.label} lacks roles of the dump whose names are not UTF-8: {', '.join(other)}",
                    hint="create them there from a database in SQL_ASCII, or rehearse in a throwaway server",
                )
            for name in missing:
                role = Identifier(name)
                with connection.transaction():
                    connection.execute(sql.SQL("CREATE ROLE {} SUPERUSER NOLOGIN").format(role))
                    connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(_STAND_IN)))

    def cleared(self, database: str) -> ConnectionParams:
        raise AssertionError(f"{database} is not ours to drop")

    def fresh(
        self, database: str, encoding: str, schemas: Sequence[str] = (), create: DatabaseStatement | None = None
    ) -> ConnectionParams:
        self.temporary.drop()
        literal = "'" + encoding.replace("'", "''") + "'"
        attempts: list[Callable[[str], str]] = [
            lambda name: f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {literal}",
            lambda name: f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {literal} LC_COLLATE 'C' LC_CTYPE 'C'",
        ]
        if create:
            attempts.insert(0, create.about)
        with unproven(self.label):
            made, _ = self.temporary.create(attempts)
            make_schemas(made, schemas)
        return made


@contextmanager
def use_scratch_server(
    manifest: Manifest,
    connection: ConnectionParams,
    settings: Settings,
    *,
    cancel: Cancel,
    log: Callable[[str], None],
) -> Iterator[ScratchServer]:
    """Look at the scratch server, and be ready to rehearse there.

    :param connection: to a database of it that is there for good, ``postgres`` say, as a superuser.
    :raises NotProven: it cannot be reached, or cannot do it.
    """
    label = f"the scratch server {connection.label}"
    if manifest.series.database is None:
        raise NotProven(
            "the dump of a cluster makes databases and roles by their own names, so it is not for a scratch server",
            hint="rehearse it in a throwaway server, or dump its databases one by one",
        )
    with unproven(label), session(connection, cancel) as asked:
        server = ServerInfo.read(asked, label)
    major, wanted = server.major, int(manifest.client.version.split(".")[0])
    if not server.superuser:
        raise NotProven(
            f"{server.user} is no superuser of {label}",
            hint="a rehearsal makes the roles that own things in the dump, some of which must be superusers",
        )
    if major < wanted:
        raise NotProven(
            f"{label} is PostgreSQL {major}, and the dump was made by pg_dump {wanted} for {wanted} or newer",
            hint=f"name a scratch server of version {wanted}",
        )
    clients = find_clients(settings.client_dirs)
    loader = (
        choose_plain_loader(major, clients)
        if manifest.artifact.format == "plain"
        else choose_loader(manifest, major, clients)
    )
    if loader is None:
        raise NotProven("no pg_restore here for this dump and server", hint=where_to_get(wanted))
    try:
        programs = choose_client(server.version_num, client_dirs=settings.client_dirs)
    except ClientError as error:
        raise NotProven(error.message, hint=error.hint) from None
    with ExitStack() as stack:
        stack.callback(_drop_stand_ins, connection)
        with unproven(label):
            temporary = stack.enter_context(TemporaryDatabases(connection, cancel=cancel, say=log))
        yield ScratchServer(
            params=connection,
            folder=Path(settings.temp_dir or tempfile.gettempdir()),
            programs=programs,
            loader=loader,
            notes=(f"rehearsed on {label}",),
            server=server,
            temporary=temporary,
        )


@contextmanager
def unproven(label: str) -> Iterator[None]:
    """What goes wrong with the server is not the backup's fault."""
    try:
        yield
    except (ConfigurationError, ConnectError, RestoreError) as error:
        raise NotProven(f"{label}: {error.message}", hint=error.hint) from None


def _drop_stand_ins(connection: ConnectionParams) -> None:
    """Also those that a killed rehearsal has left; another one that runs now keeps those it uses, as their owners."""
    with suppress(ConnectError, psycopg.Error), session(connection) as asked:
        roles = fetch_column(
            asked,
            "SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE NOT r.rolcanlogin "
            "AND pg_catalog.shobj_description(r.oid, 'pg_authid') = %s",
            [_STAND_IN],
        )
        for name in roles:
            with suppress(psycopg.errors.DependentObjectsStillExist, psycopg.errors.UndefinedObject):
                asked.execute(sql.SQL("DROP ROLE {}").format(Identifier(name)))
