"""What a rewrapped backup takes from the original: its id, its origin, the verifications of the same dump."""

from __future__ import annotations

import json
from dataclasses import replace

from airflow_pgbackup.backup.reference import SEED, seed_digest
from airflow_pgbackup.backup.stored_details import stored_details
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.errors import BackupNotFound, RepositoryError
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, is_complete, read_evidence
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Check, Verification

FROM = "rewrapped_from"
"""The ``origin`` of the new manifest and of carried verifications holds the id of the old backup under this key."""
_NAMES = 1000  # suffixes to choose from: the next rotation needs one that is larger again


def is_wrapped(manifest: Manifest, recipients: Recipients) -> bool:
    """Return whether a backup is encrypted to exactly these recipients, as its manifest says."""
    encryption = manifest.artifact.encryption
    return encryption is not None and set(encryption.recipients) == set(recipients.texts)


def find_rewrapped(repository: Repository, old: Manifest, recipients: Recipients) -> Evidence | None:
    """Return the backup that an earlier call made of this one for the same recipients.

    :raises RepositoryError: it is incomplete, or its manifest is invalid.
    """
    try:
        found = read_evidence(repository, old.series, new_id(old, recipients))
    except BackupNotFound:
        return None
    if not is_complete(found):
        backup = found.backup
        raise RepositoryError(
            f"backup {old.name} is rewrapped already, as {backup.id}, which {backup.standing}",
            hint=f"Delete {repository.location(backup.folder)} and rewrap the backup again.",
        )
    return found if is_made_of(found, old, recipients) else None


def request(old: Manifest, recipients: Recipients) -> str:
    """Return what identifies the request, as the seed of a task does."""
    return json.dumps(["rewrap", old.id, old.artifact.sha256, *sorted(recipients.texts)])


def new_id(old: Manifest, recipients: Recipients) -> str:
    """Return the id of the new backup: always the same, and if possible the next one after the old id."""
    seed = request(old, recipients)
    ids = sorted(layout.backup_id(old.started_at, f"{seed}{number}") for number in range(_NAMES))
    return next((id for id in ids if id > old.id), ids[-1])


def is_made_of(found: Evidence, old: Manifest, recipients: Recipients) -> bool:
    """Return whether a backup is complete, and was made of the old one for these recipients."""
    return is_complete(found) and found.require_manifest().origin.get(SEED) == seed_digest(request(old, recipients))


def carried_over(seen: Verification, old: Manifest, new: Manifest) -> Verification | None:
    """Return a verification of the old backup as one of the new; None if it is only about the stored bytes."""
    about_dump = [check for check in seen.checks if check.name != "integrity"]
    if seen.level == "integrity" or seen.result == "notproven" or not about_dump:
        return None
    files = counted(len(new.artifact.files), "file")
    stored = Check("integrity", "pass", f"{human_bytes(new.artifact.size)} in {files} as rewrap wrote them, by sha256")
    detail = f"carried over from backup {old.id}: the same dump, by the sha256 of its decrypted files"
    carried = replace(
        seen,
        backup_id=new.id,
        artifact_sha256=new.artifact.sha256,
        format_version=at_least(seen.format_version, Verification.format_version),
        checks=(stored, *about_dump, Check("rewrap", "pass", detail)),
        origin={**seen.origin, FROM: old.id},
    )
    return stored_details(carried, new)


def at_least(version: str, least: str) -> str:
    """Return the higher of two versions ``major.minor``."""
    return max(version, least, key=lambda text: tuple(map(int, text.split("."))))
