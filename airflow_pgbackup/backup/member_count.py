"""A dump in directory format has a file for each table and large object, and its manifest lists them all."""

from __future__ import annotations

import psycopg

from airflow_pgbackup.backup.dump_plan import DumpPlan
from airflow_pgbackup.backup.source import Source
from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.server_errors import server_hint, server_message
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.repository import json_document
from airflow_pgbackup.wording import parameter

_LEAST = 150
"""Bytes of the manifest for each file, at least: its name, size and sha256. An encrypted one is listed twice."""


def check_member_count(
    connection: ConnectionParams,
    source: Source,
    options: DumpOptions | DumpAllOptions,
    plan: DumpPlan,
    *,
    encrypted: bool,
) -> None:
    """Refuse a dump whose manifest could not be written at its end. A dump of a part of the database is not checked.

    :raises ConfigurationError: the database has too many tables and large objects for the directory format.
    """
    if plan.format != "directory" or plan.selective or isinstance(options, DumpAllOptions):
        return
    count, most = source.tables or 0, json_document.MAX_BYTES // (_LEAST * (2 if encrypted else 1))
    if options.large_objects is not False:
        count += _large_objects(connection)
    if count > most:
        raise ConfigurationError(
            f"{connection.label} has {count:,} tables and large objects, each a file in directory format; a backup can "
            f"have about {most:,} files{' if it is encrypted' if encrypted else ''}",
            hint=f"Use {parameter('format', 'custom')}, which is one file.",
        )


def _large_objects(connection: ConnectionParams) -> int:
    with connection.open_session() as session:
        try:
            disable_timeouts(session)
            row = session.execute("select count(*) from pg_catalog.pg_largeobject_metadata").fetchone()
        except psycopg.Error as error:
            raise ConnectError(
                f"{connection.label}: cannot count the large objects: {server_message(error)}", hint=server_hint(error)
            ) from None
    return int(row[0]) if row else 0
