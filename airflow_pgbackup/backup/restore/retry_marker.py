"""What a ``replace`` leaves on the database that it made, so that a retry finds that it is done.

The reply of a task that succeeded can be lost, and its retry would replace the database again, with what applications
have written to it since. So the new database carries a line in its comment: which request it was made for, from which
backup, and where the old one is. The line is written before the swap and takes effect with it, since it goes with the
database. The next restore into that place takes it away.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, server_message, session, translated_errors
from airflow_pgbackup.backup.restore.client_programs import RestoreContext
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

_LINE = re.compile(r"\n?airflow-pgbackup: (\{.*\})\Z")
_COMMENT = (
    "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = %s",
    # COMMENT takes no parameters, and quoting here would have to know the encoding.
    "DO $$ BEGIN EXECUTE pg_catalog.format('COMMENT ON DATABASE %I IS %L', pg_catalog.current_database(), "
    "nullif(pg_catalog.current_setting('pgbackup.comment'), '')); END $$",
)


@dataclass(frozen=True)
class RetryMarker:
    """:ivar request: what asked for it, see :func:`request_digest`. :ivar series: the folder of the backup's series.
    :ivar replaced: what the old database is called; ``oid`` is its number.
    """

    request: str
    series: str
    id: str
    replaced: str
    oid: int


def request_digest(request: str) -> str:
    return hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def find_marker(connection: Session, database: str) -> RetryMarker | None:
    """The mark of a database, if it has one."""
    with translated_errors(f"looking at database {database}"):
        comment = fetch_value(connection, _COMMENT[0], [database])
    found = _LINE.search(comment or "")
    try:
        return RetryMarker(**json.loads(found[1])) if found else None
    except (ValueError, TypeError):  # somebody's own
        return None


def set_marker(run: RestoreContext, database: ConnectionParams, mark: RetryMarker | None) -> None:
    """Mark a database, or remove the marker that came with a comment. A failure is a warning: nothing else needs it.

    :raises Canceled: the run was.
    """
    line = f"airflow-pgbackup: {json.dumps(asdict(mark))}" if mark else ""
    with session(database, run.cancel) as connection:
        try:
            comment = fetch_value(connection, _COMMENT[0], [database.dbname]) or ""
            text = "\n".join(filter(None, [_LINE.sub("", comment), line]))
            if text != comment:
                connection.execute("SELECT pg_catalog.set_config('pgbackup.comment', %s, false)", [text])
                connection.execute(_COMMENT[1])
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.Error as error:
            run.warn(f"a retry will not see that this is done: cannot comment on the database: {server_message(error)}")
