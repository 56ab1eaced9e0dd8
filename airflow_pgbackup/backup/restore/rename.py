"""Rename a restored database to its final name, in one transaction: the name always refers to a complete database."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import (
    Session,
    fetch_column,
    fetch_value,
    session,
    translated_errors,
)
from airflow_pgbackup.backup.databases.temporary_database import PREFIX, drop_database
from airflow_pgbackup.backup.databases.user_objects import count_objects
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.named_views import refilled_views
from airflow_pgbackup.backup.restore.preconditions import client_sessions, database_oids, tied_to_database
from airflow_pgbackup.backup.restore.request import StateText, doubt
from airflow_pgbackup.errors import PgBackupError, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.sql.anybytes import Identifier
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.wording import parameter

_PAUSE = 0.2  # seconds between two attempts to end sessions
_ATTEMPTS = 3  # in each, PostgreSQL waits up to 5 s for the sessions to end (CountOtherDBBackends)
_LOCK_TIMEOUT = "30s"
_REPLACED = "replaced"

# What a database without user objects can hold.
_OTHERS = """
SELECT 'extension ' || extname FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'
UNION ALL SELECT 'default privileges' WHERE EXISTS (SELECT FROM pg_catalog.pg_default_acl)
UNION ALL SELECT 'privileges on schema public' FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_init_privs AS i
ON i.objoid = n.oid AND i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND i.objsubid = 0
WHERE n.nspname = 'public' AND n.nspacl IS NOT NULL AND n.nspacl::text IS DISTINCT FROM i.initprivs::text
"""


def rename_databases(
    params: ConnectionParams,
    renames: Sequence[tuple[str, str]],
    *,
    end_sessions_in: Sequence[str],
    state: StateText,
    after: str,
    warn: Callable[[str], None],
    expected: Mapping[str, int] | None = None,
    then: Callable[[Session], None] | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Rename databases, all or none.

    A database with sessions cannot be renamed. PostgreSQL locks out new sessions while it waits for the existing ones
    to end, so these are ended meanwhile. What a temporary database has computed from its name is computed again.

    :param params: another database of the server.
    :param renames: pairs of old and new name, in this order.
    :param end_sessions_in: the databases whose sessions may be ended.
    :param state: becomes `after` with the COMMIT.
    :param warn: takes what could not be computed again.
    :param expected: OIDs of some of the databases: others of the same name must not be renamed.
    :param then: runs further statements in the same transaction, after the renames.
    :raises RestoreError: a session remained, or the server reported an error; nothing was renamed, or `state` says that
        nobody knows.
    """
    with session(params, cancel) as connection, translated_errors("querying the databases to rename"):
        oids = {**database_oids(connection, [old for old, _ in renames]), **(expected or {})}
    if missing := sorted({old for old, _ in renames} - oids.keys()):
        raise dropped_meanwhile(missing[0])
    to_end, before = [oids[name] for name in end_sessions_in], state.text
    temporary = [(old, new) for old, new in renames if old.startswith(PREFIX)]
    with refilled_views(params, temporary, warn, cancel):
        for number in range(1, _ATTEMPTS + 1):
            try:
                with session(params, cancel) as connection, _ending_sessions(params, to_end, cancel):
                    connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
                    with connection.transaction():
                        _rename(connection, renames, oids)
                        if then:
                            then(connection)
                        state.text = doubt(after)
                    state.text = after
                return
            except psycopg.errors.ObjectInUse as error:
                state.text = before
                if number == _ATTEMPTS:
                    ending = parameter("terminate_sessions", True)
                    raise RestoreError(
                        f"cannot rename the new database: {server_message(error)}",
                        hint=f"End the sessions of others, or restore again with {ending}.",
                    ) from None
            except psycopg.errors.InvalidCatalogName:
                state.text = before
                raise dropped_meanwhile(renames[0][0]) from None
            except psycopg.Error as error:
                # The connection may have been lost after the server received the COMMIT.
                if state.text == before or not _renamed(params, oids, renames):
                    state.text = before
                    raise RestoreError(f"cannot rename the new database: {server_message(error)}") from None
                state.text = after
                return


