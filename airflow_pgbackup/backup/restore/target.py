"""Where a restore goes: what is asked for, and what that server and database are like before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value, session, translated_errors
from airflow_pgbackup.backup.databases.user_objects import user_objects
from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel

MODES = {
    "into_empty": "a database that is there and has no objects of users",
    "into_existing": "a database that is there, beside what it holds, in one transaction",
    "create": "a database that is not there yet",
    "replace": "a new database, which then takes the place of the one that is there",
}

# createdb's own choices (src/bin/scripts/common.c), where to be while another database is made, renamed or dropped.
_MAINTENANCE = ("postgres", "template1")


@dataclass(frozen=True, kw_only=True)
class RestoreTarget:
    """What is asked for.

    :param connection: the server; its database is the target. For a cluster backup: any database of it, from which
        the work is done.
    :param mode: one of :data:`MODES`.
    :param keep_old: with ``replace``: keep what was there under a dated name; False drops it after the swap.
    :param terminate_sessions: end the sessions of others in the database whose place is taken; False refuses, at the
        start where there are any, at the swap where some have come.
    :param maintenance_database: where to be meanwhile; None tries ``postgres``, then ``template1``.
    :param allow_older_server: restore a dump of a newer major version into an older one, which PostgreSQL does not
        promise to work.
    """

    connection: ConnectionParams
    mode: str = "into_empty"
    keep_old: bool = True
    terminate_sessions: bool = True
    maintenance_database: str | None = None
    allow_older_server: bool = False

    @property
    def database(self) -> str:
        return self.connection.dbname

    def validate(self) -> None:
        """:raises ConfigurationError: an unknown mode; no database named."""
        if self.mode not in MODES:
            raise ConfigurationError(f"mode is {self.mode!r}", hint=f"choose one of {', '.join(map(repr, MODES))}")
        if not self.database:
            raise ConfigurationError(
                f"no database is named for {self.connection.label}",
                hint="set the connection's schema (its database), or database=",
            )
        if len(self.database.encode()) > 63:
            raise ConfigurationError(f"the name {self.database!r} is longer than PostgreSQL's 63 bytes")

    def maintenance(self, cancel: Cancel | None = None) -> ConnectionParams:
        """The database to be in while the target is made, renamed or dropped: one that admits us.

        :raises ConnectError: none does.
        """
        names = [self.maintenance_database] if self.maintenance_database else list(_MAINTENANCE)
        error: ConnectError | None = None
        for name in names:
            if name == self.database:
                continue
            params = self.connection.with_database(name)
            try:
                with session(params, cancel):
                    return params
            except ConnectError as refused:
                error = error or refused
        if error is None:
            raise ConfigurationError(
                f"maintenance_database is {self.maintenance_database!r}, the target itself",
                hint="name another database of that server, one that always exists",
            )
        raise ConnectError(
            error.message, hint=error.hint or "name a database that admits this user in maintenance_database"
        )


def require_empty(connection: Session, label: str) -> None:
    """:raises ConfigurationError: users have made something in there; names some of it."""
    with translated_errors(f"looking into {label}"):
        objects = user_objects(connection)
    if objects:
        raise ConfigurationError(
            f"{label} is not empty: {_some(objects)}",
            hint="restore with mode='create' under another name, with mode='replace' to take its place, "
            "or drop what is in it",
        )


def require_replaceable(connection: Session, server: ServerInfo, target: RestoreTarget) -> None:
    """Look at a database that is to be renamed away.

    :raises ConfigurationError: what would make the rename fail after the whole restore.
    """
    name = target.database
    with translated_errors(f"looking at database {name}"):
        row = connection.execute(
            "SELECT datistemplate, pg_catalog.pg_has_role(datdba, 'USAGE'), pg_catalog.pg_get_userbyid(datdba) "
            "FROM pg_catalog.pg_database WHERE datname = %s",
            [name],
        ).fetchone()
        prepared = fetch_value(
            connection, "SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = %s", [name]
        )
        others = sessions_in(connection, list(oids_of(connection, [name]).values()))
    assert row is not None  # noqa: S101  the caller has seen the database
    template, may_use, owner = row
    if template:
        raise ConfigurationError(
            f"database {name} is a template",
            hint="ALTER DATABASE … IS_TEMPLATE = false, if it really is to be replaced",
        )
    if not may_use:
        raise ConfigurationError(
            f"{server.user} may not rename database {name}: {owner} owns it",
            hint=f"connect as its owner or a superuser, or GRANT {owner} TO {server.user}",
        )
    if prepared:
        raise ConfigurationError(
            f"database {name} has {prepared} prepared transactions, and cannot be renamed as long as it has",
            hint="see pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED each",
        )
    stay = [other for other in others if not target.terminate_sessions or not other.may_end]
    if stay:
        raise ConfigurationError(
            f"database {name} is in use: {_some([str(other) for other in stay])}",
            hint="set terminate_sessions, or end them"
            if not target.terminate_sessions
            else f"{server.user} may not end these sessions: GRANT pg_signal_backend, or connect as a superuser",
        )


@dataclass(frozen=True)
class Other:
    """A session of somebody else."""

    pid: int
    user: str
    application: str
    may_end: bool

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user}" + (f" ({self.application})" if self.application else "")


def sessions_in(connection: Session, oids: Sequence[int]) -> list[Other]:
    """Client sessions in these databases, but for our own."""
    rows = connection.execute(
        "SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), me.rolsuper "
        "OR pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR NOT they.rolsuper "
        "AND pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') "
        "FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_roles AS they ON they.oid = a.usesysid "
        "JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user "
        "WHERE a.datid = ANY(%s::oid[]) AND a.pid <> pg_catalog.pg_backend_pid()",
        [list(oids)],
    )
    return [Other(*row) for row in rows]


def oids_of(connection: Session, databases: Sequence[str]) -> dict[str, int]:
    """A database's name may be another's in a moment; its number stays."""
    query = "SELECT datname, oid FROM pg_catalog.pg_database WHERE datname = ANY(%s)"
    return dict(connection.execute(query, [list(databases)]).fetchall())


def staying(connection: Session, database: str) -> list[str]:
    """What belongs to the old database, and stays with it when another takes its name."""
    slots = fetch_column(
        connection, "SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = %s", [database]
    )
    subscriptions = fetch_column(
        connection,
        "SELECT s.subname FROM pg_catalog.pg_subscription AS s "
        "JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid WHERE d.datname = %s",
        [database],
    )
    return [f"replication slot {name}" for name in slots] + [f"subscription {name}" for name in subscriptions]


def has_public(connection: Session) -> bool:
    return bool(fetch_value(connection, "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = 'public'"))


def _some(things: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(things) - limit} more" if len(things) > limit else ""
    return ", ".join(things[:limit]) + more
