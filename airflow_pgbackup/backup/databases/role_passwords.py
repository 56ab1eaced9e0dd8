"""Whether a role may read the passwords of roles, which pg_dumpall does unless ``--no-role-passwords`` is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.server_errors import server_hint, server_message

if TYPE_CHECKING:
    from typing_extensions import LiteralString

MAY_READ_PASSWORDS: LiteralString = "select pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'select')"
# Read, because a managed service can refuse it although has_table_privilege() says yes to pg_read_all_data.
_READ: LiteralString = "select rolpassword is null from pg_catalog.pg_authid limit 1"


def may_read_role_passwords(connection: ConnectionParams, role: str | None = None) -> bool:
    """Return whether the user of a connection may read ``pg_authid``. Managed services grant that to no one.

    :param role: the role that the dump assumes with SET ROLE.
    :raises ConnectError: the server is unreachable, or refuses the connection or the role.
    """
    with connection.open_session() as session:
        try:
            if role:
                session.execute("select pg_catalog.set_config('role', %s, false)", [role])
            return reads_role_passwords(session)
        except psycopg.Error as error:
            raise ConnectError(f"{connection.label}: {server_message(error)}", hint=server_hint(error)) from None


def reads_role_passwords(session: psycopg.Connection[Any]) -> bool:
    """Return whether the user of a session can read ``pg_authid``.

    :param session: in autocommit mode.
    :raises psycopg.Error: the query failed for another reason.
    """
    row = session.execute(MAY_READ_PASSWORDS).fetchone()
    if row is None or not row[0]:
        return False  # without an error in the server's log
    try:
        session.execute(_READ)
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True
