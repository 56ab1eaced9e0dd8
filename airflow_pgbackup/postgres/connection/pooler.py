"""Detect a connection pooler between this worker and the server.

PostgreSQL sends each client the id of its server process, for cancel requests; a pooler sends an invented one. In
transaction mode, two sessions get the same server process, or one session gets different ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import psycopg

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

if TYPE_CHECKING:
    from typing_extensions import LiteralString

Mode = Literal["session", "transaction", "statement"]

_PID: LiteralString = "select pg_catalog.pg_backend_pid()"

DIRECT_HINT = (
    "Connect to PostgreSQL directly, by its own host and port (Supabase, Neon: the direct connection, not the pooled "
    "one), or to a pool in session mode."
)


def is_pooled(session: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler is between this session and its server.

    :raises psycopg.Error: the query failed.
    """
    return session.execute(_PID).fetchone() != (session.info.backend_pid,)


def pooler_mode(connection: ConnectionParams) -> Mode | None:
    """Return the mode of the pooler between this worker and the server; None if there is none. Opens two sessions.

    :raises ConnectError: a session cannot be opened; the role may be limited to one.
    :raises psycopg.Error: a query failed.
    """
    with connection.connect() as one, connection.connect() as two:
        first = one.execute(_PID).fetchone()
        try:
            two.execute("begin")
        except psycopg.Error:  # PgBouncer: "transaction blocks not allowed in statement pooling mode"
            if is_pooled(one):
                return "statement"
            raise
        other = two.execute(_PID).fetchone()
        again = one.execute(_PID).fetchone()
        if first == other or first != again:
            return "transaction"
        return "session" if first != (one.info.backend_pid,) else None


def refuse_pooler(connection: ConnectionParams, mode: Mode) -> ConfigurationError:
    """Return the error for a pooler through which no dump is made."""
    return ConfigurationError(f"{connection.label} is {described(mode)}", hint=DIRECT_HINT)


def described(mode: Mode) -> str:
    """Return a pooler and what it does to a dump, for messages."""
    if mode == "session":
        return (
            "a connection pooler: a dump occupies one of its connections until it ends, and may exceed its time limits"
        )
    return (
        f"a connection pooler in {mode} mode: session settings of the dump, such as search_path, would end up in other "
        "sessions, and theirs in the dump's"
    )
