"""A restored database takes its name: all renames in one transaction, so the name always leads to a whole database."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import (
    Session,
    fetch_column,
    fetch_value,
    server_message,
    session,
    translated_errors,
)
from airflow_pgbackup.backup.databases.temporary_database import drop_database
from airflow_pgbackup.backup.databases.user_objects import count_objects
from airflow_pgbackup.backup.restore.client_programs import RestoreContext
from airflow_pgbackup.backup.restore.target import oids_of, sessions_in
from airflow_pgbackup.errors import PgBackupError, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.sql.anybytes import Identifier
from airflow_pgbackup.postgres.tools.cancel import Cancel

_PAUSE = 0.2  # seconds between two looks at who is in the way
_TRIES = 3  # PostgreSQL itself waits 5 s in each (CountOtherDBBackends)
_LOCK_TIMEOUT = "30s"


def rename_databases(
    params: ConnectionParams,
    renames: Sequence[tuple[str, str]],
    *,
    end_sessions_in: Sequence[str],
    expected: Mapping[str, int] | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Rename databases, all or none.

    A rename needs a database without sessions. PostgreSQL locks it against new ones while it waits for the others to
    go, so those that are there are ended meanwhile.

    :param params: of another database.
    :param renames: old and new names, in this order.
    :param end_sessions_in: the databases whose sessions may be ended.
    :param expected: the numbers of some of them: it must be those that are renamed, and no others of the same name.
    :raises RestoreError: somebody stayed, or the server refuses; nothing was renamed.
    """
    with session(params, cancel) as connection, translated_errors("looking at the databases"):
        oids = {**oids_of(connection, [old for old, _ in renames]), **(expected or {})}
    in_the_way = [oids[name] for name in end_sessions_in]
    for number in range(1, _TRIES + 1):
        try:
            with session(params, cancel) as connection, _ending(params, in_the_way):
                connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
                with connection.transaction():
                    for old, new in renames:
                        connection.execute(
                            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(old), Identifier(new))
                        )
                    # They are locked now. Another restore may have taken a name since we looked.
                    if oids_of(connection, [new for _, new in renames]) != {new: oids[old] for old, new in renames}:
                        raise RestoreError(
                            f"database {renames[0][0]} was replaced by another restore meanwhile",
                            hint="Look which one is wanted; a retry of the same task finds its own.",
                        )
            return
        except psycopg.errors.ObjectInUse as error:
            if number == _TRIES:
                raise RestoreError(
                    f"the new database cannot take its name: {server_message(error)}",
                    hint="end the sessions of others, or set terminate_sessions, and restore again",
                ) from None
        except psycopg.Error as error:
            # The connection may have been lost after the COMMIT reached the server.
            if not _renamed(params, oids, renames):
                raise RestoreError(f"the new database cannot take its name: {server_message(error)}") from None
            return


def dated_name(connection: Session, database: str, at: datetime) -> str:
    """``dvdrental_replaced_20261122T020000Z``, at most 63 bytes, and not taken."""
    for number in range(100):
        suffix = f"_replaced_{at:%Y%m%dT%H%M%SZ}" + (f"_{number}" if number else "")
        base = database.encode()[: 63 - len(suffix)].decode("utf-8", "ignore")
        name = base + suffix
        if not fetch_value(connection, "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = %s", [name]):
            return name
    raise RestoreError(f"a hundred databases are called {database}_replaced_… already")


def drop_replaced(run: RestoreContext, params: ConnectionParams, name: str, *, only_if_empty: bool) -> str | None:
    """Drop a database whose place has been taken. The restore is done: what goes wrong here is a warning.

    :param only_if_empty: it was empty when we looked first; what has come into it since is kept.
    :return: its name where it is still there.
    """
    try:
        if only_if_empty:
            with session(params.with_database(name)) as connection:
                found = count_objects(connection)
            if found:
                run.warn(f"the database that was empty has {found} objects now: kept as {name}")
                return name
        with session(params) as connection, translated_errors(f"dropping {name}"):
            drop_database(connection, name)
    except PgBackupError as error:
        run.warn(f"the old database is still there as {name}: {error.message}")
        return name
    return None


def _renamed(params: ConnectionParams, oids: dict[str, int], renames: Sequence[tuple[str, str]]) -> bool:
    old, new = renames[-1]
    with session(params) as connection, translated_errors("looking at what was renamed"):
        return fetch_column(connection, "SELECT oid FROM pg_catalog.pg_database WHERE datname = %s", [new]) == [
            oids[old]
        ]


@contextlib.contextmanager
def _ending(params: ConnectionParams, oids: Sequence[int]) -> Iterator[None]:
    """End the sessions of others in these databases, again and again, by a session and a thread of our own."""
    over = threading.Event()
    with session(params) as connection:

        def run(end: Callable[[], None]) -> None:
            with contextlib.suppress(psycopg.Error):
                end()
                while not over.wait(_PAUSE):
                    end()

        thread = threading.Thread(target=run, args=[lambda: _end_sessions(connection, oids)], daemon=True)
        _end_sessions(connection, oids)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _end_sessions(connection: Session, oids: Sequence[int]) -> None:
    for other in sessions_in(connection, oids):
        if other.may_end:
            connection.execute("SELECT pg_catalog.pg_terminate_backend(%s)", [other.pid])
