"""Checks of the restored data that users write in SQL: a backup can be restorable and useless."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, session
from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.open_sessions import OpenSessions
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import human_seconds

MOST = 1000
"""Checks of one call."""
SECONDS = 300.0
"""How long one check may run."""
STARTED_AT = "pgbackup.started_at"
"""The session setting with the time of the backup, for ``current_setting('pgbackup.started_at')::timestamptz``."""

SQL_CHECK = "sql check"
"""How the names of these checks begin in a verification."""

_LONGEST_NAME = 200
_LONGEST_ROW = 200
_LONGEST_MESSAGE = 500
_GRACE = 10.0  # seconds after the timeout of a check until its session is ended by force
_END = re.compile(r";\s*(?:--[^\n]*\s*)*\Z")  # of a statement, with comments
_BOOL = 16  # the OID of boolean, in pg_type.dat
_HINT = (
    'Write one SELECT whose first column is true or false: {"name": "recent orders", "sql": "select count(*) > 0 from '
    'orders"}.'
)


@dataclass(frozen=True)
class SqlCheck:
    """One check.

    :param name: for the result.
    :param sql: one SELECT that returns one row whose first column is true; false or NULL fails. Its other columns are
        shown in the result.
    :param required: False: a check that fails is noted, and the backup does not fail.
    """

    name: str
    sql: str
    required: bool = True


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of one check.

    :param result: ``pass``, ``fail``, or ``notproven``: the check itself could not run.
    :param detail: one line, as the server wrote it: escape it before it is shown.
    """

    check: SqlCheck
    result: str
    detail: str


def parse_checks(given: Iterable[SqlCheck | Mapping[str, Any] | str]) -> tuple[SqlCheck, ...]:
    """Return the checks that a user has given.

    :param given: each one a :class:`SqlCheck`, a mapping of its fields, or SQL, which is its name, too.
    :raises ConfigurationError: something else, two checks of one name, or more than :data:`MOST`.
    """
    if isinstance(given, str | Mapping):
        given = [given]
    checks = tuple(_parse(each) for each in given)
    if len(checks) > MOST:
        raise ConfigurationError(f"{len(checks)} checks given, at most {MOST} allowed", hint="Combine some.")
    names = [check.name for check in checks]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ConfigurationError(f"two checks are named {doubled[0]!r}", hint="Give each another name.")
    return checks


def _parse(given: SqlCheck | Mapping[str, Any] | str) -> SqlCheck:
    if isinstance(given, str):
        given = {"name": " ".join(given.split())[:_LONGEST_NAME], "sql": given}
    if isinstance(given, Mapping):
        if unknown := set(given) - {"name", "sql", "required"}:
            raise ConfigurationError(f"a check has the unknown field {sorted(map(str, unknown))[0]!r}", hint=_HINT)
        given = SqlCheck(given.get("name", ""), given.get("sql", ""), given.get("required", True))
    if not isinstance(given, SqlCheck):
        raise ConfigurationError(f"not a check: {str(given)[:_LONGEST_NAME]!r}", hint=_HINT)
    for field in ("name", "sql"):
        value = getattr(given, field)
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ConfigurationError(f"a check without {field}: {given}"[:_LONGEST_NAME], hint=_HINT)
    if not isinstance(given.required, bool):
        raise ConfigurationError(f"check {given.name!r}: required is {given.required!r}", hint="Write true or false.")
    if len(given.name) > _LONGEST_NAME:
        raise ConfigurationError(f"the name of a check is {len(given.name)} characters long", hint="Shorten it.")
    return given


def run_checks(
    connection: ConnectionParams,
    checks: Sequence[SqlCheck],
    *,
    started_at: datetime,
    cancel: Cancel | None = None,
    seconds: float = SECONDS,
) -> list[CheckOutcome]:
    """Run checks in a restored database, each in a session and a read-only transaction of its own.

    Names are found as in the application: by the search_path of the role and the database.

    :param started_at: of the backup, for the setting :data:`STARTED_AT`.
    :param seconds: for each check.
    :raises ConnectError: the server cannot be reached, or was lost.
    :raises Canceled: `cancel` was set.
    """
    return [CheckOutcome(check, *_outcome(connection, check, started_at, cancel, seconds)) for check in checks]


