"""Keep a restore from firing the event triggers that it creates, see :mod:`~.postgres.definitions.event_triggers`.

Those on login would also run in each session in which the restored database is counted, analyzed and marked.
"""

from __future__ import annotations

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import without_event_triggers
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.capabilities import has_login_triggers


def without_fired_triggers(
    run: RestoreContext, server: ServerInfo, params: ConnectionParams, *, fires: bool
) -> ConnectionParams:
    """Return a connection to a new or empty database in which the restore does not fire the dump's event triggers.

    If the server or the role allows no such connection, log a warning.

    :param fires: the dump has event triggers that a restore fires.
    """
    if server.superuser and has_login_triggers(server.major):
        return without_event_triggers(params)
    if fires:
        run.warn(
            "the restore fires event triggers of the dump when it fills materialized views: they may reject that, or "
            "write rows that the source did not have; to prevent it, disable them in the source before a dump, or "
            "restore into PostgreSQL 17 or newer as a superuser"
        )
    return params