def _rename(connection: Session, renames: Sequence[tuple[str, str]], oids: Mapping[str, int]) -> None:
    for old, new in renames:
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(old), Identifier(new)))
    # The databases are locked now. Another restore may have renamed one since the OIDs were read.
    renamed = {new: oids[old] for old, new in renames}
    if database_oids(connection, list(renamed)) != renamed:
        raise RestoreError(
            f'another restore has replaced database "{renames[0][0]}" in the meantime',
            hint="Check which of the two is wanted; a retry of the same task recognizes its own.",
        )


def dropped_meanwhile(database: str) -> RestoreError:
    """Return the error for a database that existed when the restore began."""
    return RestoreError(
        f'database "{database}" was dropped or renamed during the restore',
        hint="Find out who did that, such as another restore of the same database; then restore again.",
    )


def dated_name(connection: Session, database: str, at: datetime, word: str = _REPLACED) -> str:
    """Return an unused name like ``dvdrental_replaced_20261122T020000Z``, of at most 63 bytes."""
    for number in range(100):
        name = dated(database, at, word, number)
        if not fetch_value(connection, "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = %s", [name]):
            return name
    raise RestoreError(f'no unused name for the old database "{database}"', hint=f"Drop databases named *_{word}_*.")


def dated(database: str, at: datetime, word: str, number: int) -> str:
    """Return the name that :func:`dated_name` tries after `number` others were in use."""
    suffix = f"_{word}_{at:%Y%m%dT%H%M%SZ}" + (f"_{number}" if number else "")
    return database.encode()[: 63 - len(suffix)].decode("utf-8", "ignore") + suffix


def is_dated_name(name: str, database: str) -> bool:
    """Return whether :func:`dated_name` could have returned a name for a replaced database."""
    match = re.search(rf"_{_REPLACED}_(\d{{8}}T\d{{6}}Z)(?:_(\d{{1,2}}))?\Z", name, re.ASCII)
    if not match:
        return False
    try:
        at = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:  # no such day
        return False
    return dated(database, at, _REPLACED, int(match[2] or 0)) == name


def drop_replaced(run: RestoreContext, params: ConnectionParams, name: str, *, only_if_empty: bool) -> str | None:
    """Drop a database that was replaced. The restore is complete, so a failure is a warning.

    A database with replication slots or subscriptions is kept: their positions are those of other systems.

    :param only_if_empty: keep the database if it has objects, as it was empty when the restore began, or what does not
        count as an object and is lost with it: extensions, default privileges, privileges of the schema public.
    :return: its name if it was not dropped, else None.
    """
    try:
        if only_if_empty:
            with session(params.with_database(name)) as connection:
                found = count_objects(connection)
                others = fetch_column(connection, _OTHERS)
            if found:
                run.warn(f"keeping the old database as {name}, because it now has {counted(found, 'object')}")
                return name
            if others:
                run.warn(f"keeping the old database as {name}, because it has {', '.join(others)}")
                return name
        with session(params) as connection, translated_errors(f"dropping {name}"):
            if tied := tied_to_database(connection, name):  # DROP DATABASE drops its slots
                run.warn(f"keeping the old database as {name}, because it has {', '.join(tied)}")
                return name
            drop_database(connection, name)
    except PgBackupError as error:
        run.warn(f"cannot drop the old database {name}: {error.message}")
        return name
    return None


def _renamed(params: ConnectionParams, oids: Mapping[str, int], renames: Sequence[tuple[str, str]]) -> bool:
    old, new = renames[-1]
    with session(params) as connection, translated_errors("querying the renamed databases"):
        return fetch_column(connection, "SELECT oid FROM pg_catalog.pg_database WHERE datname = %s", [new]) == [
            oids[old]
        ]


@contextlib.contextmanager
def _ending_sessions(params: ConnectionParams, oids: Sequence[int], cancel: Cancel | None) -> Iterator[None]:
    """End the sessions of others in databases again and again, in a thread with a session of its own."""
    over = threading.Event()
    with session(params, cancel) as connection:

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
            thread.join(_PAUSE)
            if thread.is_alive():
                interrupt(connection, last=True)
                thread.join()


def _end_sessions(connection: Session, oids: Sequence[int]) -> None:
    for other in client_sessions(connection, oids):
        if other.may_end:
            connection.execute("SELECT pg_catalog.pg_terminate_backend(%s)", [other.pid])
