"""Make the grants of a dump as the roles that made them there, so that PostgreSQL records these as the grantors.

``GRANTED BY`` accepts only the current user for a database, tablespace or parameter, so each grant has a ``SET LOCAL
SESSION AUTHORIZATION`` of its own, which is reset after the grant, also where that fails.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.passed_on import PassedOnGrant
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded

_IS_SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = %s"
_MAY_SET_SESSION_AUTHORIZATION = """
SELECT r.rolsuper AND session_user = current_user FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user
"""
_NOT_GRANTED = "01007"  # warning_privilege_not_granted


class _CannotGrant(Exception):
    pass


def apply_statement(
    connection: Session, statement: DatabaseStatement, database: str, warn: Callable[[str], None]
) -> None:
    """Run a statement about a database for one of another name.

    :raises psycopg.Error: it failed.
    """
    text = statement.about(database)
    if statement.grantor:
        grant = PassedOnGrant(statement.grantor, text)
        make_grant(connection, grant, warn, described=statement.about(statement.database))
    else:
        connection.execute(encoded(text))


def make_grant(connection: Session, grant: PassedOnGrant, warn: Callable[[str], None], *, described: str = "") -> None:
    """Make a grant as its role, or as the user of the connection, with a warning, if that role cannot.

    :param described: the grant in the warning; its statement if empty.
    :raises psycopg.Error: the user of the connection cannot either.
    """
    try:
        _grant_as_role(connection, grant)
    except _CannotGrant as reason:
        connection.execute(encoded(grant.statement))
        text = (described or grant.statement).rstrip(";")
        warn(f'role "{grant.grantor}" is not the grantor of {text}: {reason}; the owner is recorded instead')


def _grant_as_role(connection: Session, grant: PassedOnGrant) -> None:
    """Make a grant as its role.

    :raises _CannotGrant: why nothing was granted.
    """
    if not fetch_value(connection, _MAY_SET_SESSION_AUTHORIZATION):
        raise _CannotGrant("the user of the connection is not a superuser")
    superuser = fetch_value(connection, _IS_SUPERUSER, [grant.grantor])
    if superuser is None:
        raise _CannotGrant("the role does not exist")
    if superuser:
        raise _CannotGrant("the role is a superuser, whose grants are the owner's")
    refused: list[str | None] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate == _NOT_GRANTED:
            refused.append(diagnostic.message_primary)

    connection.add_notice_handler(note)
    try:
        with connection.transaction():
            connection.execute("SET LOCAL client_min_messages = warning")
            role = Identifier(grant.grantor)
            connection.execute(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(role))
            connection.execute(encoded(grant.statement))
            connection.execute("RESET SESSION AUTHORIZATION")
            if refused:
                raise _CannotGrant("the role has no grant option for it")
    except psycopg.errors.InsufficientPrivilege:
        raise _CannotGrant("the role has no grant option for it") from None
    finally:
        connection.remove_notice_handler(note)