def _outcome(
    connection: ConnectionParams, check: SqlCheck, started_at: datetime, cancel: Cancel | None, seconds: float
) -> tuple[str, str]:
    """Run a check in a session of its own, which is ended by force if it outlives its statement_timeout.

    Functions of the dump can catch what the timeout and a cancel request raise, or change the timeout.

    :return: the result and its detail.
    """
    with session(connection, cancel) as copy:
        pid, limit = copy.info.backend_pid, OpenSessions()
        limit.add(copy)
        timer = threading.Timer(seconds + _GRACE, limit.break_off, ["it ran longer than its timeout"])
        timer.daemon = True
        unregister = cancel.on_set(lambda: limit.break_off("the task was canceled")) if cancel else lambda: None
        timer.start()
        try:
            return _run(copy, check, started_at, seconds)
        except psycopg.Error as error:
            message = server_message(error)
            lost = copy.closed
        finally:
            timer.cancel()
            unregister()
        if limit.broken:
            _terminate(connection, pid)
        if cancel:
            cancel.check()
        if limit.broken:
            return "notproven", f"it ignored its timeout of {human_seconds(seconds)} and was killed"
        if lost:
            raise ConnectError(
                f"{connection.label}: check {check.name!r}: {message[:_LONGEST_MESSAGE]}", hint=hint_for(message)
            )
        return "notproven", message[:_LONGEST_MESSAGE]


def _terminate(connection: ConnectionParams, pid: int) -> None:
    """End a session of our own role, whose SQL cannot catch that."""
    with suppress(ConnectError, psycopg.Error), session(connection) as other:
        other.execute("SELECT pg_catalog.pg_terminate_backend(%s)", [pid])


def _run(copy: Session, check: SqlCheck, started_at: datetime, seconds: float) -> tuple[str, str]:
    with copy.transaction(force_rollback=True):
        copy.execute("SET TRANSACTION READ ONLY")
        copy.execute(
            "SELECT pg_catalog.set_config('statement_timeout', %s, true), pg_catalog.set_config(%s, %s, true)",
            [f"{int(seconds * 1000)}ms", STARTED_AT, started_at.isoformat()],
        )
        copy.execute("RESET search_path")
        _, (first, *others) = _fetch(copy, "checked", check.sql, 0)
        if first.type_code != _BOOL:
            return "notproven", "its first column is not boolean"
        # The server shortens what is shown: a column can have 1 GB, and values that Python has no type for.
        names = [f"c{number}" for number in range(len(others))]
        shown = "".join(
            f", pg_catalog.left(pg_catalog.to_json({name})::pg_catalog.text, {_LONGEST_ROW})" for name in names
        )
        columns = ", ".join(["result", *names])
        query = _END.sub("", check.sql)
        bounded = f"SELECT result{shown} FROM (\n{query}\n) AS checked({columns})"  # noqa: S608  the user's own SQL
        rows, _ = _fetch(copy, "shown", bounded, 2)
    if len(rows) != 1:
        return "notproven", f"it returned {'no row' if not rows else 'several rows'}, expected one"
    result, *values = rows[0]
    pairs = zip((column.name for column in others), values, strict=True)
    row = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {value or 'null'}" for name, value in pairs)
    word = "NULL" if result is None else str(result).lower()
    return ("pass" if result else "fail"), f"{word}, {{{row}}}"[:_LONGEST_ROW] if others else word


def _fetch(copy: Session, cursor: str, query: str, rows: int) -> tuple[list[tuple[Any, ...]], list[psycopg.Column]]:
    """Return the first rows of a query, and its columns. With 0 rows it is parsed, but not executed."""
    # With binary=True psycopg uses the extended protocol, which takes one statement only.
    copy.execute(f"DECLARE pgbackup_{cursor} NO SCROLL CURSOR FOR {query}".encode(), binary=True)
    with copy.cursor() as found:
        fetched = found.execute(f"FETCH {rows} FROM pgbackup_{cursor}".encode()).fetchall()
        return fetched, found.description or []
