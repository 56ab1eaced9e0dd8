"""Sessions of our own on a server that is changed: they stop when asked to, and their errors are ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from airflow_pgbackup.errors import Canceled, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.tools.cancel import Cancel

Session = psycopg.Connection[tuple[Any, ...]]


@contextlib.contextmanager
def session(params: ConnectionParams, cancel: Cancel | None = None, *, label: str | None = None) -> Iterator[Session]:
    """A session in autocommit mode, free of the timeouts and read-only defaults of its role and database.

    :param cancel: also ends the statement at hand.
    :param label: its application_name, which every session of the server can see.
    :raises ConnectError: the server cannot be reached, or refuses us.
    :raises Canceled: `cancel` was set, here or while a statement of the ``with`` ran.
    """
    if cancel:
        cancel.check()
    with contextlib.closing(params.connect()) as connection:
        connection.execute(
            "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES ('statement_timeout', '0'), "
            "('lock_timeout', '0'), ('idle_session_timeout', '0'), ('default_transaction_read_only', 'off'), "
            "('search_path', 'pg_catalog'), ('application_name', %s::text)) AS setting(name, value) "
            "WHERE name IN (SELECT name FROM pg_catalog.pg_settings) AND value IS NOT NULL",
            [label],
        )
        unregister = cancel.on_set(lambda: interrupt(connection)) if cancel else lambda: None
        try:
            yield connection
        except psycopg.Error:
            if cancel:
                cancel.check()
            raise
        finally:
            unregister()


def interrupt(connection: Session) -> None:
    """Have the server end the statement at hand. For a signal handler, so errors are suppressed."""
    with contextlib.suppress(psycopg.Error, OSError):
        connection.cancel()


@contextlib.contextmanager
def translated_errors(doing: str) -> Iterator[None]:
    """Errors of the server in one line: what was being done, and what the server says, without its DETAIL."""
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise Canceled(f"stopped while {doing}: {server_message(error)}") from None
    except psycopg.Error as error:
        raise RestoreError(f"{doing}: {server_message(error)}", hint=hint_for(str(error))) from None


def server_message(error: psycopg.Error) -> str:
    return (error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__).rstrip(".")


def fetch_value(connection: Session, query: Any, parameters: Any = None) -> Any:
    """The first column of the first row; None without one."""
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None


def fetch_column(connection: Session, query: Any, parameters: Any = None) -> list[Any]:
    return [row[0] for row in connection.execute(query, parameters)]
