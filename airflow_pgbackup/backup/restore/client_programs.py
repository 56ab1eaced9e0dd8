"""pg_restore and psql as a restore runs them: to the first error, all or nothing where that can be, told in lines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from airflow_pgbackup.backup.progress import human_seconds
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import DeadlineExceeded, ToolError, VerificationFailed
from airflow_pgbackup.postgres.archive.script_trailer import ScriptTrailerCheck
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.script_scan import sets_new_timeout
from airflow_pgbackup.postgres.psql.guarded import guarded
from airflow_pgbackup.postgres.psql.script_filter import ScriptFilter
from airflow_pgbackup.postgres.sql.lexer import Event, MetaCommand, Statement
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.settings import Settings

APPLICATION = "airflow-pgbackup restore"
"""By this name the server shows the sessions of the tools."""

_TABLE = re.compile(r"^pg_restore: processing data for table ")
_CHATTER = re.compile(r"^pg_restore: (?!warning|error|hint|detail|from TOC entry)")
_BEGINNING = re.compile(r"^(?:pg_restore|psql): |^psql:.*:\d+: ")
_WARNING = re.compile(r"^pg_restore: warning: |\bWARNING: ")
_KEPT_WARNINGS = 100
_SAY_EVERY = 5.0  # seconds

# What another server or role refuses although the dump is sound, and what to do about it.
_HINTS = [
    (
        r"permission denied for (?:database|schema)",
        "GRANT CREATE on it TO the user of the connection (or the role of the options), or connect as its owner",
    ),
    (
        r"must be able to SET ROLE|must be member of role|must be owner of|must be superuser|permission denied to",
        "connect as a superuser or as the owner of it all, or leave owners and privileges out: no_owner, no_privileges",
    ),
    (
        r"out of shared memory",
        "raise max_locks_per_transaction of the server, or restore with mode='create' or jobs=2",
    ),
    (
        r"unrecognized configuration parameter|syntax error at or near",
        "the server is older than the one the dump was made for: restore into that version or a newer one",
    ),
]


@dataclass
class RestoreContext:
    """What all steps of one restore share.

    :ivar deadline: of all of it, on the clock of :func:`time.monotonic`; None is none.
    :ivar warnings: what did not stop it, but somebody should read.
    """

    settings: Settings
    log: Callable[[str], None]
    cancel: Cancel
    deadline: float | None = None
    warnings: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.log(line)

    def say_at_last(self, line: str) -> None:
        """Say what has happened for good: that nobody can be told does not undo it."""
        with suppress(Exception):
            self.log(line)

    def warn(self, line: str) -> None:
        if len(self.warnings) < _KEPT_WARNINGS:
            self.warnings.append(line)
        self.log(f"warning: {line}")

    def check(self) -> None:
        """:raises Canceled, DeadlineExceeded: time to stop."""
        self.cancel.check()
        self.remaining()

    def remaining(self) -> float | None:
        if self.deadline is None:
            return None
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceeded(
                "the restore still ran at its deadline, and was stopped",
                tool="restore",
                exit_code=None,
                hint="if it only needs longer, raise the deadline",
            )
        return seconds


class ToolOutput:
    """Takes the stderr of a tool: tables to a line every few seconds, warnings to the result, the rest as asked.

    :param tables: how many there are, 0 where that is not known.
    """

    def __init__(self, run: RestoreContext, what: str, *, tables: int = 0, verbose: bool = False) -> None:
        self._run = run
        self._what = what
        self._tables = tables
        self._verbose = verbose
        self._chatter = False
        self._done = 0
        self._start = self._last = time.monotonic()

    def __call__(self, line: str) -> None:
        if _BEGINNING.match(line):  # else it goes on, as behind a name of two lines
            self._chatter = not self._verbose and _CHATTER.match(line) is not None
        if _WARNING.search(line):
            self._run.warn(line)
        elif not self._chatter:
            self._run.say(line)
        if _TABLE.match(line):
            self._done += 1
            now = time.monotonic()
            if now - self._last >= _SAY_EVERY:
                self._last = now
                of = f" of {self._tables}" if self._tables else ""
                self._run.say(f"{self._what}: table {self._done}{of}, {human_seconds(now - self._start)}")


def pg_restore(
    run: RestoreContext,
    client: Client,
    argv: list[str],
    params: ConnectionParams,
    log: ToolOutput,
    *,
    stdin: Readable | None = None,
) -> None:
    """RestoreContext pg_restore into a database.

    :param argv: without program, connection and password.
    :raises ToolError: it failed: what the server said.
    """
    # With an empty --dbname pg_restore takes PGDATABASE, and does not read it as a connection string.
    command = [str(client.tool("pg_restore")), "--no-password", "--dbname=", *argv]
    _run(run, command, params, log, stdin)


def pg_restore_to_psql(
    run: RestoreContext,
    client: Client,
    loader: Client,
    argv: list[str],
    params: ConnectionParams,
    log: ToolOutput,
    *,
    stdin: Readable | None = None,
    single_transaction: bool,
) -> None:
    """As :func:`pg_restore`, for a server that does not know what pg_restore itself begins with.

    :param loader: whose psql runs what pg_restore writes.
    :raises VerificationFailed: the archive holds a command for psql.
    """
    command = [str(client.tool("pg_restore")), "--file=-", *argv]
    with ToolProcess(
        command,
        env={"LC_ALL": "C", "TZ": "UTC"},
        cancel=run.cancel,
        deadline=run.remaining(),
        on_line=log,
        stdin=stdin,
    ) as process:
        ends = ScriptTrailerCheck()

        def route(event: Event) -> int | None:
            ends.event(event)
            if isinstance(event, MetaCommand) and event.name == b"connect":
                raise VerificationFailed("the archive has \\connect for psql, which pg_dump never writes")
            return None if isinstance(event, Statement) and sets_new_timeout(event) else 0

        script = ScriptFilter(process.stdout, route)
        psql(run, loader, params, script.part(0), log, single_transaction=single_transaction)


def psql(
    run: RestoreContext,
    client: Client,
    params: ConnectionParams,
    script: Readable,
    log: ToolOutput,
    *,
    single_transaction: bool,
) -> None:
    """RestoreContext a script in a database, up to its first error.

    :param client: from :func:`~airflow_pgbackup.postgres.tools.client_choice.choose_psql`.
    :param script: without psql's commands.
    :raises ToolError: an error in it: what the server said. What reading the script raises.
    """
    way = guarded(client, script, single_transaction=single_transaction)
    _run(run, way.argv, params, log, way.stdin, may_start_processes=False)


def _run(
    run: RestoreContext,
    command: Sequence[str | Path],
    params: ConnectionParams,
    log: ToolOutput,
    stdin: Readable | None,
    *,
    may_start_processes: bool = True,
) -> None:
    with (
        _hinted(),
        ToolProcess(
            command,
            env=_environment(params),
            cancel=run.cancel,
            deadline=run.remaining(),
            on_line=log,
            stdin=stdin,
            stdout="devnull",
            may_start_processes=may_start_processes,
        ) as process,
    ):
        process.wait()


def _environment(params: ConnectionParams) -> dict[str, str]:
    env = client_environment(params)
    # A database that is restored with default_transaction_read_only among its settings must take its rows first.
    env["PGAPPNAME"] = APPLICATION
    env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} -c default_transaction_read_only=off".strip()
    return env


@contextmanager
def _hinted() -> Iterator[None]:
    try:
        yield
    except ToolError as error:
        error.hint = next((hint for pattern, hint in _HINTS if re.search(pattern, error.message)), error.hint)
        raise
