"""Delete one backup, or the leftovers of one, for ``prune``. Its decision may be minutes old, so each is checked again.

Others work on the repository at the same time, and show only in what they have written. So only keys that were listed
here and belong to the backup are deleted: never what another attempt at the same backup writes. A pin counts until the
manifest is deleted: pin checks for the manifest after it wrote the pin, and this module checks for the pin after it
deleted the manifest, so one of the two sees the other.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, ConfigurationError, RepositoryError
from airflow_pgbackup.quantities import span_text
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, Backup, Leftover, read_manifest
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import MANIFEST_FILE, VerificationName, attempt_of, is_ours, manifest_key
from airflow_pgbackup.repository.manifest import MAX_BYTES, Manifest
from airflow_pgbackup.time_spans import require_timedelta
from airflow_pgbackup.wording import parameter

GRACE = timedelta(hours=24)
"""Twice the default deadline of a dump: what has not grown for this long is abandoned."""
LEAST_GRACE = timedelta(hours=1)
"""A running dump has an artifact before it has a manifest. A shorter period would delete it during the dump."""

PINNED = "was pinned during the operation: kept"
_REMOVED = "was deleted by another prune"
_GROWS = "is being written: kept"
UNLISTED = "has a manifest that the store does not list, or cannot be read: kept; check the index of the store"


def check_grace(grace: timedelta) -> None:
    """Check a grace period.

    :raises ConfigurationError: not a timedelta, or shorter than :data:`LEAST_GRACE`.
    """
    if require_timedelta("grace", grace) < LEAST_GRACE:
        raise ConfigurationError(
            f"invalid {parameter('grace')} {grace}",
            hint=f"Give at least {span_text(LEAST_GRACE)}: a shorter grace period deletes files of a running dump.",
        )


def remove_backup(repository: Repository, backup: Backup) -> str | None:
    """Delete a backup: its manifest by a call of its own, then its artifact and its verifications.

    A KeyboardInterrupt that arrives after the manifest is deleted is raised only after the rest is deleted.

    :return: why it was not deleted; None if it was.
    :raises RepositoryError: a key cannot be deleted.
    """
    key = manifest_key(backup.series, backup.id)
    entries = _entries(repository, backup.folder)
    if PIN_FILE in entries:
        return PINNED
    manifest = entries.pop(MANIFEST_FILE, None)
    if manifest is None:
        return _REMOVED
    data, attempt = b"", None
    if 0 < manifest.size <= MAX_BYTES:  # any other is incomplete, and names no attempt
        try:
            data = repository.read_bytes(key, limit=MAX_BYTES)
        except BackupNotFound:
            return _REMOVED
        attempt = Manifest.from_json(data).artifact.attempt
    rest = [entry.key for path, entry in entries.items() if attempt_of(path) in (None, attempt)]
    pin_key = f"{backup.folder}/{PIN_FILE}"
    try:
        try:
            repository.delete([key])
        except RepositoryError:
            # The store may have deleted it, and its answer was lost.
            if repository.stat(pin_key) is not None:
                with suppress(AlreadyExists):
                    repository.write_bytes(key, data)
            raise
        return _finish(repository, key, data, pin_key, rest)
    except KeyboardInterrupt:
        if repository.stat(key) is None:
            _finish(repository, key, data, pin_key, rest)
        raise


def _finish(repository: Repository, key: str, manifest: bytes, pin_key: str, rest: list[str]) -> str | None:
    """Delete the rest of a backup whose manifest is deleted, or write the manifest again if it was pinned meanwhile."""
    if repository.stat(pin_key) is not None:
        with suppress(AlreadyExists):
            repository.write_bytes(key, manifest)
        return PINNED
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
        return PINNED
    grown = any(entry.modified > leftover.modified for entry in entries.values())
    if grown or MANIFEST_FILE in entries:
        return _GROWS
    if not is_abandoned(repository, leftover):
        return _GROWS if leftover.attempt else UNLISTED
    repository.delete([entry.key for entry in entries.values()])
    return None


def is_abandoned(repository: Repository, leftover: Leftover) -> bool:
    """Return whether no manifest names it. If that cannot be found out, the leftover is kept.

    Asks for the manifest itself: a listing from a damaged index of a bucket lacks objects that exist.
    """
    try:
        if leftover.attempt is None:
            return repository.stat(manifest_key(leftover.series, leftover.id)) is None
        return read_manifest(repository, leftover.series, leftover.id).artifact.attempt != leftover.attempt
    except RepositoryError:
        return False


def _entries(repository: Repository, folder: str) -> dict[str, Entry]:
    """Return the entries of a folder that are ours, by their path in it."""
    ours = (entry for entry in repository.list(folder) if is_ours(entry.key.split("/", 3)[3]))
    return {entry.key.removeprefix(f"{folder}/"): entry for entry in ours}
