"""Sessions that change a server: a cancellation ends the running statement, and errors are translated."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg

from airflow_pgbackup.errors import Canceled, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.postgres.tools.cancel import Cancel

Session = psycopg.Connection[tuple[Any, ...]]


def without_event_triggers(params: ConnectionParams) -> ConnectionParams:
    """Return a connection in which no event trigger runs, not even on login, to a server that has such triggers.

    Only a superuser, or a role with the privilege to set ``event_triggers``, can connect with it.
    """
    return with_option(params, "event_triggers=off")


def without_role(params: ConnectionParams) -> ConnectionParams:
    """Return a connection whose sessions keep their user, whatever role the database sets with ``SET role``."""
    return with_option(params, "role=none")


def with_option(params: ConnectionParams, setting: str) -> ConnectionParams:
    """Return a connection whose sessions begin with a setting, whatever the role and the database set.

    :param setting: ``name=value``.
    """
    setting = re.sub(r"([\\\s])", r"\\\1", setting)  # pg_split_opts() in src/backend/utils/init/postinit.c
    options = f"{params.keywords_with_defaults().get('options', '')} -c {setting}".strip()
    return replace(params, keywords={**params.keywords, "options": options})


@contextlib.contextmanager
def session(params: ConnectionParams, cancel: Cancel | None = None, *, label: str | None = None) -> Iterator[Session]:
    """Open a session in autocommit mode, without the timeouts and read-only defaults of its role and database.

    A query fails if a row-level security policy would hide rows from it, instead of returning only some of them.

    :param cancel: also ends the running statement.
    :param label: the session's application_name, which every session of the server can see.
    :raises ConnectError: the server cannot be reached, or rejects the connection.
    :raises Canceled: `cancel` was set, before or while a statement of the ``with`` block ran.
    """
    if cancel:
        cancel.check()
    with contextlib.closing(params.open_session()) as connection:
        unregister = cancel.on_set(lambda: interrupt(connection)) if cancel else lambda: None
        try:
            disable_timeouts(connection)
            connection.execute(
                "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES "
                "('default_transaction_read_only', 'off'), ('row_security', 'off'), ('application_name', %s::text)"
                ") AS setting(name, value) WHERE value IS NOT NULL",
                [label],
            )
            yield connection
        except (psycopg.Error, RestoreError) as error:
            # The interrupt may have closed the connection, which translated_errors() reports as another error.
            if cancel and (isinstance(error, psycopg.Error) or connection.broken):
                cancel.check()
            raise
        finally:
            unregister()


@contextlib.contextmanager
def translated_errors(doing: str, *, refused: str | None = None) -> Iterator[None]:
    """Translate psycopg's errors: one line with what was being done and the server's message, without its DETAIL.

    :param doing: such as ``dropping database "app"``.
    :param refused: the hint if the user lacks a privilege, instead of the general one for the message.
    :raises Canceled: the statement was canceled.
    :raises RestoreError: the server reported another error.
    """
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise Canceled(f"canceled while {doing}: {server_message(error)}") from None
    except psycopg.Error as error:
        lacks_privilege = isinstance(error, psycopg.errors.InsufficientPrivilege)
        hint = (refused if lacks_privilege else None) or hint_for(str(error))
        raise RestoreError(f"{doing}: {server_message(error)}", hint=hint) from None


def fetch_value(connection: Session, query: Any, parameters: Any = None) -> Any:
    """Return the first column of the first row, None if there is no row."""
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None


def fetch_column(connection: Session, query: Any, parameters: Any = None) -> list[Any]:
    """Return the first column of all rows."""
    return [row[0] for row in connection.execute(query, parameters)]
