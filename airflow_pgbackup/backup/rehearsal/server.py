"""The server a rehearsal runs in, and what it does there: a database for the copy, with the roles a dump speaks of."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.databases.temporary_database import drop_temporary
from airflow_pgbackup.backup.rehearsal import throwaway
from airflow_pgbackup.errors import ConnectError, DeadlineExceeded, NotProven, ToolError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.server.sandbox import Sandbox
from airflow_pgbackup.postgres.sql.anybytes import Identifier
from airflow_pgbackup.postgres.tools.capabilities import has_login_triggers
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.text import printable

_LOST = re.compile(
    r"server closed the connection unexpectedly|terminating connection because of (?:crash|unexpected)"
    r"|the database system is (?:in recovery|shutting down|starting up)|terminating connection due to administrator"
)
_LOGGED = re.compile(r"([0-9A-Z]{5}) (?:ERROR|FATAL|PANIC): +(.*)")
_LOG_TAIL = 1 << 20  # bytes


@dataclass(kw_only=True)
class RehearsalServer:
    """A throwaway server, where everything may be as the dump has it, the database's name too.

    :ivar params: a database to be in meanwhile, as a superuser.
    :ivar folder: for temporary files; where the server is `local`, it reads them there.
    :ivar sandbox: what the server runs in; None for none.
    :ivar socket_dir: of a server in a sandbox.
    :ivar log: the server's; each line begins with an SQLSTATE.
    :ivar programs: the tools that look at the copy.
    :ivar loader: the client that restores.
    :ivar containment: how far others are safe from the dump's SQL.
    :ivar notes: on the place, for the report.
    """

    params: ConnectionParams
    folder: Path
    programs: Client
    loader: Client
    sandbox: Sandbox | None = None
    socket_dir: Path | None = None
    log: Path | None = None
    containment: str = ""
    notes: tuple[str, ...] = ()

    local: ClassVar[bool] = True
    """The server reads and writes files of this machine."""
    own_names: ClassVar[bool] = True
    """A dump may make its database under its own name."""
    session_options: ClassVar[str] = ""
    """For the sessions that restore; as in PGOPTIONS."""
    hint: ClassVar[str] = "install it on this worker"
    """What to do about what the server lacks."""

    @property
    def major(self) -> int:
        return self.programs.major

    @property
    def version_text(self) -> str:
        return self.programs.version_text

    @property
    def label(self) -> str:
        return f"the throwaway PostgreSQL {self.version_text} of {self.programs.bin_dir}"

    def within(self, bin_dir: Path, *reads: Path) -> list[str]:
        """What starts a program where the server is: in a sandbox of the same user, which sees its socket.

        :param bin_dir: where the program is.
        :param reads: what else it must see.
        """
        if self.sandbox is None or self.socket_dir is None:
            return []
        return self.sandbox.command(bin_dir, reads=[self.folder, self.socket_dir, *reads])

    def sqlstate(self, message: str) -> str | None:
        """The SQLSTATE of an error that the server has reported, by its message; None where it is not known."""
        if self.log is None:
            return None
        with self.log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LOG_TAIL, 0))
            lines = file.read(_LOG_TAIL).decode(errors="replace").split("\n")
        said = (match for match in map(_LOGGED.match, reversed(lines)) if match)
        return next((match[1] for match in said if printable(match[2]).strip() == message), None)

    def most_jobs(self) -> int:
        """How many sessions a restore may take."""
        return throwaway.JOBS

    def provide(self, needs: Requirements) -> None:
        """Roles and tablespaces; extensions are there or not."""
        throwaway.check_extensions(self.params, needs.extensions)
        self.make_roles(needs.roles)
        throwaway.make_tablespaces(self.params, needs.tablespaces)

    def make_roles(self, names: Iterable[str]) -> None:
        throwaway.make_roles(self.params, names)

    def cleared(self, database: str) -> ConnectionParams:
        """Drop that database; :return: another one to be in while a dump makes it."""
        start = self.params.with_database("template1" if database == "postgres" else "postgres")
        with session(start) as connection:
            drop_temporary(connection, self.params.with_database(database))
        return start

    def fresh(
        self,
        database: str,
        encoding: str,
        schemas: Sequence[str] = (),
        create: DatabaseStatement | None = None,
    ) -> ConnectionParams:
        """An empty database for the copy, in place of the one of an earlier attempt.

        :param schemas: made in it.
        :param create: how the dump would make it.
        """
        with session(self.cleared(database)) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
                    Identifier(database), sql.Literal(encoding)
                )
            )
        made = self.params.with_database(database)
        make_schemas(made, schemas)
        return made

    def quiet(self, connection: ConnectionParams) -> ConnectionParams:
        """To look at a restored copy: what the database does at every login would change it."""
        if not has_login_triggers(self.major):
            return connection
        return replace(connection, keywords={**connection.keywords, "options": "-c event_triggers=off"})

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While it lasts the server must too: that it was killed, by a lack of memory say, is no finding.

        :raises NotProven: it is gone, or broke off a session.
        """
        try:
            yield
        except (ToolError, VerificationFailed, ConnectError, psycopg.OperationalError) as error:
            said = "\n".join([*getattr(error, "stderr", []), str(error)])
            if isinstance(error, (ToolKilled, DeadlineExceeded)) or not (_LOST.search(said) or self._gone()):
                raise
            raise NotProven(
                f"{self.label} ended during the rehearsal: {error}",
                hint="killed from outside, often by the OOM killer (see dmesg, memory limits)",
            ) from error

    def _gone(self) -> bool:
        try:
            self.params.connect().close()
        except ConnectError:
            return True
        return False


@contextmanager
def start_throwaway_server(
    manifest: Manifest, settings: Settings, *, extensions: Collection[str] = ()
) -> Iterator[RehearsalServer]:
    """A private server, gone afterwards whatever happens.

    :param extensions: that the dump needs.

    :raises NotProven: there is none to be had here, or no room for it.
    """
    programs, loader = throwaway.choose_programs(manifest, settings)
    with throwaway.throwaway_server(manifest, programs, settings, extensions=extensions) as server:
        where: Any = {"params": server.params, "folder": server.shared, "programs": programs, "loader": loader}
        where["log"] = server.log_path
        if server.sandbox:
            sandboxed: Any = {"sandbox": server.sandbox, "socket_dir": server.socket_dir}
            yield RehearsalServer(**where, **sandboxed, containment=f"in a sandbox, as uid {server.sandbox.uid}")
            return
        assert server.uncontained is not None  # noqa: S101  there is a sandbox, or a reason why not
        reason, hint = server.uncontained.message, server.uncontained.hint
        if settings.rehearsal_containment == "require":
            raise NotProven(f"a rehearsal here would be uncontained: {reason}", hint=hint)
        whose = "as user nobody" if os.geteuid() == 0 else "with this worker's own rights"
        yield RehearsalServer(
            **where, containment="uncontained", notes=(f"uncontained: SQL of the dump ran {whose}: {reason}",)
        )


def make_schemas(database: ConnectionParams, names: Sequence[str]) -> None:
    """Those that a dump of some schemas' parts uses and does not make."""
    with session(database) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(Identifier(name)))
