"""Admit others to a new database, which is closed to them until it has its final name."""

from __future__ import annotations

from collections.abc import Callable

from airflow_pgbackup.backup.databases.sessions import Session, translated_errors
from airflow_pgbackup.backup.restore.grantors import apply_statement
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.sql.anybytes import encoded


def give_access(connection: Session, database: str, own: DatabaseProperties, warn: Callable[[str], None]) -> None:
    """Give a temporary database, renamed, its owner, privileges and limits. Runs in the caller's transaction.

    :param own: the properties of the dumped or the old database.
    :param warn: takes what the new database lacks of these.
    :raises RestoreError: the server rejects a statement.
    """
    with translated_errors(f'giving database "{database}" its owner, privileges and limits'):
        if own.owner:
            connection.execute(encoded(f"ALTER DATABASE {quoted(database)} OWNER TO {quoted(own.owner)}"))
        # pg_dump writes what differs from the privileges of a new database.
        connection.execute(encoded(f"GRANT CONNECT ON DATABASE {quoted(database)} TO PUBLIC"))
        for statement in own.access:
            apply_statement(connection, statement, database, warn)
