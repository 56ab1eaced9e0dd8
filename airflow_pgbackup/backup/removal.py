"""Delete one backup, or the leftovers of one, for ``prune``. Its decision may be minutes old, so each is checked again.

Others work on the repository at the same time, and show only in what they have written. So only keys that were listed
here and belong to the backup are deleted: never what another attempt at the same backup writes. A pin counts until the
manifest is deleted: pin checks for the manifest after it wrote the pin, and this module checks for the pin after it
deleted the manifest, so one of the two sees the other.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, Backup, Leftover, read_manifest
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import MANIFEST_FILE, VerificationName, attempt_of
from airflow_pgbackup.repository.manifest import MAX_BYTES, Manifest

GRACE = timedelta(hours=24)
"""Twice the default deadline of a dump: what has not grown for this long is abandoned."""
LEAST_GRACE = timedelta(hours=1)
"""A running dump has an artifact before it has a manifest. A shorter period would delete it during the dump."""

_PINNED = "was pinned during the operation: kept"
_REMOVED = "was deleted by another prune"


def remove_backup(repository: Repository, backup: Backup) -> str | None:
    """Delete a backup: its manifest by a call of its own, then its artifact and its verifications.

    A KeyboardInterrupt that arrives after the manifest is deleted is raised only after the rest is deleted.

    :return: why it was not deleted; None if it was.
    :raises RepositoryError: a key cannot be deleted.
    """
    manifest_key = f"{backup.folder}/{MANIFEST_FILE}"
    entries = _entries(repository, backup.folder)
    if PIN_FILE in entries:
        return _PINNED
    if entries.pop(MANIFEST_FILE, None) is None:
        return _REMOVED
    try:
        data = repository.read_bytes(manifest_key, limit=MAX_BYTES)
    except BackupNotFound:
        return _REMOVED
    attempt = Manifest.from_json(data).artifact.attempt
    rest = [entry.key for path, entry in entries.items() if attempt_of(path) in (None, attempt)]
    pin_key = f"{backup.folder}/{PIN_FILE}"
    try:
        try:
            repository.delete([manifest_key])
        except RepositoryError:
            # The store may have deleted it, and its answer was lost.
            if repository.stat(pin_key) is not None:
                with suppress(AlreadyExists):
                    repository.write_bytes(manifest_key, data)
            raise
        return _finish(repository, manifest_key, data, pin_key, rest)
    except KeyboardInterrupt:
        if repository.stat(manifest_key) is None:
            _finish(repository, manifest_key, data, pin_key, rest)
        raise


def _finish(repository: Repository, manifest_key: str, manifest: bytes, pin_key: str, rest: list[str]) -> str | None:
    """Delete the rest of a backup whose manifest is deleted, or write the manifest again if it was pinned meanwhile."""
    if repository.stat(pin_key) is not None:
        with suppress(AlreadyExists):
            repository.write_bytes(manifest_key, manifest)
        return _PINNED
    repository.delete(rest)
    return None


def sweep(repository: Repository, leftover: Leftover) -> str | None:
    """Delete an incomplete folder, or a lost attempt in the folder of a backup that another attempt has made.

    :return: as :func:`remove_backup`.
    :raises RepositoryError: a key cannot be deleted.
    """
    entries = _entries(repository, leftover.folder)
    # With its data: a killed prune may have deleted only the manifest. A pin without data pins nothing.
    if PIN_FILE in entries and any(path != PIN_FILE and not VerificationName.parse(path) for path in entries):
        return _PINNED
    grown = any(entry.modified > leftover.modified for entry in entries.values())
    if grown or MANIFEST_FILE in entries or not is_abandoned(repository, leftover):
        return "is being written: kept"
    repository.delete([entry.key for entry in entries.values()])
    return None


def is_abandoned(repository: Repository, leftover: Leftover) -> bool:
    """Return whether no manifest names it. If the manifest cannot be read, the leftover is kept."""
    if leftover.attempt is None:
        return True
    try:
        return read_manifest(repository, leftover.series, leftover.id).artifact.attempt != leftover.attempt
    except RepositoryError:
        return False


def _entries(repository: Repository, folder: str) -> dict[str, Entry]:
    """Return the entries of a folder by their path in it."""
    return {entry.key.removeprefix(f"{folder}/"): entry for entry in repository.list(folder)}
