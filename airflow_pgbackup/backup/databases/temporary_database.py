"""Databases under names of their own until they are what they should be, and gone if that does not come to pass.

They are dropped by the process that made them, on its way out; when that is killed, by a guard process that waits for
its end; when that is killed too, or the machine stops, by the next restore on that server (:func:`sweep`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

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
from airflow_pgbackup.errors import ConnectError, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import INHERITED
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.capabilities import has_drop_database_force

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "pgbackup_tmp_"
_LABEL = "airflow-pgbackup "
_PATIENCE = 3.0  # seconds for a session of ours to be gone from the server's list
_GUARD = Path(__file__).with_name("_drop_guard.py")

# What of a CREATE DATABASE another server may not be able to do: a locale, a provider or an option it does not know,
# an encoding that does not go with its locale, a tablespace it lacks.
_NOT_HERE = (
    psycopg.errors.WrongObjectType,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.SyntaxError,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.InvalidObjectDefinition,
    psycopg.errors.UndefinedObject,
)


class TemporaryDatabases:
    """Makes databases called ``pgbackup_tmp_<token>_<n>``; those that still are at the end of the ``with`` are dropped.

    >>> with TemporaryDatabases(params) as temporary:
    ...     fresh, _ = temporary.create([lambda name: f"CREATE DATABASE {name} TEMPLATE template0"])

    :param params: of a database of that server to be in meanwhile.
    :param say: takes a line for people, where something is left behind.
    """

    def __init__(
        self,
        params: ConnectionParams,
        *,
        cancel: Cancel | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._params = params
        self._cancel = cancel
        self._say = say
        self._token = secrets.token_hex(6)
        self._count = 0
        self._stack = contextlib.ExitStack()
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # By this session's name others see that the databases are in use, also while nobody is in them.
        held = self._stack.enter_context(session(self._params, self._cancel, label=_LABEL + self._token))
        try:
            sweep(held, self._params, self._say)
            self._guard = self._start_guard()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._end_guard(done=not self._count or self._drop())

    def create(self, attempts: Sequence[Callable[[str], str]]) -> tuple[ConnectionParams, int]:
        """Make a database.

        :param attempts: each gives a CREATE DATABASE for a name; the best first, the others for servers that cannot do
            it: a locale, an option or a tablespace that is not there.
        :return: its parameters, and the number of the attempt that this server could do.
        :raises RestoreError: it can do none, or refuses for another reason.
        """
        name = f"{PREFIX}{self._token}_{self._count}"
        self._count += 1
        with session(self._params, self._cancel) as connection, translated_errors("making a new database"):
            for number, attempt in enumerate(attempts):
                try:
                    connection.execute(encoded(attempt(name)))
                    break
                except _NOT_HERE as error:
                    if number == len(attempts) - 1:
                        raise
                    self._say(f"this server refuses: {server_message(error)}")
        return self._params.with_database(name), number

    def drop(self) -> None:
        """Drop those made so far: another attempt begins."""
        with session(self._params, self._cancel) as connection, translated_errors("dropping the last attempt"):
            for number in range(self._count):
                drop_temporary(connection, self._params.with_database(f"{PREFIX}{self._token}_{number}"))

    def _drop(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        try:
            while not drop_left(self._params, self._token):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        except PgBackupError as error:
            self._say(f"left behind: databases {PREFIX}{self._token}_*: {error.message}; the next restore drops them")
            return False
        return True

    def _start_guard(self) -> subprocess.Popen[bytes]:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", os.fspath(_GUARD)],
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        order = {
            "path": sys.path,
            "keywords": dict(self._params.keywords),
            "password": self._params.get_password(),
            "token": self._token,
        }
        assert guard.stdin is not None  # noqa: S101  a pipe was asked for
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(json.dumps(order).encode() + b"\n")
            guard.stdin.flush()
        return guard

    def _end_guard(self, *, done: bool) -> None:
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(b"done" if done else b"")
            guard.stdin.close()
        if done:
            guard.wait()


def drop_left(params: ConnectionParams, token: str) -> bool:
    """Drop the temporary databases of one run.

    :return: True where none can come any more: no session of that run is left.
    :raises ConnectError, RestoreError: could not.
    """
    with session(params) as connection, translated_errors("dropping what is half-done"):
        names = fetch_column(
            connection,
            "SELECT datname FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname, %s)",
            [f"{PREFIX}{token}_"],
        )
        for name in names:
            drop_temporary(connection, params.with_database(name))
        running = fetch_value(
            connection,
            "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE application_name = %s "
            "OR query LIKE '%%' || %s || '%%' AND state = 'active' AND pid <> pg_catalog.pg_backend_pid()",
            [_LABEL + token, f"{PREFIX}{token}_"],
        )
    return not running


def drop_temporary(connection: Session, database: ConnectionParams) -> None:
    """Drop a database that only we have been in, with its subscriptions."""
    _drop_subscriptions(connection, database)
    drop_database(connection, database.dbname)


def drop_database(connection: Session, name: str) -> None:
    """Drop a database with the sessions in it."""
    force = " WITH (FORCE)" if has_drop_database_force(connection.info.server_version // 10000) else ""
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)) + sql.SQL(force))


def _drop_subscriptions(connection: Session, database: ConnectionParams) -> None:
    """A database with one cannot be dropped. The publisher is not told: a restored one has no slot there."""
    query = (
        "SELECT subname FROM pg_catalog.pg_subscription AS s "
        "JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid WHERE d.datname = %s"
    )
    names = fetch_column(connection, query, [database.dbname])
    if not names:
        return
    with session(database) as inside:
        for name in map(Identifier, names):
            for statement in (
                "ALTER SUBSCRIPTION {} DISABLE",
                "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
                "DROP SUBSCRIPTION {}",
            ):
                inside.execute(sql.SQL(statement).format(name))


def sweep(connection: Session, params: ConnectionParams, say: Callable[[str], None]) -> None:
    """Drop the temporary databases of runs that are gone: nobody holds their name, and nobody is in them."""
    left = fetch_column(
        connection,
        "SELECT d.datname FROM pg_catalog.pg_database AS d WHERE d.datname ~ %s "
        "AND pg_catalog.pg_has_role(d.datdba, 'USAGE') "
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.datname = d.datname "
        "OR a.application_name = %s || pg_catalog.split_part(d.datname, '_', 3))",
        [f"^{PREFIX}[0-9a-f]{{12}}_[0-9]+$", _LABEL],
    )
    for name in left:
        # Without force: whoever came in since knows more than we do.
        with contextlib.suppress(psycopg.Error, ConnectError):
            _drop_subscriptions(connection, params.with_database(name))
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)))
            say(f"dropped {name}, which a restore that was killed has left behind")
