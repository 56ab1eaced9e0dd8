"""Checks of the restored data that users write in SQL: a backup can be restorable and useless."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, server_message, session
from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel

MOST = 1000
"""Checks of one call."""
SECONDS = 300.0
"""How long one check may run."""
STARTED_AT = "pgbackup.started_at"
"""The session setting with the time of the backup, for ``current_setting('pgbackup.started_at')::timestamptz``."""

_LONGEST_NAME = 200
_LONGEST_ROW = 200
_BOOL = 16  # the OID of boolean, in pg_type.dat
_HINT = (
    'Write one SELECT whose first column is true or false: {"name": "recent orders", "sql": "select count(*) > 0 from '
    'orders"}.'
)


@dataclass(frozen=True)
class SqlCheck:
    """One check.

    :param name: for the result. :param sql: one SELECT that returns one row whose first column is true; false or NULL
        fails. Its other columns are shown in the result.
    :param required: False: a check that fails is noted, and the backup does not fail.
    """

    name: str
    sql: str
    required: bool = True


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of one check.

    :ivar result: ``pass``, ``fail``, or ``notproven``: the check itself could not run.
    :ivar detail: one line, as the server wrote it: escape it before it is shown.
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
        raise ConfigurationError(f"{len(checks)} checks, at most {MOST} are possible", hint="Combine some.")
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
    """Run checks in a restored database, each in a read-only transaction of its own.

    Names are found as in the application: by the search_path of the role and the database.

    :param started_at: of the backup, for the setting :data:`STARTED_AT`.
    :param seconds: for each check.
    :raises ConnectError: the server cannot be reached, or was lost.
    :raises Canceled: `cancel` was set.
    """
    outcomes = []
    with session(connection, cancel) as copy:
        copy.execute("RESET search_path")
        for check in checks:
            try:
                result, detail = _run(copy, check, started_at, seconds)
            except psycopg.Error as error:
                if cancel:
                    cancel.check()
                if copy.closed:
                    raise ConnectError(f"{connection.label}: check {check.name!r}: {server_message(error)}") from None
                result, detail = "notproven", server_message(error)
            outcomes.append(CheckOutcome(check, result, detail))
    return outcomes


def _run(copy: Session, check: SqlCheck, started_at: datetime, seconds: float) -> tuple[str, str]:
    with copy.transaction(force_rollback=True):
        copy.execute("SET TRANSACTION READ ONLY")
        copy.execute(
            "SELECT pg_catalog.set_config('statement_timeout', %s, true), pg_catalog.set_config(%s, %s, true)",
            [f"{int(seconds * 1000)}ms", STARTED_AT, started_at.isoformat()],
        )
        # A cursor, so that no more than two rows are sent. With binary=True psycopg uses the extended protocol, which
        # takes one statement only.
        declare = f"DECLARE pgbackup_check NO SCROLL CURSOR FOR {check.sql.strip().rstrip(';')}"
        copy.execute(declare.encode(), binary=True)
        with copy.cursor() as cursor:
            rows = cursor.execute("FETCH 2 FROM pgbackup_check").fetchall()
            columns = cursor.description or []
    if len(rows) != 1:
        return "notproven", f"it returned {'no row' if not rows else 'several rows'}, expected one"
    if not columns or columns[0].type_code != _BOOL:
        return "notproven", "its first column is not boolean"
    first, *others = rows[0]
    shown = {column.name: value for column, value in zip(columns[1:], others, strict=True)}
    more = f", {json.dumps(shown, default=str, ensure_ascii=False)}"[:_LONGEST_ROW] if shown else ""
    word = "NULL" if first is None else str(bool(first)).lower()
    return ("pass" if first else "fail"), f"{word}{more}"
