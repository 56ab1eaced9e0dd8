"""Sessions in which the owner of a database cannot choose what our statements mean, and so run code as our role.

An owner can set search_path for the database, to schemas before pg_catalog; and whoever may create in a schema of the
path can add an operator that fits the arguments better than that of pg_catalog. With an empty path, only pg_catalog and
the session's own temporary tables are searched. As pg_dump, we set it by the first statement, which names the schema of
all that it uses: a startup parameter is refused by PgBouncer.
https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH

A superuser's session also gets messages in English, on whose text hints and retries depend. Other roles may not set
that, and as a startup parameter it would end their sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.pooler import Mode, Server, pooler_mode, refuse_pooler
from airflow_pgbackup.postgres.connection.server_errors import server_hint, server_message

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_PIN: LiteralString = """
SELECT pg_catalog.set_config('search_path', '', false),
       CASE WHEN pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'
            THEN pg_catalog.set_config('lc_messages', 'C', false) END
"""
# Not in a session of other clients, which a pooler lends for one statement.
_PIN_IF_OURS: LiteralString = _PIN + " WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %s::pg_catalog.int4"


def open_session(params: Server) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a session in autocommit mode with an empty search_path.

    :raises ConnectError: the server cannot be reached, or refuses the connection.
    :raises MixedSessions: there is a connection pooler between, in transaction or statement mode. Our search_path would
        end up in the sessions of others.
    """
    session = params.connect()
    if _pin(params, session, _PIN_IF_OURS, session.info.backend_pid):
        return session
    session.close()  # a pool may be small
    mode = _mode(params)
    if mode in ("transaction", "statement"):
        raise refuse_pooler(params, mode)
    session = params.connect()
    _pin(params, session, _PIN)
    return session


def _pin(params: Server, session: psycopg.Connection[Any], statement: LiteralString, *values: object) -> bool:
    """Return whether the statement has set search_path. After an error the session is closed."""
    try:
        row = session.execute(statement, values or None).fetchone()
    except psycopg.Error as error:
        session.close()
        raise ConnectError(
            f"cannot connect to {params.label}: {server_message(error)}", hint=server_hint(error)
        ) from None
    except BaseException:
        session.close()
        raise
    return row is not None and row[0] is not None


def _mode(params: Server) -> Mode | None:
    try:
        return pooler_mode(params)
    except (ConnectError, psycopg.Error):
        return None  # the role or the pool allows one session only, so no other session can get its server process
