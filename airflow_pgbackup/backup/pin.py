"""pin: keep prune from a backup, whatever the policy says, until it is unpinned.

A pin is a file in the backup's own folder, so it holds for every prune, from wherever it runs.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone

from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, find_backup
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.manifest import FORMAT_VERSION


def pin(*, repository: Repository, series: Series, id: str, reason: str = "") -> None:
    """Pin a backup; one that is pinned already stays so, with its first reason.

    :param reason: for people, kept in the pin.
    :raises BackupNotFound: there is no such backup, or prune removes it at this moment.
    :raises RepositoryError: something else is in the place of the pin.
    """
    folder = find_backup(repository, series, id).folder
    pinned_at = datetime.now(timezone.utc).replace(microsecond=0)
    content = {"format_version": FORMAT_VERSION, "pinned_at": pinned_at.isoformat(), "reason": reason}
    try:
        repository.write_bytes(f"{folder}/{PIN_FILE}", (json.dumps(content, indent=2) + "\n").encode())
    except AlreadyExists:
        if not find_backup(repository, series, id).pinned:  # nor does prune take a link or a FIFO for a pin
            raise RepositoryError(
                f"cannot pin {series}/{id}: {repository.location(f'{folder}/{PIN_FILE}')} is no regular file",
                hint="remove it, and pin again",
            ) from None
        return
    # A prune that began before looks for a pin once more when it has deleted the manifest, see prune.
    try:
        find_backup(repository, series, id)
    except BackupNotFound:
        repository.delete([f"{folder}/{PIN_FILE}"])
        raise


def unpin(*, repository: Repository, series: Series, id: str) -> None:
    """Take the pin away, if there is one; also from what a prune that was killed has left of a backup.

    :raises BackupNotFound: there is no such backup.
    """
    key = f"{backup_folder(series, id)}/{PIN_FILE}"
    if repository.stat(key) is None:
        find_backup(repository, series, id)
    repository.delete([key])
