"""Warn of a dump into a series whose newest backup is of another server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from airflow_pgbackup.errors import BackupNotFound, Canceled, PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.layout import Series, parse_backup_id
from airflow_pgbackup.repository.manifest import DatabaseSource, Manifest
from airflow_pgbackup.wording import parameter

_FOLDERS = 3  # the newest ones may be of dumps that were killed, which have no manifest
_HOST = 255  # characters that a message has of a host: a manifest may be forged


def warn_of_other_server(
    repository: Repository,
    series: Series,
    source: DatabaseSource,
    log: Callable[[str], None],
    *,
    ids: Sequence[str] | None = None,
) -> None:
    """Log a warning if the newest backup of a series has another system identifier than the source of a new one.

    A standby has the identifier of its primary. Where either is not known, nothing is logged. No error of the store is
    raised: a backup does not fail because the one before it cannot be read.

    :param ids: the series' folders, sorted; by default they are listed.
    :raises Canceled: asked to stop.
    """
    if source.system_identifier is None:
        return
    try:
        newest = _newest(repository, series, repository.folders(series.path) if ids is None else ids)
    except Canceled:
        raise
    except PgBackupError as error:
        log(f"cannot tell which server the newest backup of {series} is from: {error.message}")
        return
    if newest is None or newest.source.system_identifier in (None, source.system_identifier):
        return
    log(
        f"warning: the newest backup of {series}, {newest.id}, is of another server: it has system identifier "
        f"{_server(newest.source)}, this server has {_server(source)}"
    )
    log(
        "hint: If two servers write this series, retention and freshness mix their backups: give each server its own "
        f"repository, prefix or {parameter('server')}. Expect this once after a migration, a restore into a new server "
        "or pg_upgrade."
    )


def _newest(repository: Repository, series: Series, ids: Sequence[str]) -> Manifest | None:
    for id in islice((id for id in reversed(ids) if parse_backup_id(id)), _FOLDERS):
        try:
            return read_manifest(repository, series, id)
        except BackupNotFound:
            continue
    return None


def _server(source: DatabaseSource) -> str:
    return f"{source.system_identifier} (host {source.host[:_HOST]})" if source.host else f"{source.system_identifier}"
