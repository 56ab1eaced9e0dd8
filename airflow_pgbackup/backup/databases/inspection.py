"""A read-only session that inspects one database, and reports what it cannot read as findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.databases.sessions import interrupt
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_QUERY_TIMEOUT = "30s"  # all of it are catalogs; who waits longer waits for a lock on one
_LOST = "the session was lost on the way: the server's log says why"


class InspectedDatabase:
    """One database under inspection: everything is asked in one read-only transaction."""

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
        return f"database {self.name!r}"

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """What a query returns; where this user may not even ask, that is a finding, and there are no rows."""
        try:
            return self._fetch(query, values)
        except psycopg.OperationalError:
            raise
        except (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter) as error:
            self.warning(
                "encoding",
                f"{self.where}: check cannot read a catalog: a name in it does not fit the encoding of this database: "
                f"{error.diag.message_primary}",
                "look for it from a database in SQL_ASCII, and rename it: ALTER ROLE or ALTER DATABASE ... RENAME TO",
            )
            return []
        except psycopg.Error as error:
            said = error.diag.message_primary or str(error)
            self.error(
                "catalog",
                f"{self.where}: the system catalogs cannot be read: {said}",
                "pg_dump reads them all: GRANT back what was revoked in schema pg_catalog",
            )
            return []

    def optional_rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """As :meth:`rows`, for what pg_dump itself need not read.

        Where this user may not ask, nothing is found; what cannot be asked for another reason is a warning.
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
                f"{self.where}: check cannot tell some of what a restore needs: {error.diag.message_primary or error}",
                "The other findings hold; report this one with the version of the server.",
            )
            return []

    def has_row(self, query: str) -> bool:
        """Whether a query, of names and expressions that the server itself has quoted, returns a row.

        :return: False also where this user may not ask, or PostgreSQL cannot plan it.
        :raises psycopg.DataError: an expression cannot be computed for a row.
        :raises psycopg.InternalError: what it reads is broken.
        :raises psycopg.OperationalError: the server has no time or room for it, or is gone.
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
    """A session for looking around, in one snapshot.

    :param role: what the dump would ``SET ROLE`` to.
    :raises ConnectError: not reached, or lost on the way.
    :raises Canceled: `cancel` was set; that ends the query at hand.
    """
    with connection.connect() as session:
        unregister = cancel.on_set(lambda: interrupt(session)) if cancel else lambda: None
        try:
            with session.transaction():
                session.execute("set transaction isolation level repeatable read, read only")
                session.execute("select pg_catalog.set_config('statement_timeout', %s, true)", (_QUERY_TIMEOUT,))
                if role is not None:
                    _set_role(session, role, findings)
                yield InspectedDatabase(session, connection.dbname, findings, cancel)
        except psycopg.Error as error:
            if cancel:
                cancel.check()
            said = " ".join((error.diag.message_primary or str(error)).split())
            raise ConnectError(f"{connection.label}: {said}", hint=hint_for(said) or _LOST) from None
        finally:
            unregister()


def _set_role(session: psycopg.Connection[Any], role: str, findings: Findings) -> None:
    try:
        with session.transaction():
            session.execute("select pg_catalog.set_config('role', %s, true)", (role,))
    except psycopg.errors.Error as error:
        findings.error(
            "role",
            f"the user of the connection cannot become role {role!r}: {error.diag.message_primary or error}",
            "create it, GRANT it TO the user, or leave role out",
            (role,),
        )
