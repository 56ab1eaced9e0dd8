"""Temporary databases, which a restore fills and then renames, or drops if it fails.

The process that creates them drops them when it leaves the ``with`` block. If it is killed, a guard process that waits
for its end drops them. If the guard is killed too, or the machine stops, the next restore on that server drops them
(:func:`sweep`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from airflow_pgbackup import supervision
from airflow_pgbackup.backup.databases.sessions import (
    Session,
    fetch_column,
    fetch_value,
    session,
    translated_errors,
    without_event_triggers,
)
from airflow_pgbackup.errors import ConfigurationError, ConnectError, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import INHERITED
from airflow_pgbackup.postgres.connection.renewal import renewed_password
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.capabilities import has_drop_database_force, has_login_triggers

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "pgbackup_tmp_"
_LABEL = "airflow-pgbackup "
_PATIENCE = 3.0  # seconds for our sessions to disappear from pg_stat_activity
_GUARD = Path(__file__).with_name("_drop_guard.py")

# CREATE DATABASE needs SET, the statements after it, and DROP DATABASE, need USAGE.
_MAY_OWN = """
SELECT pg_catalog.pg_has_role(oid, 'USAGE') AND pg_catalog.pg_has_role(oid, CASE
       WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END), current_user
  FROM pg_catalog.pg_roles WHERE rolname = %s
"""

# Errors of a CREATE DATABASE that another server cannot run: a locale, locale provider or option that it does not know,
# an encoding that does not match its locale, a tablespace that it lacks.
UNSUPPORTED = (
    psycopg.errors.WrongObjectType,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.SyntaxError,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.InvalidObjectDefinition,
    psycopg.errors.UndefinedObject,
)


class TemporaryDatabases:
    """Creates databases named ``pgbackup_tmp_<token>_<n>``, and drops at the end of the ``with`` those not renamed.

    >>> with TemporaryDatabases(params) as temporary:
    ...     fresh, _ = temporary.create([lambda name: f"CREATE DATABASE {name} TEMPLATE template0"])

    :param params: another database of the server, to connect to meanwhile.
    :param say: takes log lines.
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
        # The name of this session shows other restores that the databases are in use, even if no session is in them.
        held = self._stack.enter_context(session(self._params, self._cancel, label=_LABEL + self._token))
        try:
            sweep(held, self._params, self._say)
            self._guard = self._start_guard()
            self._stack.enter_context(renewed_password(self._params, self._send_guard))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._end_guard(done=not self._count or self._drop())

    def create(
        self, attempts: Sequence[Callable[[str], str]], *, owner: str | None = None
    ) -> tuple[ConnectionParams, int]:
        """Create a database to which only its owner, members of the owner and superusers can connect.

        Its contents can be more open than the dumped database was, whose privileges it does not have yet.

        :param attempts: functions that return a CREATE DATABASE statement for a name. The first is the best; the
            others are for servers that lack a locale, an option or a tablespace of it.
        :param owner: the one that the statements name.
        :return: the connection parameters, and the index of the attempt that succeeded.
        :raises RestoreError: the server rejects all of them, or reports another error.
        :raises ConfigurationError: as :func:`require_may_own`.
        """
        name = f"{PREFIX}{self._token}_{self._count}"
        self._count += 1
        with session(self._params, self._cancel) as connection, translated_errors("creating a temporary database"):
            if owner:
                require_may_own(connection, owner)
            for number, attempt in enumerate(attempts):
                try:
                    # Nobody can connect before CONNECT is revoked.
                    closed = f"{attempt(name).rstrip().rstrip(';')} ALLOW_CONNECTIONS = false"
                    connection.execute(encoded(closed))
                    break
                except UNSUPPORTED as error:
                    if number == len(attempts) - 1:
                        raise
                    self._say(f"trying other options, as this server rejects CREATE DATABASE: {server_message(error)}")
            connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(Identifier(name)))
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(Identifier(name)))
        return self._params.with_database(name), number

    def drop(self) -> None:
        """Drop the databases created so far, before another attempt."""
        with session(self._params, self._cancel) as connection, translated_errors("dropping the temporary databases"):
            for number in range(self._count):
                drop_temporary(connection, self._params.with_database(f"{PREFIX}{self._token}_{number}"))

    def _drop(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        try:
            while not drop_by_token(self._params, self._token):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        except PgBackupError as error:
            self._say(f"cannot drop databases {PREFIX}{self._token}_*; the next restore drops them: {error.message}")
            return False
        return True

    def _start_guard(self) -> subprocess.Popen[bytes]:
        guard = supervision.start(
            _GUARD,
            {"path": sys.path, "token": self._token},
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._send_guard(self._params.get_password(), guard)
        return guard

    def _send_guard(self, password: str | None, guard: subprocess.Popen[bytes] | None = None) -> None:
        """Send the guard how to connect. :param guard: that of this object if not given."""
        guard = guard or self._guard
        assert guard is not None  # noqa: S101  the callers have started it
        assert guard.stdin is not None  # noqa: S101  a pipe was asked for
        supervision.send(guard.stdin, {"keywords": dict(self._params.keywords), "password": password})

    def _end_guard(self, *, done: bool) -> None:
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        if done:
            supervision.send(guard.stdin, "done")
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.close()
        if done:
            guard.wait()


def require_may_own(connection: Session, owner: str, *, hint: str = "") -> None:
    """Check that the user may create a database that another role owns, and then change and drop it.

    :param hint: a sentence to append to the hint.
    :raises ConfigurationError: it may not.
    """
    row = connection.execute(_MAY_OWN, [owner]).fetchone()
    if row and not row[0]:
        raise ConfigurationError(
            f'user {row[1]} may not create a database that role "{owner}" owns',
            hint=f"Connect as {owner} or a superuser, or make {row[1]} a member of {owner} that inherits its "
            f"privileges and may SET ROLE to it.{hint}",
        )


def drop_by_token(params: ConnectionParams, token: str) -> bool:
    """Drop the temporary databases of one run.

    :param token: in the names of its databases and of its session.
    :return: True if the run has no session left that could create another one.
    :raises ConnectError, RestoreError: a database cannot be dropped.
    """
    with session(params) as connection, translated_errors("dropping the temporary databases"):
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
    """Drop a database of our own, with its subscriptions."""
    _make_droppable(connection, database)
    drop_database(connection, database.dbname)


def drop_database(connection: Session, name: str) -> None:
    """Drop a database, and end the sessions in it."""
    force = " WITH (FORCE)" if has_drop_database_force(connection.info.server_version // 10000) else ""
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)) + sql.SQL(force))


