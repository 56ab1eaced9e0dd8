"""pg_restore and psql as a restore runs them: up to the first error, with their messages in the log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from airflow_pgbackup.backup.counters import RestoreCounter
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import ToolError, VerificationFailed
from airflow_pgbackup.postgres.archive.script_trailer import ScriptTrailerCheck
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.timeouts import no_timeouts
from airflow_pgbackup.postgres.definitions.script_scan import sets_new_timeout, skipped_transaction
from airflow_pgbackup.postgres.psql.guarded import guarded
from airflow_pgbackup.postgres.psql.script_filter import ScriptFilter
from airflow_pgbackup.postgres.sql.lexer import Event, MetaCommand, Statement
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.postgres.tools.shared_libraries import library_path
from airflow_pgbackup.postgres.tools.stderr import INTERLEAVED

_CHATTER = re.compile(r"^(?:pg_restore: ?)+(?! ?(?:pg_restore|warning|error|hint|detail|from TOC entry))")
_BEGINNING = re.compile(r"^(?:pg_restore|psql): |^psql:.*:\d+: ")
_FILLING = re.compile(r"^pg_restore: (?:creating|processing|executing) ")
_WARNING = re.compile(rf"^{INTERLEAVED} ?warning: |\bWARNING: ")
_SEARCH_CONFIGURATION = 'invalid value for parameter "default_text_search_config"'
_REFRESH = (
    "default_text_search_config names a configuration that did not exist when the restore began, so the restore used "
    "another one: run REFRESH MATERIALIZED VIEW for each materialized view that depends on it"
)

_SUBSCRIPTION = "subscription was created, but is not connected"
_KEEP_SLOT = (
    "a restored subscription is disabled, and has the replication slot of the original: before you drop it, run ALTER "
    "SUBSCRIPTION … SET (slot_name = NONE), or DROP SUBSCRIPTION may drop that slot"
)

_UNDER_ITS_NAME = (
    "create the database, and restore with mode into_empty and without jobs. Otherwise it gets its name at the end."
)

# Errors of a server or a role that is not the one of the dump, although the dump is valid, and what to do about them.
_HINTS = [
    (
        r"permission denied for (?:database|schema)",
        "GRANT CREATE on it TO the connection's user (or the role in the options), or connect as its owner.",
    ),
    (
        r"must be able to SET ROLE|must be member of role|must be owner of|must be superuser|permission denied to",
        "Connect as a superuser or as the owner of all objects, or set no_owner and no_privileges.",
    ),
    (
        r"violates check constraint",
        "The constraint depends on the time or on tables that are restored later, or was bypassed. Make it NOT VALID, "
        "or replace it with a trigger, in the source. To restore the rows: see 'Rescue' in the documentation. If it "
        f"depends on the database's name: {_UNDER_ITS_NAME}",
    ),
    (r"can only create extension in database", f"The extension depends on the database's name: {_UNDER_ITS_NAME}"),
    (
        r"violates foreign key constraint",
        "The referenced rows are missing in the source, left out, or restored later. With data_only, a superuser can "
        "set disable_triggers.",
    ),
    (
        r"schema \".*\" does not exist",
        "A selection of schemas or tables does not create the schema: create it and restore with mode into_existing, "
        "or select the entries with use_list.",
    ),
    (
        r"out of shared memory",
        "Raise max_locks_per_transaction on the server, or restore with mode create or with 2 jobs.",
    ),
    (
        r"unrecognized configuration parameter \"[^\"]*\.",
        "A function, a constraint or a view reads this setting. If the source sets it for the database, run ALTER ROLE "
        "... SET for the role that restores; a plain dump contains it only with the option create. A setting of an "
        "extension needs the extension's library.",
    ),
    (
        r"unrecognized configuration parameter|syntax error at or near",
        "The server is older than the dump: restore into the dump's version or a newer one.",
    ),
]


class ToolMessages:
    """Takes the stderr of a program: counts tables and objects, keeps warnings for the result, logs the rest if
    `verbose`.

    :param step: counts what pg_restore begins.
    :ivar hide_values: whether the program's stderr must not show values that the server's messages quote.
    """

    def __init__(
        self, context: RestoreContext, step: Step, *, verbose: bool = False, hide_values: bool = False
    ) -> None:
        self.hide_values = hide_values
        self._context = context
        self._count = RestoreCounter(step)
        self._verbose = verbose
        self._chatter = False

    def __call__(self, line: str) -> None:
        if _FILLING.match(line):
            self._context.filling.set()
        if _BEGINNING.match(line):  # else it continues the last message: a name may contain a line break
            self._chatter = not self._verbose and _CHATTER.match(line) is not None
        if _WARNING.search(line):
            self._context.warn(line)
            if _SEARCH_CONFIGURATION in line and _REFRESH not in self._context.warnings:
                self._context.warn(_REFRESH)
            if _SUBSCRIPTION in line and _KEEP_SLOT not in self._context.warnings:
                self._context.warn(_KEEP_SLOT)
        elif not self._chatter:
            self._context.log(line)
        self._count(line)


def pg_restore(
    context: RestoreContext,
    client: Client,
    argv: list[str],
    params: ConnectionParams,
    output: ToolMessages,
    *,
    server_major: int,
    stdin: Readable | None = None,
) -> None:
    """Run pg_restore into a database.

    :param argv: arguments, without those for the connection.
    :param output: takes the lines of stderr.
    :param server_major: major version of the server.
    :param stdin: the archive, unless `argv` names it.
    :raises ToolError: pg_restore failed; the message is the server's.
    """
    # With an empty --dbname, pg_restore uses PGDATABASE, and does not parse it as a connection string.
    command = [str(client.tool("pg_restore")), "--no-password", "--dbname=", *argv]
    _run(context, command, _environment(context, params, server_major), output, stdin)


def pg_restore_to_psql(
    context: RestoreContext,
    client: Client,
    argv: list[str],
    run_script: Callable[[Readable], None],
    output: ToolMessages,
    *,
    stdin: Readable | None = None,
    single_transaction: bool,
) -> None:
    """Restore with pg_restore and psql into a server that rejects the settings with which pg_restore begins.

    :param run_script: runs the script that pg_restore writes, see :func:`psql`.
    :param single_transaction: `run_script` does so in one transaction, so the script must not end it after the large
        objects.
    :raises ToolError: as :func:`pg_restore`.
    :raises VerificationFailed: the archive contains a psql command.
    """
    command = [str(client.tool("pg_restore")), "--file=-", *argv]
    with ToolProcess(
        command,
        env={"LC_ALL": "C", "TZ": "UTC", **library_path()},
        cancel=context.cancel,
        deadline=context.remaining(),
        on_line=output,
        stdin=stdin,
    ) as process:
        ends = ScriptTrailerCheck()

        def route(event: Event) -> int | None:
            ends.event(event)
            if isinstance(event, MetaCommand) and event.name == b"connect":
                raise VerificationFailed("the archive contains the psql command \\connect, which pg_dump never writes")
            skipped = isinstance(event, Statement) and (
                sets_new_timeout(event) or (single_transaction and skipped_transaction(event))
            )
            return None if skipped else 0

        run_script(ScriptFilter(process.stdout, route).part(0))


def psql(
    context: RestoreContext,
    client: Client,
    params: ConnectionParams,
    script: Readable,
    output: ToolMessages,
    *,
    server_major: int,
    single_transaction: bool,
) -> None:
    """Run a script in a database, up to its first error.

    :param client: from :func:`~airflow_pgbackup.postgres.tools.client_choice.choose_psql`.
    :param script: without psql commands.
    :param server_major: major version of the server.
    :raises ToolError: a statement failed; the message is the server's. Errors of reading the script are passed on.
    """
    command = guarded(client, script, single_transaction=single_transaction)
    env = _environment(context, params, server_major)
    _run(context, command.argv, env, output, command.stdin, may_start_processes=False)


def _run(
    context: RestoreContext,
    command: Sequence[str | Path],
    env: dict[str, str],
    output: ToolMessages,
    stdin: Readable | None,
    *,
    may_start_processes: bool = True,
) -> None:
    with (
        _hinted(),
        ToolProcess(
            command,
            env=env,
            cancel=context.cancel,
            deadline=context.remaining(),
            on_line=output,
            stdin=stdin,
            stdout="devnull",
            may_start_processes=may_start_processes,
            hide_values=output.hide_values,
        ) as process,
    ):
        process.wait()


def _environment(context: RestoreContext, params: ConnectionParams, server_major: int) -> dict[str, str]:
    env = client_environment(params, restoring=True)
    env["PGAPPNAME"] = context.application
    # The database's own settings may include these, and are restored before its rows.
    pinned = f"{no_timeouts(server_major)} -c default_transaction_read_only=off -c array_nulls=on"
    env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} {pinned}".strip()
    return env


@contextmanager
def _hinted() -> Iterator[None]:
    try:
        yield
    except ToolError as error:
        error.hint = next((hint for pattern, hint in _HINTS if re.search(pattern, error.message)), error.hint)
        raise
