"""The server of a rehearsal: it gets a database for the copy, with the roles and tablespaces of the dump."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import Session, session, without_event_triggers
from airflow_pgbackup.backup.databases.temporary_database import UNSUPPORTED, drop_temporary
from airflow_pgbackup.backup.rehearsal import provisioning
from airflow_pgbackup.backup.rehearsal.programs import choose_programs
from airflow_pgbackup.backup.rehearsal.throwaway import throwaway_server
from airflow_pgbackup.errors import ConnectError, DeadlineExceeded, NotProven, ToolError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.database_locale import in_locale_c
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.server.sandbox import Sandbox
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded
from airflow_pgbackup.postgres.tools.capabilities import has_login_triggers
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.source_roles import SourceRoles
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.text import printable

_LOST = re.compile(
    r"server closed the connection unexpectedly|terminating connection because of (?:crash|unexpected)"
    r"|the database system is (?:in recovery|shutting down|starting up)|terminating connection due to administrator"
)
_FULL = re.compile("too many clients|too many connections|connection slots are reserved")
_LOGGED = re.compile(r"([0-9A-Z]{5}) (?:ERROR|FATAL|PANIC): +(.*)")
_LOG_TAIL = 1 << 20  # bytes

CONVENTIONAL_ROLES = SourceRoles(superusers=("postgres",))
"""What is assumed where a manifest says nothing: the bootstrap superuser of most servers has this name."""

LOCALE_UNNAMED = "the dump does not name the locale of its database"
LOCALE_LACKING = "the server lacks the locale of the dumped database"
ZONE_UNKNOWN = "the time zone of the source is unknown"

MOST_JOBS = 20
"""The most sessions of a restore, and of a comparison; a throwaway server has some connections more."""


@dataclass(kw_only=True)
class RehearsalServer:
    """A throwaway server, in which the copy can have the names of the dump, including the database's.

    :param params: a database to connect to, as a superuser.
    :param directory: for temporary files; a server that is `local` can read them.
    :ivar sandbox: the sandbox of the server, None without one.
    :ivar socket_dir: of a server in a sandbox.
    :ivar log: the server's log; each line begins with an SQLSTATE. None if we cannot read it.
    :param programs: the client whose programs read the copy.
    :param loader: the client that restores.
    :ivar containment: how the dump's SQL is isolated, for the log.
    :ivar notes: about the server, for the report.
    :ivar source_roles: what the manifest says about the roles of the dumped database, or what is assumed.
    :ivar stand_ins: the roles that this rehearsal created in a throwaway server; no other role is given rights there.
    :ivar plain_roles: stand-ins for roles of the dump that are not superusers.
    :ivar name_encoding: of the dumped database, in which the roles of the dump have their names.
    :ivar other_locale: why the copy may compare text by another locale than the source; '' if it does not.
    :ivar other_zone: why functions may use another time zone than in the source; '' if they do not.
    """

    params: ConnectionParams
    directory: Path
    programs: Client
    loader: Client
    sandbox: Sandbox | None = None
    socket_dir: Path | None = None
    log: Path | None = None
    containment: str = ""
    notes: tuple[str, ...] = ()
    source_roles: SourceRoles = field(default_factory=SourceRoles)
    stand_ins: set[str] = field(default_factory=set)
    plain_roles: set[str] = field(default_factory=set)
    name_encoding: str = "UTF8"
    other_locale: str = ""
    other_zone: str = ""

    local: ClassVar[bool] = True
    """Whether the server reads and writes files of this machine."""
    keeps_database_name: ClassVar[bool] = True
    """Whether the copy's database has the name of the dumped one."""
    session_options: ClassVar[str] = "-c lc_messages=C -c role=none"
    """Options of the sessions that restore, as in PGOPTIONS. The verdict depends on the messages. The database, which
    may set a role, has its settings before its tables."""
    hint: ClassVar[str] = "Install it on this worker."
    """What to do if the server lacks something."""

    @property
    def major(self) -> int:
        return self.programs.major

    @property
    def version_text(self) -> str:
        return self.programs.version_text

    @property
    def label(self) -> str:
        return f"the throwaway PostgreSQL {self.version_text} of {self.programs.bin_dir}"

    def sandbox_command(self, bin_dir: Path, *reads: Path) -> list[str]:
        """Return the command that starts a program in a sandbox of the server's user, with access to its socket.

        :param bin_dir: the program's directory.
        :param reads: other files that it reads.
        :return: [] if the server has no sandbox.
        """
        if self.sandbox is None or self.socket_dir is None:
            return []
        return self.sandbox.command(bin_dir, reads=[self.directory, self.socket_dir, *reads])

    def sqlstate(self, message: str) -> str | None:
        """Return the SQLSTATE of an error by its message, from the server's log; None if it is not there."""
        if self.log is None:
            return None
        with self.log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LOG_TAIL, 0))
            lines = file.read(_LOG_TAIL).decode(errors="replace").split("\n")
        errors = (match for match in map(_LOGGED.match, reversed(lines)) if match)
        return next((match[1] for match in errors if printable(match[2]).strip() == message), None)

    def set_time_zone(self, name: str | None) -> None:
        """Restore in the time zone of the source, unless a database of the dump sets another one.

        :param name: from a manifest or a dump; None if it is unknown.
        """
        self.other_zone = "" if name else ZONE_UNKNOWN
        if name:
            with session(self.params) as connection:
                try:
                    self._set_time_zone(connection, name)
                except psycopg.errors.DataError:
                    self.other_zone = f"{self.label} lacks the source's time zone {name}"

    def _set_time_zone(self, connection: Session, name: str) -> None:
        connection.execute(sql.SQL("ALTER ROLE ALL SET timezone TO {}").format(sql.Literal(name)))

    def most_jobs(self) -> int:
        """Return the number of sessions that a restore or a comparison may use."""
        return MOST_JOBS

    def provide(self, needs: Requirements) -> None:
        """Create the roles and tablespaces that a dump needs, and check for its extensions.

        :raises NotProven: the server lacks something.
        """
        provisioning.check_extensions(self.params, needs.extensions)
        self.create_roles(needs.roles, needs.superusers_of(self.major))
        provisioning.create_tablespaces(self.params, needs.tablespaces)

    def create_roles(self, names: Iterable[str], superusers: Collection[str] = ()) -> None:
        """Create stand-ins for the roles that do not exist.

        A dump does not contain their attributes and memberships, its manifest may. A stand-in is a superuser only if
        the role was one, or owns something that only a superuser may own.

        :param superusers: roles that own such a thing.
        """
        source = self.source_roles
        superusers = {*superusers, *source.superusers}
        created = self._create_roles(source.with_inherited(names), superusers)
        self.plain_roles |= created - superusers

    def _create_roles(self, names: Iterable[str], superusers: Collection[str]) -> set[str]:
        """Create the roles that do not exist, with their memberships; return their names."""
        source = self.source_roles
        created = provisioning.create_roles(
            self.params, names, superusers, set(source.bypass_rls), encoding=self.name_encoding
        )
        self.stand_ins |= created
        memberships = [each for each in source.memberships if each.member in self.stand_ins and self._grants(each.role)]
        if created and memberships:
            provisioning.grant_memberships(self.params, memberships, encoding=self.name_encoding)
        return created

    def _grants(self, role: str) -> bool:
        """Return whether a stand-in may become a member of a role: of a stand-in, or a predefined one."""
        return role in self.stand_ins or role.startswith("pg_")

    def make_superusers(self) -> None:
        """Make all stand-ins superusers."""
        provisioning.make_superusers(self.params, self.plain_roles, encoding=self.name_encoding)
        self.plain_roles.clear()

    def drop_database(self, database: str) -> ConnectionParams:
        """Drop a database.

        :return: another database, to connect to while the dump creates the dropped one.
        """
        start = self.params.with_database("template1" if database == "postgres" else "postgres")
        with session(start) as connection:
            templates = "SELECT FROM pg_catalog.pg_database WHERE datname = %s AND datistemplate"
            if connection.execute(templates, [database]).fetchone() is not None:
                connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(database)))
            drop_temporary(connection, self.params.with_database(database))
        return start

    def create_database(
        self,
        database: str,
        encoding: str,
        schemas: Sequence[str] = (),
        create: DatabaseStatement | None = None,
    ) -> ConnectionParams:
        """Create an empty database for the copy, and drop the one of an earlier attempt.

        :param schemas: to create in it.
        :param create: the CREATE DATABASE statement of the dump. If the server lacks its locale, the copy has locale C.
        """
        with session(self.drop_database(database)) as connection:
            self.other_locale = LOCALE_LACKING if create else LOCALE_UNNAMED
            for attempt in (create, create and in_locale_c(create)):
                if attempt:
                    with suppress(*UNSUPPORTED):
                        connection.execute(encoded(attempt.about(database)))
                        self.other_locale = "" if attempt is create else LOCALE_LACKING
                        break
            else:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
                        Identifier(database), sql.Literal(encoding)
                    )
                )
        created = self.params.with_database(database)
        create_schemas(created, schemas)
        return created

    def without_login_triggers(self, connection: ConnectionParams) -> ConnectionParams:
        """Return a connection for reading the copy, which an event trigger on login could change."""
        if not has_login_triggers(self.major):
            return connection
        return without_event_triggers(connection)

    @contextmanager
    def not_proven_if_lost(self) -> Iterator[None]:
        """Turn errors into NotProven if the server has ended or refuses a session: that is not the backup's fault.

        :raises NotProven: the server ended, or terminated or refused a session.
        """
        try:
            yield
        except (ToolError, VerificationFailed, ConnectError, psycopg.OperationalError) as error:
            messages = "\n".join([*getattr(error, "stderr", []), str(error)])
            if isinstance(error, (ToolKilled, DeadlineExceeded)):
                raise
            if not (_LOST.search(messages) or self._has_ended()):
                if isinstance(error, ConnectError):
                    raise NotProven(f"{self.label}: {error.message}", hint=error.hint) from error
                raise
            raise NotProven(
                f"{self.label} ended during the rehearsal: {error}",
                hint="It was killed from outside, often by the OOM killer: check dmesg and the memory limits.",
            ) from error

    def _has_ended(self) -> bool:
        try:
            self.params.open_session().close()
        except ConnectError as error:
            return _FULL.search(error.message) is None
        return False


