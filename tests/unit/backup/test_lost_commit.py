"""A tool that loses its connection at COMMIT has not said whether that took effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_pgbackup.backup.restore import noted_transaction
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.request import StateText
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.outcome import failure
from airflow_pgbackup.settings import Settings

COMMIT = "pg_restore: error: could not commit database transaction: "
CONNECT = 'pg_restore: error: connection to server at "db" (10.0.0.1), port 5432 failed: '


@contextmanager
def refused(*_: object) -> Iterator[None]:
    raise ConnectError("the server does not answer")
    yield


@pytest.mark.parametrize(
    ("stderr", "lost"),
    [
        ([COMMIT + "SSL SYSCALL error: EOF detected"], True),
        ([COMMIT + "SSL error: unexpected eof while reading"], True),
        ([COMMIT + "FATAL:  Verbindung wird abgebrochen", "SSL connection has been closed unexpectedly"], True),
        ([COMMIT + "FATAL:  Verbindung wird abgebrochen", "server closed the connection unexpectedly"], True),
        ([COMMIT + "could not receive data from server: Connection reset by peer"], True),
        ([COMMIT + "no connection to the server"], True),
        (["psql: error: connection to server was lost"], True),
        ([COMMIT + 'ERROR:  new row for relation "t" violates check constraint "c"'], False),
        ([CONNECT + "SSL error: certificate verify failed"], False),
        ([CONNECT + "server closed the connection unexpectedly"], False),
    ],
)
def test_a_connection_lost_at_commit_leaves_a_doubt_if_the_server_cannot_be_asked(
    stderr: list[str], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, made in {"session": refused, "_SETTLE": 0.02, "_TOOL_FIRST": 0.0}.items():
        monkeypatch.setattr(noted_transaction, name, made)
    state, error = StateText("was not changed"), failure("pg_restore", 1, stderr)
    run = RestoreContext(Settings(), print, Cancel())
    with (
        pytest.raises(type(error)),
        noted_transaction.noted_transaction(run, ConnectionParams({}), None, state, after="was restored"),
    ):
        raise error
    assert state.text == (
        "it is not known whether was restored: check that before a retry" if lost else "was not changed"
    )
