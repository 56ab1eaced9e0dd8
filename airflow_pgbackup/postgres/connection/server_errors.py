"""What the server says in an error, for messages of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_pgbackup.postgres.connection.hints import hint_for

if TYPE_CHECKING:
    import psycopg


def server_message(error: psycopg.Error) -> str:
    """Return the primary message of an error as one line, without a final period."""
    return (" ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__).rstrip(".")


def server_hint(error: BaseException, default: str = "Check the server and its log.") -> str:
    """Return a hint for the error, or `default`."""
    return hint_for(str(error)) or default
