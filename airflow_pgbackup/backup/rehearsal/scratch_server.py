"""Rehearse on a scratch server, in a temporary database that is dropped at the end.

For databases with extensions or locales that PostgreSQL on this worker lacks. The other databases of the server are not
changed, whatever the dumped database is called. Missing roles are created as stand-ins that cannot log in, and dropped
again. But the dump's SQL runs as a superuser, so the server should have no other purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import (
    Session,
    fetch_column,
    fetch_value,
    session,
    translated_errors,
    with_option,
)
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.rehearsal import provisioning
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.programs import choose_loader, choose_plain_loader
from airflow_pgbackup.backup.rehearsal.server import (
    CONVENTIONAL_ROLES,
    LOCALE_LACKING,
    LOCALE_UNNAMED,
    MOST_JOBS,
    RehearsalServer,
    create_schemas,
)
from airflow_pgbackup.backup.rehearsal.stand_ins import StandIn, StandIns
from airflow_pgbackup.errors import ClientError, ConfigurationError, ConnectError, NotProven, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.database_locale import tablespace, without_tablespace
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.sql.anybytes import is_utf8
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.clients import find_clients, where_to_get
from airflow_pgbackup.private_directory import temporary_directory
from airflow_pgbackup.quantities import noun


@dataclass(kw_only=True)
class ScratchServer(RehearsalServer):
    """A scratch server.

    :param server: facts about it.
    :param temporary: its temporary databases.
    :param shared_roles: stand-ins for roles that it lacks.
    """

    server: ServerInfo
    temporary: TemporaryDatabases
    shared_roles: StandIns

    local: ClassVar[bool] = False
    keeps_database_name: ClassVar[bool] = False
    session_options: ClassVar[str] = "-c synchronous_commit=off -c lc_messages=C"
    hint: ClassVar[str] = "Install it on the scratch server."

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
        """Return half of the number of free connections."""
        with session(self.params) as connection:
            free = fetch_value(
                connection,
                "SELECT pg_catalog.current_setting('max_connections')::int - count(*) FROM pg_catalog.pg_stat_activity",
            )
        return max(1, min(int(free) // 2, MOST_JOBS))

    def provide(self, needs: Requirements) -> None:
        provisioning.check_extensions(self.params, needs.extensions, label=self.label, hint=self.hint)
        if missing := sorted(needs.tablespaces - self.server.tablespaces - {""}):
            raise NotProven(
                f"{self.label} lacks {noun(len(missing), 'tablespace')} {', '.join(missing)}",
                hint="Create them on the scratch server, in any directory.",
            )
        self.create_roles(needs.roles, needs.superusers_of(self.major))

    def _create_roles(self, names: Iterable[str], superusers: Collection[str]) -> set[str]:
        names = provisioning.creatable_names(names)
        with session(self.params) as connection:
            existing = set(fetch_column(connection, "SELECT rolname FROM pg_catalog.pg_roles"))
        if not_utf8 := sorted(name for name in names - existing if not is_utf8(name)):
            raise NotProven(
                f"{self.label} lacks roles whose names are not UTF-8: {', '.join(not_utf8)}",
                hint="Create them there from an SQL_ASCII database, or rehearse in a throwaway server.",
            )
        source = self.source_roles
        bypass_rls = set(source.bypass_rls)
        wanted = {name: StandIn(name in superusers, name in bypass_rls, source.granted_to(name)) for name in names}
        with self._changing_stand_ins():
            return self.shared_roles.create(wanted)

    def _set_time_zone(self, connection: Session, name: str) -> None:
        connection.execute("SELECT pg_catalog.set_config('TimeZone', %s, false)", [name])
        self.params = with_option(self.params, f"TimeZone={name}")

    def make_superusers(self) -> None:
        with self._changing_stand_ins():
            self.shared_roles.make_superusers(self.plain_roles)
        self.plain_roles.clear()

    @contextmanager
    def _changing_stand_ins(self) -> Iterator[None]:
        with not_proven_if_failing(self.label), translated_errors("changing stand-ins for roles"):
            yield

    def drop_database(self, database: str) -> ConnectionParams:
        raise AssertionError(f"{database} on a scratch server must not be dropped")

    def create_database(
        self, database: str, encoding: str, schemas: Sequence[str] = (), create: DatabaseStatement | None = None
    ) -> ConnectionParams:
        self.temporary.drop()
        literal = "'" + encoding.replace("'", "''") + "'"
        attempts: list[Callable[[str], str]] = [
            lambda name: f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {literal}",
            lambda name: f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {literal} LC_COLLATE 'C' LC_CTYPE 'C'",
        ]
        if create:
            lacks_tablespace = tablespace(create) not in (None, *self.server.tablespaces)
            attempts.insert(0, (without_tablespace(create) if lacks_tablespace else create).about)
        with not_proven_if_failing(self.label):
            created, number = self.temporary.create(attempts)
            create_schemas(created, schemas)
        self.other_locale = LOCALE_UNNAMED if create is None else LOCALE_LACKING if number else ""
        return self.params.with_database(created.dbname)


@contextmanager
def use_scratch_server(dump: RehearsedDump, connection: ConnectionParams) -> Iterator[ScratchServer]:
    """Check a scratch server, and use it for a rehearsal.

    :param connection: to a database that always exists, such as ``postgres``, as a superuser.
    :raises NotProven: the server cannot be reached, or is not suitable.
    """
    manifest, settings, cancel = dump.manifest, dump.settings, dump.cancel
    label = f"the scratch server {connection.label}"
    if manifest.series.database is None:
        raise NotProven(
            "the dump of a cluster cannot be rehearsed on a scratch server, as it creates databases under their own "
            "names",
            hint="Rehearse it in a throwaway server, or dump its databases one by one.",
        )
    with not_proven_if_failing(label), session(connection, cancel) as inspecting:
        server = ServerInfo.read(inspecting, label)
    major, wanted = server.major, manifest.client.major
    if not server.superuser:
        raise NotProven(
            f"user {server.user} is not a superuser of {label}",
            hint="Connect as a superuser: a rehearsal creates the roles of the dump, some of which must be superusers.",
        )
    if major < wanted:
        raise NotProven(
            f"{label} is PostgreSQL {major}, but the dump by pg_dump {wanted} needs version {wanted} or newer",
            hint=f"Use a scratch server of version {wanted}.",
        )
    clients = find_clients(settings.client_dirs)
    loader = (
        choose_plain_loader(major, clients)
        if manifest.artifact.format == "plain"
        else choose_loader(manifest, major, clients)
    )
    if loader is None:
        raise NotProven(f"no pg_restore on this machine for the dump and {label}", hint=where_to_get(wanted))
    try:
        programs = choose_client(server.version_num, client_dirs=settings.client_dirs)
    except ClientError as error:
        raise NotProven(error.message, hint=error.hint) from None
    with ExitStack() as stack:
        shared_roles = StandIns(connection, label=label, timeout=dump.deadline, cancel=cancel, say=dump.log)
        stack.enter_context(shared_roles)
        with not_proven_if_failing(label):
            temporary = stack.enter_context(TemporaryDatabases(connection, cancel=cancel, say=dump.log))
        yield ScratchServer(
            params=connection,
            directory=Path(settings.temp_dir or temporary_directory()),
            programs=programs,
            loader=loader,
            notes=(f"rehearsed on {label}",),
            source_roles=manifest.source.roles or CONVENTIONAL_ROLES,
            server=server,
            temporary=temporary,
            shared_roles=shared_roles,
        )


@contextmanager
def not_proven_if_failing(label: str) -> Iterator[None]:
    """Turn errors of the server into NotProven: they are not the backup's fault."""
    try:
        yield
    except (ConfigurationError, ConnectError, RestoreError) as error:
        raise NotProven(f"{label}: {error.message}", hint=error.hint) from None
