"""Delete one backup, or what no backup is made of. For ``prune``, whose decision may be minutes old: each looks again.

Others work meanwhile, and may be seen only by what they have written. So a key is deleted that was listed here and that
belongs to what is to go: never what another attempt at the same backup writes. A pin counts up to the moment when the
manifest is gone: whoever pins looks for the manifest after the pin, and here the pin is looked for after the manifest,
so one of the two sees the other.
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
"""Twice the default deadline of a dump: what has not grown for so long belongs to nobody."""
LEAST_GRACE = timedelta(hours=1)
"""A dump whose artifact is written has no manifest yet. Less than this would take it away from under a running one."""

_PINNED = "has been pinned meanwhile: kept"
_GONE = "has been removed by another prune meanwhile"


def remove_backup(repository: Repository, backup: Backup) -> str | None:
    """Delete a backup: its manifest by a call of its own, then its artifact and its history.

    :return: why it was not deleted, None where it was.
    :raises RepositoryError: a key cannot be deleted.
    """
    manifest_key = f"{backup.folder}/{MANIFEST_FILE}"
    entries = _entries(repository, backup.folder)
    if PIN_FILE in entries:
        return _PINNED
    if entries.pop(MANIFEST_FILE, None) is None:
        return _GONE
    try:
        data = repository.read_bytes(manifest_key, limit=MAX_BYTES)
    except BackupNotFound:
        return _GONE
    attempt = Manifest.from_json(data).artifact.attempt
    pin_key = f"{backup.folder}/{PIN_FILE}"
    try:
        repository.delete([manifest_key])
    except RepositoryError:
        # The store may have deleted it nevertheless, and lost its answer.
        if repository.stat(pin_key) is not None:
            with suppress(AlreadyExists):
                repository.write_bytes(manifest_key, data)
        raise
    if repository.stat(pin_key) is not None:
        with suppress(AlreadyExists):
            repository.write_bytes(manifest_key, data)
        return _PINNED
    repository.delete([entry.key for path, entry in entries.items() if attempt_of(path) in (None, attempt)])
    return None


def sweep(repository: Repository, leftover: Leftover) -> str | None:
    """Delete a folder that is no backup, or an attempt in the folder of one that another attempt has made.

    :return: as :func:`remove_backup`.
    :raises RepositoryError: a key cannot be deleted.
    """
    entries = _entries(repository, leftover.folder)
    # With its data, since a prune that was killed may have taken the manifest; a pin of nothing is nothing.
    if PIN_FILE in entries and any(path != PIN_FILE and not VerificationName.parse(path) for path in entries):
        return _PINNED
    grown = any(entry.modified > leftover.modified for entry in entries.values())
    if grown or MANIFEST_FILE in entries or not is_abandoned(repository, leftover):
        return "is being written: kept"
    repository.delete([entry.key for entry in entries.values()])
    return None


def is_abandoned(repository: Repository, leftover: Leftover) -> bool:
    """Whether no manifest names it. What cannot be read is left alone."""
    if leftover.attempt is None:
        return True
    try:
        return read_manifest(repository, leftover.series, leftover.id).artifact.attempt != leftover.attempt
    except RepositoryError:
        return False


def _entries(repository: Repository, folder: str) -> dict[str, Entry]:
    """By their path in it."""
    return {entry.key.removeprefix(f"{folder}/"): entry for entry in repository.list(folder)}
