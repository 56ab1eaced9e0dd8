"""Detect a connection pooler between this worker and the server.

PostgreSQL sends each client the id of its server process, for cancel requests; a pooler sends an invented one. In
transaction mode, two sessions get the same server process, or one session gets different ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import psycopg

from airflow_pgbackup.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import LiteralString

Mode = Literal["session", "transaction", "statement"]

_PID: LiteralString = "select pg_catalog.pg_backend_pid()"

DIRECT_HINT = (
    "Connect to PostgreSQL directly, by its own host and port (Supabase, Neon: the direct connection, not the pooled "
    "one), or to a pool in session mode."
)


class Server(Protocol):
    """Connection parameters, as far as they are needed here: their module imports this one."""

    @property
    def label(self) -> str: ...

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]: ...


class MixedSessions(ConfigurationError):
    """A pooler lends server sessions for one transaction or statement, so that settings end up in those of others."""


def is_pooled(session: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler is between this session and its server.

    :raises psycopg.Error: the query failed.
    """
    return session.execute(_PID).fetchone() != (session.info.backend_pid,)


def pooler_mode(connection: Server) -> Mode | None:
    """Return the mode of the pooler between this worker and the server; None if there is none. Opens two sessions.

    Their search_path is not ours: the statements use no operator, and no function without its schema.

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


def refuse_pooler(connection: Server, mode: Mode) -> MixedSessions:
    """Return the error for a pooler through which no dump is made."""
    return MixedSessions(f"{connection.label} is {described(mode)}", hint=DIRECT_HINT)


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
