"""The state of a target database before a restore, and whether it fits the mode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, session
from airflow_pgbackup.backup.restore.noted_transaction import is_complete
from airflow_pgbackup.backup.restore.preconditions import (
    has_public_schema,
    require_empty,
    require_replaceable,
    tied_to_database,
)
from airflow_pgbackup.backup.restore.request import RestoreRequest, require_may_create
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, find_marker
from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

_MAYBE_COMPLETE_HINT = (
    "An earlier attempt of this task may have restored these objects: check the database, and restore with mode "
    "replace if it is not complete."
)
CREATEDB_HINT = "Grant it CREATEDB with ALTER ROLE, or restore with mode into_empty and without jobs."

_DEFAULT_PRIVILEGES = "SELECT count(*) FROM pg_catalog.pg_default_acl"


@dataclass
class TargetState:
    """The target before the restore.

    :param maintenance: the database to connect to while the target is created, renamed or dropped; None if the target
        is only filled.
    :ivar public_exists: the target has a schema public.
    :ivar earlier: the marker of an earlier attempt that completed this request.
    """

    server: ServerInfo
    maintenance: ConnectionParams | None
    public_exists: bool = True
    earlier: RetryMarker | None = None


def inspect_target(request: RestoreRequest) -> TargetState:
    """Return the state of the target.

    :raises ConfigurationError: the target does not fit the mode.
    """
    target, cancel = request.target, request.run.cancel
    if target.mode in ("into_empty", "into_existing"):
        with _create_hint(), session(target.connection, cancel) as connection:
            server = ServerInfo.read(connection, target.connection.label)
            earlier = _completed(connection, request)
            if target.mode == "into_empty" and not earlier and fetch_value(connection, _DEFAULT_PRIVILEGES):
                request.run.warn(
                    f"{target.connection.label} has default privileges, which restored objects get besides their own"
                )
            return TargetState(server, None, has_public_schema(connection), earlier)
    maintenance = target.maintenance(cancel)
    with session(maintenance, cancel) as connection:
        server = ServerInfo.read(connection, target.connection.label)
        earlier = _marked(connection, request)
        if earlier is None or earlier.begun:
            earlier = None
            exists = _require_existence(server, request)
            require_may_create(server, CREATEDB_HINT)
            if exists:
                require_replaceable(connection, server, target)
                kept = "" if target.keep_old else ", which is therefore kept"
                for what in tied_to_database(connection, target.database):
                    request.run.warn(f"{what} stays with the old database{kept}")
    return TargetState(server, maintenance, earlier=earlier)


def _completed(connection: Session, request: RestoreRequest) -> RetryMarker | None:
    """Return the marker of an earlier attempt that has filled the database in place.

    :raises ConfigurationError: the database is not empty, as mode into_empty requires, or nobody knows whether an
        earlier attempt has filled it.
    :raises RestoreError: an earlier attempt is still running.
    """
    target = request.target
    earlier = _marked(connection, request)
    complete = is_complete(connection, earlier) if earlier else False
    if target.mode == "into_empty":
        try:
            require_empty(connection, target.connection.label)
        except ConfigurationError as error:
            if earlier and not complete:
                error.hint = _MAYBE_COMPLETE_HINT
            if not complete:
                raise
        else:
            return None
    elif complete is None:
        raise ConfigurationError(
            f"an earlier attempt of this task may have restored into {target.connection.label}",
            hint="Check the database. If the rows are missing, clear the task, which restores again.",
        )
    return earlier if complete else None


@contextmanager
def _create_hint() -> Iterator[None]:
    """Name the mode that creates the database, if the server says that it does not exist."""
    try:
        yield
    except ConnectError as error:
        if re.search(r"database .* does not exist", error.message):
            error.hint = "Use mode create to create it. The name of a database is case-sensitive."
        raise


def _require_existence(server: ServerInfo, request: RestoreRequest) -> bool:
    """Return whether the target exists, as it must for mode replace and must not for mode create."""
    target = request.target
    exists = target.database in server.databases
    if target.mode == "create" and exists:
        raise ConfigurationError(
            f'database "{target.database}" already exists',
            hint="Restore under another name, or use mode replace to replace the database.",
        )
    if target.mode == "replace" and not exists:
        raise ConfigurationError(f'database "{target.database}" does not exist', hint="Use mode create to create it.")
    return exists


def _marked(connection: Session, request: RestoreRequest) -> RetryMarker | None:
    """Return the marker of an earlier attempt of this request."""
    if not request.retry_digest:
        return None
    marker = find_marker(connection, request.target.database)
    return marker if marker and marker.request == request.retry_digest else None
