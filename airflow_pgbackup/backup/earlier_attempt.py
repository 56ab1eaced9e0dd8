"""Find the backup of an earlier attempt of a task whose server cannot be asked which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.source_identity import identity_of, seed_for
from airflow_pgbackup.backup.reference import find_committed
from airflow_pgbackup.errors import BackupNotFound, Canceled, ConnectError, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import Series, parse_backup_id

_FOLDERS = 10  # the newest ones


def find_without_server(
    repository: Repository, series: Series, connection: ConnectionParams, context: RunContext, error: ConnectError
) -> Evidence | None:
    """Return the backup that an earlier attempt of the same task committed before its server could not be reached.

    The seed of a backup contains the system identifier of its server, so that no deployment takes the backup of another
    one with the same names. Here the identifier comes from the newest backups of the series, provided that they agree
    on it. This works only for a task whose run has a start time, which its seed contains to the microsecond.

    :param error: why the server cannot be asked. An error of the repository is logged, as this one is more important.
    :return: None if there is no such backup, or if it is not certain.
    :raises Canceled: asked to stop.
    """
    if context.seed is None or context.not_before is None:
        return None
    try:
        ids = repository.folders(series.path)
        system = _only_server(repository, series, ids)
        if system is None:
            return None
        seed = seed_for(context.seed, identity_of(connection, system))
        found = find_committed(repository, series, seed, ids=ids, not_before=context.not_before)
    except Canceled:
        raise
    except PgBackupError as failure:
        context.log(f"cannot look for a backup of an earlier attempt of this task: {failure.message}")
        return None
    if found is not None:
        context.log(f"warning: {error.message}")
        context.log(
            f"backup {found.backup.id} was committed by an earlier attempt of this task; no connection is needed"
        )
    return found


def _only_server(repository: Repository, series: Series, ids: Sequence[str]) -> str | None:
    """Return the system identifier that the newest backups of a series have; None if it is unknown or they differ."""
    found = set[str | None]()
    for id in islice((id for id in reversed(ids) if parse_backup_id(id)), _FOLDERS):
        try:
            found.add(read_manifest(repository, series, id).source.system_identifier)
        except BackupNotFound:  # a dump that was killed
            continue
    return found.pop() if len(found) == 1 else None
