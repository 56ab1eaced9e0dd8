"""Conditions that a restore checks on the target before it changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value, translated_errors
from airflow_pgbackup.backup.databases.temporary_database import require_may_own
from airflow_pgbackup.backup.databases.user_objects import user_objects
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import parameter

_NAMED = 5


def require_empty(connection: Session, label: str) -> None:
    """Check that a database has no user objects.

    :param label: names the database in errors.
    :raises ConfigurationError: it has some.
    """
    with translated_errors(f"listing the objects in {label}"):
        objects = user_objects(connection)
    if objects:
        raise ConfigurationError(
            f"{label} is not empty: it has {first_of(objects, _NAMED)}",
            hint="Restore with mode create under another name, with mode replace to replace it, or drop its objects.",
        )


def require_replaceable(connection: Session, server: ServerInfo, target: RestoreTarget) -> None:
    """Check that the target database can be renamed, so that the rename does not fail at the end of the restore.

    :raises ConfigurationError: it cannot.
    """
    name = target.database
    with translated_errors(f'querying database "{name}"'):
        row = connection.execute(
            "SELECT datistemplate, pg_catalog.pg_has_role(datdba, 'USAGE'), pg_catalog.pg_get_userbyid(datdba) "
            "FROM pg_catalog.pg_database WHERE datname = %s",
            [name],
        ).fetchone()
        prepared = fetch_value(
            connection, "SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = %s", [name]
        )
        others = client_sessions(connection, list(database_oids(connection, [name]).values()))
    assert row is not None  # noqa: S101  the caller has checked that it exists
    template, may_use, owner = row
    if template:
        raise ConfigurationError(
            f'database "{name}" is a template database',
            hint="Run ALTER DATABASE ... IS_TEMPLATE = false if it is to be replaced.",
        )
    if not may_use:
        raise ConfigurationError(
            f'user {server.user} may not rename database "{name}", which {owner} owns',
            hint=f"Connect as its owner or a superuser, or run GRANT {owner} TO {server.user}.",
        )
    require_may_own(connection, owner)
    if prepared:
        raise ConfigurationError(
            f'database "{name}" has {counted(prepared, "prepared transaction")}, so it cannot be renamed',
            hint="Run COMMIT PREPARED or ROLLBACK PREPARED for each, see pg_prepared_xacts.",
        )
    remaining = [other for other in others if not target.terminate_sessions or not other.may_end]
    if remaining:
        raise ConfigurationError(
            f'database "{name}" is in use by {first_of([str(other) for other in remaining], _NAMED)}',
            hint=f"End these sessions, or restore with {parameter('terminate_sessions', True)}."
            if not target.terminate_sessions
            else f"User {server.user} may not end these sessions: GRANT pg_signal_backend, or connect as a superuser.",
        )


@dataclass(frozen=True)
class ClientSession:
    """A client session of another program.

    :param may_end: whether our role may terminate it.
    """

    pid: int
    user: str
    application: str
    may_end: bool

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user}" + (f" ({self.application})" if self.application else "")


def client_sessions(connection: Session, oids: Sequence[int]) -> list[ClientSession]:
    """Return the client sessions in databases, except this one.

    :param oids: of the databases.
    """
    rows = connection.execute(
        "SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), me.rolsuper "
        "OR pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR NOT they.rolsuper "
        "AND pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') "
        "FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_roles AS they ON they.oid = a.usesysid "
        "JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user "
        "WHERE a.datid = ANY(%s::oid[]) AND a.pid <> pg_catalog.pg_backend_pid()",
        [list(oids)],
    )
    return [ClientSession(*row) for row in rows]


def database_oids(connection: Session, databases: Sequence[str]) -> dict[str, int]:
    """Return the OIDs of databases by name: a rename changes the name, never the OID."""
    query = "SELECT datname, oid FROM pg_catalog.pg_database WHERE datname = ANY(%s)"
    return dict(connection.execute(query, [list(databases)]).fetchall())


def tied_to_database(connection: Session, database: str) -> list[str]:
    """Return the replication slots and subscriptions that stay with a database when it is renamed."""
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


def has_public_schema(connection: Session) -> bool:
    """Return whether the database has a schema named public."""
    return bool(fetch_value(connection, "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = 'public'"))
