"""Earlier copies of a refreshed database: renamed at the swap, marked as ours, and dropped when newer ones follow.

The database that was in use until the swap gets a name with the time of the swap, ``staging_before_20261127T020000Z``,
and a last line in its comment, both in the transaction of the swap. Only a database with such a name and such a line,
that belongs to our role or to the owner of the refreshed database, is ever dropped: each role with CREATEDB can make
one with a name and a comment of its choice.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone

from airflow_pgbackup.backup.databases.sessions import Session, session, translated_errors
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.rename import dated, drop_replaced
from airflow_pgbackup.backup.restore.retry_marker import unmarked
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

WORD = "before"
_NAME = re.compile(rf"(.*)_{WORD}_(\d{{8}}T\d{{6}}Z)(?:_(\d{{1,2}}))?\Z", re.ASCII | re.DOTALL)
_CLOCKS = timedelta(hours=1)
"""How far the clock of the worker that made a copy may be ahead."""
_LINE = re.compile(r"(?:\A|\n)airflow-pgbackup: kept (\{.*\})\Z")
_COPIES = (
    "SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database "
    "WHERE pg_catalog.pg_has_role(datdba, 'USAGE') AND (datdba = current_user::pg_catalog.regrole "
    "OR datdba = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = %s))"
)
_COMMENT = "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = %s"
_SET_COMMENT = (
    "DO $$ BEGIN EXECUTE pg_catalog.format('COMMENT ON DATABASE %I IS %L', "
    "pg_catalog.current_setting('pgbackup.database'), pg_catalog.current_setting('pgbackup.comment')); END $$"
)


def mark_kept(connection: Session, name: str, database: str) -> None:
    """Mark a database as an earlier copy of another one. Runs in the caller's transaction.

    :param name: of the earlier copy.
    :param database: the refreshed database.
    """
    row = connection.execute(_COMMENT, [name]).fetchone()
    comment = unmarked((row and row[0]) or "")
    line = "airflow-pgbackup: kept " + json.dumps({"database": database})
    text = "\n".join(filter(None, [comment, line]))
    connection.execute(
        "SELECT pg_catalog.set_config('pgbackup.database', %s, false), "
        "pg_catalog.set_config('pgbackup.comment', %s, false)",
        [name, text],
    )
    connection.execute(_SET_COMMENT)


def find_kept(connection: Session, database: str) -> list[str]:
    """Return the names of the earlier copies of a database that its owner or our role owns, the newest first."""
    with translated_errors(f'listing the earlier copies of database "{database}"'):
        rows = connection.execute(_COPIES, [database]).fetchall()
    latest = datetime.now(timezone.utc) + _CLOCKS
    found = []
    for name, comment in rows:
        place = _place(name, database, latest)
        if place and _refreshed(comment or "") == database:
            found.append((place, name))
    return [name for _, name in sorted(found, reverse=True)]


def _place(name: str, database: str, latest: datetime) -> tuple[datetime, int] | None:
    """Return the time and number in the name of an earlier copy; None if the name is not that of one."""
    match = _NAME.match(name)
    try:
        time = datetime.strptime(match[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc) if match else latest
    except ValueError:  # no such day
        return None
    if not match or time >= latest:
        return None
    number = int(match[3] or 0)
    return (time, number) if dated(database, time, WORD, number) == name else None


def drop_old_copies(
    run: RestoreContext, maintenance: ConnectionParams, database: str, keep: int, replaced: str | None
) -> list[str]:
    """Drop the earlier copies of a database but the newest. The refresh is complete, so a failure is a warning.

    :param replaced: the copy that was in use until now.
    :return: the names of those that remain, the newest first; only `replaced` if nobody can list them.
    """
    try:
        with session(maintenance) as connection:
            copies = find_kept(connection, database)
    except PgBackupError as error:
        run.warn(f"refreshed {database}, but dropped no earlier copy of it: {error.message}")
        return [replaced] if replaced else []
    remain = copies[:keep]
    for name in copies[keep:]:
        if drop_replaced(run, maintenance, name, only_if_empty=False):
            remain.append(name)
        else:
            run.log_after_commit(f"dropped {name}, an earlier copy of {database}")
    return remain


def _refreshed(comment: str) -> str | None:
    """Return the name of the refreshed database, which the comment of an earlier copy contains; None without it."""
    match = _LINE.search(comment)
    try:
        said = json.loads(match[1]) if match else None
    except (ValueError, RecursionError):  # a user's own comment
        return None
    return said.get("database") if isinstance(said, dict) else None
