"""undelete: restore a backup that was deleted or overwritten, from the versions that a bucket keeps."""

from __future__ import annotations

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.lost import LostBackup, find_lost
from airflow_pgbackup.errors import BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import find_backup
from airflow_pgbackup.repository.layout import Series, backup_folder


def undelete(*, repository: Repository, series: Series, id: str, context: RunContext | None = None) -> LostBackup:
    """Make the first version of each of a backup's files the current one again, the manifest last.

    Delete markers are removed where the credentials may delete versions. Otherwise, and if a file was overwritten, the
    store copies the first version. Nothing that the store holds is lost: overwriting data becomes an older version of
    the file. The retention rules apply to the backup again: pin it, or the next prune may delete it again.

    :return: what was restored.
    :raises BackupNotFound: the store holds no other version of such a backup.
    :raises RepositoryError: the store refuses, or the backup is incomplete nevertheless.
    :raises Canceled: between two files.
    """
    context = context or RunContext()
    repository.uuid  # noqa: B018  raises where there is no repository
    folder = backup_folder(series, id)
    found = find_lost(repository, folder)
    if not found:
        raise BackupNotFound(
            f"backup {series}/{id} was not deleted or overwritten, or {repository.uri} keeps no versions of it",
            hint="Run undelete without a backup to list what can be restored.",
        )
    lost = found[0]
    for file in lost.files:
        context.cancel.check()
        repository.protection.restore(file.first, file.above)
        context.log(f"restored {file.first.key}")
    backup = find_backup(repository, series, id)
    if backup.state == "incomplete":
        raise RepositoryError(
            f"backup {series}/{id} is incomplete: its manifest was restored, its artifact was not",
            hint="Its versions have expired, or were removed.",
        )
    return lost
