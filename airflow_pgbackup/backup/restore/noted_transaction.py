"""Note the transaction in which a tool fills a database, so that a retry can ask whether it was committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, session, translated_errors
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, write_marker
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

# Seconds between two looks; at first more often, as a small restore is over soon.
_AT_FIRST, _PAUSE, _LATER_PAUSE = 5.0, 0.005, 0.5
_TOOL_FIRST = 1.0
"""Seconds that a tool has to connect, unless it says before that it has: the only session of a role or of a pooler must
be the tool's. psql does not say it."""
_LEAVE_AFTER = 1.0  # seconds, after a failure: a connection that hangs holds nothing up

# With the epoch, as txid_status() takes it: the number nearest to the last one that has ended.
TRANSACTION = """
SELECT s.last + ((a.backend_xid::text::int8 - s.last + 2147483648) & 4294967295) - 2147483648
  FROM pg_catalog.pg_stat_activity AS a,
       (SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS last) AS s
 WHERE a.datname = pg_catalog.current_database() AND a.application_name = %s AND a.backend_xid IS NOT NULL
"""
_STATUS = """
SELECT CASE WHEN %(id)s::int8 > 0 AND %(id)s::int8 < pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())
            THEN pg_catalog.txid_status(%(id)s::int8) END
"""


@contextmanager
def noted_transaction(run: RestoreContext, database: ConnectionParams, marker: RetryMarker) -> Iterator[None]:
    """While a tool of this restore fills a database, add its transaction to the marker there.

    A transaction that is over before it is seen is not noted.
    """
    over = threading.Event()

    def watch() -> None:
        run.filling.wait(_TOOL_FIRST)
        noted, later = 0, time.monotonic() + _AT_FIRST
        with suppress(psycopg.Error, PgBackupError), session(database) as connection:
            while not over.wait(_LATER_PAUSE if noted or time.monotonic() > later else _PAUSE):
                found = fetch_value(connection, TRANSACTION, [run.application])
                if found and found != noted and not over.is_set():
                    write_marker(connection, database.dbname, replace(marker, begun=True, transaction=found))
                    noted = found

    thread = threading.Thread(target=watch, name="note transaction", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        thread.join(_LEAVE_AFTER)
        raise
    over.set()
    thread.join()


def is_complete(connection: Session, marker: RetryMarker) -> bool:
    """Return whether the restore that left a marker on a database is complete, as far as the server knows.

    :raises RestoreError: the marker has no valid number.
    """
    if not marker.begun:
        return True
    with translated_errors(f"querying transaction {marker.transaction}"):
        return bool(fetch_value(connection, _STATUS, {"id": marker.transaction}) == "committed")
