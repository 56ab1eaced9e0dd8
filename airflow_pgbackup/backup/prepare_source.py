"""Checks of the source right before a dump, and the changes to its options that a managed service requires."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import psycopg

from airflow_pgbackup.backup.databases.cluster_omissions import find_omissions
from airflow_pgbackup.backup.databases.server_limits import ServerLimits
from airflow_pgbackup.backup.source import Source
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.pooler import described, pooler_mode, refuse_pooler
from airflow_pgbackup.postgres.options import DumpAllOptions


def check_source(
    connection: ConnectionParams, source: Source, log: Callable[[str], None], *, max_replay_lag: float | None
) -> None:
    """Check that the source can be dumped now; log what its dump will lack elsewhere.

    :param max_replay_lag: for a standby, in seconds; None for any.
    :raises ConfigurationError: a pooler is between this worker and the server that would mix sessions.
    :raises ReplayLagError: a standby is too far behind its primary.
    """
    if source.pooled:
        _check_pooler(connection, log)
    if source.replay is not None:
        if max_replay_lag is not None:
            source.replay.require_at_most(max_replay_lag, connection.label)
        log(f"{connection.label} is a standby; replay lag: {source.replay}")
    if source.limits.service:
        log(f"{connection.label} is on {source.limits.service.name}")
        if source.tables is None and source.limits.service_roles:
            roles = ", ".join(source.limits.service_roles)
            log(f"roles of the service are in the dump; drop them after a restore elsewhere: {roles}")
    for line in source.limits.missing_elsewhere(source.extensions):
        log(f"a restore elsewhere lacks {line}")


def find_left_out(connection: ConnectionParams, options: DumpAllOptions, log: Callable[[str], None]) -> tuple[str, ...]:
    """Return what pg_dumpall will leave out of the cluster without saying so. Each part is logged as a warning.

    :raises ConnectError: the server is unreachable, or a query failed.
    """
    found = find_omissions(connection, options)
    for each in found:
        log(f"warning: left out: {each.what}" + (f"; {each.hint}" if each.hint else ""))
    return tuple(each.what for each in found)


def _check_pooler(connection: ConnectionParams, log: Callable[[str], None]) -> None:
    try:
        mode = pooler_mode(connection)
    except (ConnectError, psycopg.Error):
        return  # the role or the pool allows one session only, so no other session can get its server process
    if mode == "session":
        log(f"warning: {connection.label} is {described(mode)}")
    elif mode is not None:
        raise refuse_pooler(connection, mode)


def fit_options(
    options: DumpAllOptions, limits: ServerLimits, log: Callable[[str], None]
) -> tuple[DumpAllOptions, tuple[str, ...]]:
    """Return the options with which pg_dumpall can dump a managed service, and what they leave out.

    Each change is logged. The options of an ordinary server are returned unchanged.
    """
    if limits.service is None:
        return options, ()
    left_out = limits.left_out()
    if options.globals_only or options.roles_only or options.tablespaces_only:
        left_out = [line for line in left_out if not line.startswith("database ")]
    else:
        databases = [name for name in limits.service_databases if name not in options.exclude_databases]
        options = dataclasses.replace(options, exclude_databases=[*options.exclude_databases, *databases])
    if options.tablespaces_only:
        left_out = []
    elif not limits.role_passwords:
        options = dataclasses.replace(options, no_role_passwords=True)
    for line in left_out:
        log(f"left out: {line}")
    return options, tuple(left_out)
