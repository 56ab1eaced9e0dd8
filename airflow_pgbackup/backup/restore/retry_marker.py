"""The marker that a restore leaves on the database, by which a retry sees that the restore is complete.

The result of a successful task can be lost. Its retry would replace the database again, and with it what applications
have written since; or it would fail, as the database exists. So the comment of the restored database gets a line: the
request, the backup, and the name of the old database. If the restore ends with a rename, the line is written before the
rename and takes effect with it, because the comment belongs to the database. If a database is filled in place, the line
is written three times: before the tool starts, as "begun"; while the tool runs, with the number of its transaction; and
after the commit. After an attempt that was killed in between, the server knows whether that transaction was committed.
The next restore of that database removes the line.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, session, translated_errors
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.server_errors import server_message

# Each line is tried once, from its beginning: a comment is a user's text of any size.
# A refresh marks earlier copies with "kept".
_LINE = re.compile(r"(?:\A|\n)airflow-pgbackup: (?:kept )?(\{.*\})\Z")
_COMMENT = (
    "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = %s",
    # COMMENT takes no parameters, and quoting on the client would depend on the encoding.
    "DO $$ BEGIN EXECUTE pg_catalog.format('COMMENT ON DATABASE %I IS %L', pg_catalog.current_database(), "
    "nullif(pg_catalog.current_setting('pgbackup.comment'), '')); END $$",
)


@dataclass(frozen=True)
class RetryMarker:
    """What the marker says.

    :param request: digest of the request, see :func:`request_digest`.
    :param series: the path of the backup's series in the repository; `id` is the backup's.
    :param replaced: the new name of the old database, empty if there was none; `oid` is its OID.
    :param begun: the restore into the empty database has begun.
    :param transaction: the one that fills it, as txid_current() returns it; 0 if it is not known.
    """

    request: str
    series: str
    id: str
    replaced: str
    oid: int
    begun: bool = False
    transaction: int = 0

    @property
    def is_valid(self) -> bool:
        """Whether the fields have their types: a user can write any comment."""
        texts = (self.request, self.series, self.id, self.replaced)
        numbers = (self.oid, self.transaction)
        return all(isinstance(each, str) for each in texts) and all(isinstance(each, int) for each in numbers)

    @property
    def line(self) -> str:
        fields = asdict(self)
        if not self.begun:  # earlier versions do not know them
            del fields["begun"], fields["transaction"]
        return f"airflow-pgbackup: {json.dumps(fields)}"


def request_digest(request: str) -> str:
    """Return the digest of a request for the marker: a comment is visible to every user."""
    return hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def find_marker(connection: Session, database: str) -> RetryMarker | None:
    """Return the marker of a database, None if it has none."""
    with translated_errors(f'reading the comment of database "{database}"'):
        comment = fetch_value(connection, _COMMENT[0], [database])
    found = _LINE.search(comment or "")
    try:
        marker = RetryMarker(**json.loads(found[1])) if found else None
    except (ValueError, TypeError, RecursionError):  # a user's own comment
        return None
    return marker if marker and marker.is_valid else None


def unmarked(comment: str) -> str:
    """Return a comment without the marker of a restore or refresh."""
    return _LINE.sub("", comment)


def set_marker(run: RestoreContext, database: ConnectionParams, marker: RetryMarker | None) -> bool:
    """Mark a database, or remove the marker that it has or that was restored with its comment.

    :return: False if that failed, which is a warning.
    :raises Canceled: the restore was canceled.
    """
    with session(database, run.cancel) as connection:
        try:
            write_marker(connection, database.dbname, marker)
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.Error as error:
            run.warn(f"a retry cannot know that the restore is complete: {server_message(error)}")
            return False
    return True


def write_marker(connection: Session, database: str, marker: RetryMarker | None) -> None:
    """Write or remove the marker of the connected database, as :func:`set_marker` does.

    :raises psycopg.Error: that failed.
    """
    comment = fetch_value(connection, _COMMENT[0], [database]) or ""
    text = "\n".join(filter(None, [unmarked(comment), marker.line if marker else ""]))
    if text != comment:
        with connection.transaction():  # a pooler may give each transaction another session
            connection.execute("SELECT pg_catalog.set_config('pgbackup.comment', %s, true)", [text])
            connection.execute(_COMMENT[1])