def _make_droppable(connection: Session, database: ConnectionParams) -> None:
    """Remove what prevents DROP DATABASE: the mark of a template, and subscriptions."""
    query = "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = %s AND datistemplate"
    if fetch_value(connection, query, [database.dbname]):
        connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(database.dbname)))
    _drop_subscriptions(connection, database)


def _drop_subscriptions(connection: Session, database: ConnectionParams) -> None:
    """Drop the subscriptions, which prevent DROP DATABASE. The publisher is not contacted: it has no slot for them."""
    query = (
        "SELECT subname FROM pg_catalog.pg_subscription AS s "
        "JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid WHERE d.datname = %s"
    )
    names = fetch_column(connection, query, [database.dbname])
    if not names:
        return
    # A trigger on login could reject us, and the database would stay.
    with session(without_login_triggers(connection, database)) as inside:
        for name in map(Identifier, names):
            for statement in (
                "ALTER SUBSCRIPTION {} DISABLE",
                "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
                "DROP SUBSCRIPTION {}",
            ):
                inside.execute(sql.SQL(statement).format(name))


def without_login_triggers(connection: Session, database: ConnectionParams) -> ConnectionParams:
    """Return a connection to a database of the session's server, in which no event trigger runs if the role may prevent
    that."""
    may_set = "SELECT pg_catalog.has_parameter_privilege('event_triggers', 'SET')"
    if has_login_triggers(connection.info.server_version // 10000) and fetch_value(connection, may_set):
        return without_event_triggers(database)
    return database


def sweep(connection: Session, params: ConnectionParams, say: Callable[[str], None]) -> None:
    """Drop the temporary databases of runs that were killed: no session has their token, and none is in them."""
    left = fetch_column(
        connection,
        "SELECT d.datname FROM pg_catalog.pg_database AS d WHERE d.datname ~ %s "
        "AND pg_catalog.pg_has_role(d.datdba, 'USAGE') "
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.datname = d.datname "
        "OR a.application_name = %s || pg_catalog.split_part(d.datname, '_', 3))",
        [f"^{PREFIX}[0-9a-f]{{12}}_[0-9]+$", _LABEL],
    )
    for name in left:
        # Without FORCE: a session that connected in the meantime may have a reason.
        with contextlib.suppress(psycopg.Error, ConnectError):
            _make_droppable(connection, params.with_database(name))
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)))
            say(f"dropped {name}, left by a restore that was killed")
