"""A read-only session that inspects one database, and reports what it cannot read as findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# With names of the database before those of pg_catalog, as it has neither operators nor names without a schema.
_VISIBLE: LiteralString = "select c.oid from pg_catalog.pg_class as c where pg_catalog.pg_table_is_visible(c.oid)"
_QUERY_TIMEOUT = "30s"  # the queries read catalogs only: one that takes longer waits for a lock
_LOST = "See the server's log for the reason the session ended."


class InspectedDatabase:
    """A database that is being inspected, in one read-only transaction."""

    def __init__(
        self, session: psycopg.Connection[Any], name: str, findings: Findings, cancel: Cancel | None = None
    ) -> None:
        self._session = session
        self._cancel = cancel
        self.name = name
        self.findings = findings

    @property
    def server_major(self) -> int:
        return self._session.info.server_version // 10000

    @property
    def where(self) -> str:
        return f'database "{self.name}"'

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query that pg_dump runs in some form too.

        If the user lacks the privilege, that is an error finding, and no rows are returned.

        :raises psycopg.OperationalError: the connection was lost, or the query timed out.
        """
        try:
            return self._fetch(query, values)
        except psycopg.OperationalError:
            raise
        except (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter) as error:
            self.warning(
                "encoding",
                f"{self.where}: cannot read a system catalog, because it holds a name that is not valid in this "
                f"database's encoding: {server_message(error)}",
                "Connect to a database in SQL_ASCII, find the name, and run ALTER ROLE or ALTER DATABASE ... RENAME "
                "TO.",
            )
            return []
        except psycopg.Error as error:
            self.error(
                "catalog",
                f"{self.where}: cannot read the system catalogs: {server_message(error)}",
                "pg_dump reads all system catalogs: GRANT back what was revoked in schema pg_catalog.",
            )
            return []

    def optional_rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query that pg_dump itself does not need.

        If the user lacks the privilege, no rows are returned; if the query fails for another reason, that is a
        warning.
        """
        try:
            return self._fetch(query, values)
        except psycopg.errors.InsufficientPrivilege:
            return []
        except (psycopg.errors.QueryCanceled, psycopg.ProgrammingError, psycopg.DataError) as error:
            if self._cancel:
                self._cancel.check()
            self.warning(
                "catalog",
                f"{self.where}: one of the checks for restorability failed: {server_message(error)}",
                "The other findings are valid. Report this one together with the server's version.",
            )
            return []

    def visible_relations(self) -> list[int]:
        """Return the OIDs of the relations that the user's own search_path finds without a schema.

        The query is the same with any path. If it fails for another reason than a lost connection, none are returned.

        :raises psycopg.OperationalError: the connection was lost, or the query timed out.
        """
        if self._cancel:
            self._cancel.check()
        try:
            with self._session.transaction(force_rollback=True):
                self._session.execute("RESET search_path")
                return [oid for (oid,) in self._session.execute(_VISIBLE)]
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            return []

    def has_row(self, query: str) -> bool:
        """Return whether a query returns a row.

        :param query: of names and expressions that the server itself has quoted.
        :return: False also if the user lacks the privilege, or PostgreSQL cannot plan the query.
        :raises psycopg.DataError: an expression fails for a row.
        :raises psycopg.InternalError: the table or index is corrupt.
        :raises psycopg.OperationalError: the server lacks time or space for the query, cannot read a file, or the
            connection was lost.
        """
        if self._cancel:
            self._cancel.check()
        try:
            with self._session.transaction():
                return self._session.execute(encoded(query)).fetchone() is not None
        except (psycopg.OperationalError, psycopg.DataError, psycopg.InternalError):
            raise
        except psycopg.Error:
            return False

    def _fetch(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        if self._cancel:
            self._cancel.check()
        with self._session.transaction():
            return self._session.execute(query, values or None).fetchall()

    def error(self, code: str, message: str, hint: str, objects: Sequence[str] = ()) -> None:
        self.findings.error(code, message, hint, objects, self.name)

    def warning(self, code: str, message: str, hint: str, objects: Sequence[str] = ()) -> None:
        self.findings.warning(code, message, hint, objects, self.name)


@contextmanager
def inspect_database(
    connection: ConnectionParams, findings: Findings, *, role: str | None = None, cancel: Cancel | None = None
) -> Iterator[InspectedDatabase]:
    """Open a session that inspects a database, in one snapshot.

    :param role: the role that the dump switches to with ``SET ROLE``.
    :raises ConnectError: the server cannot be reached, or the connection was lost.
    :raises Canceled: `cancel` was set, which also ends the running query.
    """
    with connection.open_session() as session:
        unregister = cancel.on_set(lambda: interrupt(session, last=True)) if cancel else lambda: None
        try:
            with session.transaction():
                session.execute("set transaction isolation level repeatable read, read only")
                disable_timeouts(session, local=True)
                session.execute("select pg_catalog.set_config('statement_timeout', %s, true)", (_QUERY_TIMEOUT,))
                if role is not None:
                    _set_role(session, role, findings)
                yield InspectedDatabase(session, connection.dbname, findings, cancel)
        except psycopg.Error as error:
            if cancel:
                cancel.check()
            message = server_message(error)
            raise ConnectError(f"{connection.label}: {message}", hint=hint_for(message) or _LOST) from None
        finally:
            unregister()


def _set_role(session: psycopg.Connection[Any], role: str, findings: Findings) -> None:
    try:
        with session.transaction():
            session.execute("select pg_catalog.set_config('role', %s, true)", (role,))
    except psycopg.errors.Error as error:
        findings.error(
            "role",
            f'the connection\'s user cannot switch to role "{role}": {server_message(error)}',
            "Create the role, GRANT it TO the user, or leave the option role out.",
            (role,),
        )
