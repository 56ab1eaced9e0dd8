"""pin: keep a backup from prune, whatever the policy, until it is unpinned.

A pin is a file in the backup's own folder, so every prune obeys it, wherever it runs. In a bucket with object lock its
other files also get a legal hold, so the store refuses to delete them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone

from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, find_backup
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.manifest import FORMAT_VERSION


def pin(*, repository: Repository, series: Series, id: str, reason: str = "") -> str | None:
    """Pin a backup. If it is pinned already, the first reason stays, and files added since get a legal hold.

    :param reason: for people; stored in the pin.
    :return: why the store set no legal hold, so that only prune obeys the pin; None if it did.
    :raises BackupNotFound: there is no such backup, or prune is removing it.
    :raises RepositoryError: something that is not a regular file has the pin's name.
    """
    folder = find_backup(repository, series, id).folder
    pinned_at = datetime.now(timezone.utc).replace(microsecond=0)
    content = {"format_version": FORMAT_VERSION, "pinned_at": pinned_at.isoformat(), "reason": reason}
    try:
        repository.write_bytes(f"{folder}/{PIN_FILE}", (json.dumps(content, indent=2) + "\n").encode())
    except AlreadyExists:
        if not find_backup(repository, series, id).pinned:  # as for prune, a link or a FIFO is not a pin
            raise RepositoryError(
                f"cannot pin {series}/{id}: {repository.location(f'{folder}/{PIN_FILE}')} is not a regular file",
                hint="Remove it, and pin the backup again.",
            ) from None
        return _hold(repository, folder, on=True)
    # A prune that started earlier looks for a pin again after it has deleted the manifest; see removal.
    try:
        find_backup(repository, series, id)
    except BackupNotFound:
        with suppress(RepositoryError):  # where it may not be deleted, prune sweeps it
            repository.delete([f"{folder}/{PIN_FILE}"])
        raise
    return _hold(repository, folder, on=True)


def unpin(*, repository: Repository, series: Series, id: str) -> None:
    """Remove the pin and its legal holds, if there are any, also from the leftovers of a prune that was killed.

    :raises BackupNotFound: there is no such backup.
    :raises RepositoryError: a legal hold cannot be removed; then the pin stays.
    """
    folder = backup_folder(series, id)
    key = f"{folder}/{PIN_FILE}"
    if repository.stat(key) is None:
        find_backup(repository, series, id)
    _hold(repository, folder, on=False)
    repository.delete([key])


def _hold(repository: Repository, folder: str, *, on: bool) -> str | None:
    keys = [entry.key for entry in repository.list(folder)]
    return repository.protection.hold([key for key in keys if key != f"{folder}/{PIN_FILE}"], on=on)
