"""undelete: restore a backup that was deleted or overwritten, from the versions that a bucket keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.lost import LostBackup, LostFile, find_lost
from airflow_pgbackup.backup.restorable import complete_files
from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError, VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.protection import Version

MOST_ROUNDS = 3
"""How many times files are restored, because prune may delete them again while they are restored."""


def undelete(*, repository: Repository, series: Series, id: str, context: RunContext | None = None) -> LostBackup:
    """Make the first version of each of a backup's files the current one again, the manifest last.

    Delete markers are removed where the credentials may delete versions. Otherwise, and if a file was overwritten, the
    store copies the first version. Nothing that the store holds is lost: overwriting data becomes an older version of
    the file. The retention rules apply to the backup again: pin it, or the next prune may delete it again.

    Nothing is changed unless the store holds all files of the backup.

    :return: what was restored.
    :raises BackupNotFound: the store holds no other version of such a backup.
    :raises RepositoryError: the store refuses, or does not hold all files, or another process deletes them again.
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
    lost = replace(found[0], files=complete_files(repository, found[0]))
    files = lost.files
    for _ in range(MOST_ROUNDS):
        for file in files:
            context.cancel.check()
            repository.protection.restore(file.first, file.above)
            context.log(f"restored {file.first.key}")
        if not (files := _hidden_again(repository, folder, lost.files)):
            break
    _require_complete(repository, series, id, files)
    return lost


def _hidden_again(repository: Repository, folder: str, files: tuple[LostFile, ...]) -> tuple[LostFile, ...]:
    """Return the files that were restored and deleted again. Until the manifest is restored, prune may do that: a file
    whose delete marker was removed is as old as before, so the folder looks abandoned."""
    found: dict[str, list[Version]] = {}
    for version in repository.protection.versions(folder):
        found.setdefault(version.key, []).append(version)
    hidden = [file for file in files if any(v.latest and v.deleted for v in found.get(file.first.key, ()))]
    return tuple(LostFile(file.first, _newer(file.first, found[file.first.key])) for file in hidden)


def _newer(first: Version, versions: list[Version]) -> tuple[Version, ...]:
    return tuple(takewhile(lambda version: version.id != first.id, versions))


def _require_complete(repository: Repository, series: Series, id: str, hidden: Sequence[LostFile]) -> None:
    """Check the restored backup.

    :param hidden: files of it that were deleted again.
    """
    try:
        read_evidence(repository, series, id).require_complete()
        problem = f"{hidden[0].first.key} was deleted" if hidden else None
    except (BackupNotFound, ManifestError, VerificationFailed) as error:
        problem = error.message
    if problem:
        raise RepositoryError(
            f"backup {series}/{id} was restored, but changed at once: {problem}",
            hint="Check whether another process deletes it, as prune may, and run undelete again.",
        )
