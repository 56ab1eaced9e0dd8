"""Control who may connect to the new database: until the swap only our role and superusers, then the roles that could
connect to the old one."""

from __future__ import annotations

from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import Session, translated_errors
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, quoted
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded


def close_to_others(connection: Session, name: str) -> None:
    """Admit only our own role to a database that was created with ``ALLOW_CONNECTIONS = false``.

    Superusers and members of our role, which have its privileges anyway, cannot be kept out.
    """
    with translated_errors(f"revoking CONNECT on {name}"):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(Identifier(name)))
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(Identifier(name)))


def give_access(connection: Session, database: str, own: DatabaseProperties) -> None:
    """Give a database the owner, privileges and limits of another one. Runs in the caller's transaction.

    :param own: of the other database.
    """
    if own.owner:
        connection.execute(encoded(f"ALTER DATABASE {quoted(database)} OWNER TO {quoted(own.owner)}"))
    # pg_dump writes what differs from the privileges of a new database.
    connection.execute(encoded(f"GRANT CONNECT, TEMPORARY ON DATABASE {quoted(database)} TO PUBLIC"))
    for statement in own.others:
        if not is_description(statement.verb):
            connection.execute(encoded(statement.about(database)))


def is_description(verb: str) -> bool:
    """Return whether a statement sets a comment or security label, which grants no access."""
    return verb.startswith(("COMMENT ", "SECURITY "))
