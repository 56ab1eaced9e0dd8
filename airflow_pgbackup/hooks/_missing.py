"""The error for a connection that Airflow does not find."""

from __future__ import annotations

from airflow_pgbackup.errors import ConfigurationError


def no_connection(conn_id: str, hint: str) -> ConfigurationError:
    """Return the error. A retry may help: a secrets backend that does not answer looks the same."""
    return ConfigurationError(f"Airflow finds no connection {conn_id!r}", hint=hint, retry="later")