@contextmanager
def start_throwaway_server(
    manifest: Manifest, settings: Settings, *, extensions: Collection[str] = (), tables: int = 0
) -> Iterator[RehearsalServer]:
    """Start a throwaway server for a rehearsal, which is removed at the end.

    :param extensions: the extensions in the dump.
    :param tables: how many tables the dump has.
    :raises NotProven: this machine lacks the programs, the disk space or, if required, the sandbox.
    """
    programs, loader = choose_programs(manifest, settings)
    with throwaway_server(manifest, programs, settings, extensions=extensions, tables=tables) as server:
        started = RehearsalServer(
            params=server.params,
            directory=server.shared,
            programs=programs,
            loader=loader,
            sandbox=server.sandbox,
            socket_dir=server.socket_dir if server.sandbox else None,
            log=server.log_path,
            source_roles=manifest.source.roles or CONVENTIONAL_ROLES,
        )
        if server.sandbox:
            started.containment = f"in a sandbox, as uid {server.sandbox.uid}"
            yield started
            return
        assert server.uncontained is not None  # noqa: S101  without a sandbox there is a reason
        reason, hint = server.uncontained.message, server.uncontained.hint
        if settings.rehearsal_containment == "require":
            raise NotProven(f"a rehearsal on this machine would be uncontained: {reason}", hint=hint)
        rights = "as user nobody" if os.geteuid() == 0 else "with this worker's own privileges"
        started.containment = "uncontained"
        started.notes = (f"uncontained: the dump's SQL ran {rights}: {reason}",)
        yield started


def create_schemas(database: ConnectionParams, names: Sequence[str]) -> None:
    """Create the schemas that a dump of some tables uses but does not contain."""
    if not names:
        return
    with session(database) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(Identifier(name)))
