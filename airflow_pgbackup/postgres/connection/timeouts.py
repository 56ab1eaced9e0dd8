"""The timeouts of a role or database, which end sessions: turned off, as pg_dump does for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_SINCE = {
    "statement_timeout": 0,
    "lock_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 14,
    "transaction_timeout": 17,
}
"""Each with the first major version of servers that know it: older ones reject it."""


def disable_timeouts(session: psycopg.Connection[Any], *, local: bool = False) -> None:
    """Turn off the timeouts that the server knows.

    :param local: until the end of the transaction; else for the session.
    """
    session.execute(
        "SELECT pg_catalog.set_config(name, '0', %s) FROM pg_catalog.pg_settings "
        "WHERE name OPERATOR(pg_catalog.=) ANY (%s::text[])",
        [local, list(_SINCE)],
    )


def no_timeouts(server_major: int) -> str:
    """Return what turns the timeouts off in PGOPTIONS.

    :param server_major: major version of the server, which rejects a session with a parameter that it does not know.
    """
    return " ".join(f"-c {name}=0" for name, since in _SINCE.items() if server_major >= since)
