"""Note the transaction in which a tool fills a database: only the server knows whether it was committed.

A tool that is stopped, or loses its connection, while its COMMIT runs cannot say whether that took effect. The message
of the failed restore and a retry ask the server for the status of the transaction.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, session, translated_errors
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.request import StateText, doubt
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, write_marker
from airflow_pgbackup.errors import DeadlineExceeded, PgBackupError, RestoreError, ToolError, ToolKilled
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.threads import TICK

# Seconds between two looks; at first more often, as a small restore is over soon.
_AT_FIRST, _PAUSE, _LATER_PAUSE = 5.0, 0.005, 0.5
_TOOL_FIRST = 1.0
"""Seconds to wait before the watch connects, unless the tool reports earlier that it has connected (psql never does).
If a role or pooler allows only one session, the tool must get it."""
_SETTLE = 5.0  # seconds, after a failure: a connection that hangs holds nothing up for longer

# With the epoch, as txid_status() takes it: the number nearest to the last one that has ended. Without a state, or with
# "starting", the session runs a login event trigger, in a transaction before the tool's.
TRANSACTION = """
SELECT s.last + ((a.backend_xid::text::int8 - s.last + 2147483648) & 4294967295) - 2147483648
  FROM pg_catalog.pg_stat_activity AS a,
       (SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS last) AS s
 WHERE a.datname = pg_catalog.current_database() AND a.application_name = %s AND a.backend_xid IS NOT NULL
   AND a.state <> 'starting'
"""
_STATUS = """
SELECT CASE WHEN %(id)s::int8 > 0 AND %(id)s::int8 < pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())
            THEN pg_catalog.txid_status(%(id)s::int8) END
"""
_COMMITTED = {"committed": True, "aborted": False}
_END = """
SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND application_name = %s
"""
# Messages of libpq, which are in English, about a connection that is lost after it was made.
_LOST = re.compile(
    r"^(?!.*connection to server (?:at|on) ).*(?:server closed the connection|connection to server was lost"
    r"|terminating connection|could not (?:send|receive)|no connection to the server|connection not open"
    r"|lost synchronization|SSL (?:SYSCALL )?error|SSL_(?:read|write) failed|SSL connection has been closed"
    r"|GSSAPI (?:un)?wrap error)",
    re.MULTILINE,
)


@contextmanager
def noted_transaction(
    run: RestoreContext,
    database: ConnectionParams,
    marker: RetryMarker | None,
    state: StateText,
    *,
    after: str,
    unknown: str | None = None,
) -> Iterator[None]:
    """While a tool of this restore fills a database, note its transaction; find out after a failure what became of it.

    :param marker: gets the number of the transaction, for a retry. After a failure it says what is known then, and is
        removed if nothing was changed. None: nobody will retry.
    :param state: keeps its text only if the database was not changed.
    :param after: the state if it was.
    :param unknown: the state if nobody knows.
    """
    watch = _Watch(run, database, marker)
    watch.start()
    try:
        yield
    except BaseException as error:
        match watch.after_failure(stopped=_was_stopped(error)):
            case True:
                state.text = after
            case None:
                state.text = unknown or doubt(after)
        raise
    watch.stop()
    state.text = after


class _Watch:
    """Looks for the transaction from a thread."""

    def __init__(self, run: RestoreContext, database: ConnectionParams, marker: RetryMarker | None) -> None:
        self._run = run
        self._database = database
        self._marker = marker
        self._transaction = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="note transaction", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        while self._thread.is_alive():
            self._thread.join(TICK)

    def after_failure(self, *, stopped: bool) -> bool | None:
        """Return whether the transaction was committed, None if that is not known. End the sessions of the tool before.

        :param stopped: the tool did not end by itself, so it cannot have said whether it was committed.
        """
        self._over.set()
        result: list[bool | None] = []
        limit = time.monotonic() + _SETTLE

        def settle() -> None:
            self._thread.join(_TOOL_FIRST)
            while not result and time.monotonic() < limit:
                with suppress(psycopg.Error, PgBackupError), self._session() as connection:
                    result.append(self._settle(connection, limit, stopped=stopped))
                    return
                time.sleep(_PAUSE)

        thread = threading.Thread(target=settle, name="settle transaction", daemon=True)
        thread.start()
        thread.join(_SETTLE)
        return result[0] if result else None if stopped else False

    def _watch(self) -> None:
        self._run.filling.wait(_TOOL_FIRST)
        later = time.monotonic() + _AT_FIRST
        with suppress(psycopg.Error, PgBackupError), self._session() as connection:
            while not self._over.wait(_LATER_PAUSE if self._transaction or time.monotonic() > later else _PAUSE):
                self._look(connection)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with session(self._database) as connection:
            connection.execute("SET synchronous_commit = local")  # a note need not wait for a standby
            yield connection

    def _look(self, connection: Session) -> None:
        found = fetch_value(connection, TRANSACTION, [self._run.application])
        if found and found != self._transaction:
            self._transaction = found
            if self._marker and not self._over.is_set():
                marker = replace(self._marker, begun=True, transaction=found)
                write_marker(connection, self._database.dbname, marker)

    def _settle(self, connection: Session, limit: float, *, stopped: bool) -> bool | None:
        self._look(connection)
        ended = 0
        while sessions := fetch_value(connection, _END, [self._run.application]):
            ended += sessions
            if time.monotonic() > limit:
                return None
            time.sleep(_PAUSE)
            self._look(connection)
        if self._transaction:
            committed = _COMMITTED.get(fetch_value(connection, _STATUS, {"id": self._transaction}))
            if committed and not stopped:  # something was committed, but the tool says that it failed
                self._write(connection, None)
                return None
        else:
            committed = None if stopped and not ended else False
        if marker := self._marker:
            begun = replace(marker, begun=True, transaction=self._transaction)
            self._write(connection, {True: marker, False: None, None: begun}[committed])
        return committed

    def _write(self, connection: Session, marker: RetryMarker | None) -> None:
        if self._marker:
            with suppress(psycopg.Error):
                write_marker(connection, self._database.dbname, marker)


def _was_stopped(error: BaseException) -> bool:
    """Return whether a tool was stopped, or lost its connection, before it had said how its transaction ended."""
    if not isinstance(error, ToolError) or isinstance(error, (ToolKilled, DeadlineExceeded)):
        return True
    return _LOST.search("\n".join([error.message, *error.stderr])) is not None


def is_complete(connection: Session, marker: RetryMarker) -> bool | None:
    """Return whether the restore that left a marker on a database was committed, None if the server does not know.

    :raises RestoreError: it is still running, or the marker has no valid number.
    """
    if not marker.begun:
        return True
    with translated_errors(f"querying transaction {marker.transaction}"):
        status = fetch_value(connection, _STATUS, {"id": marker.transaction})
    if status == "in progress":
        raise RestoreError(
            "an earlier attempt of this task is still restoring",
            hint=f"Wait for its end, or end the session that runs transaction {marker.transaction}.",
            retry="later",
        )
    return _COMMITTED.get(status)
