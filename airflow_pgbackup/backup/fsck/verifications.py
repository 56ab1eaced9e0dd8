"""Check a verification: compare its contents with its name and its backup."""

from __future__ import annotations

from datetime import datetime

from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.backup.fsck.inventory import Folder
from airflow_pgbackup.errors import ManifestError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.evidence import parse_verification
from airflow_pgbackup.repository.json_document import MAX_BYTES
from airflow_pgbackup.repository.layout import VerificationName
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Verification

_HINT = "Nothing counts it. Verify the backup again, find out who wrote this file, and remove it."


def check_verification(
    repository: Repository,
    folder: Folder,
    name: VerificationName,
    manifest: Manifest,
    now: datetime,
    findings: Faults,
) -> None:
    """Read a verification and report why it is invalid.

    :raises BackupNotFound: it disappeared since it was listed.
    """
    key, size = f"{folder.key}/{name.file}", folder.entries[name.file].size
    if size > MAX_BYTES:
        findings.error("verification", key, f"has {size:,} bytes, expected at most {MAX_BYTES:,}", _HINT)
        return
    data = repository.read_bytes(key, limit=MAX_BYTES)
    try:
        parse_verification(data, name, manifest)
    except ManifestError as error:
        findings.error(_code(data, name, manifest), key, error.message, _HINT)
        return
    if name.at > now + SKEW or name.at < manifest.started_at - SKEW:
        when = "from the future" if name.at > now else "from before the backup"
        findings.warning("verification_time", key, f"is {when}", f"{_HINT} Check the clock of the worker.")


def _code(data: bytes, name: VerificationName, manifest: Manifest) -> str:
    """Return the code of an invalid verification."""
    try:
        found = Verification.from_json(data)
    except ManifestError:
        return "verification"
    if found.backup_id != manifest.id or found.artifact_sha256 not in (None, manifest.artifact.sha256):
        return "verification_other"
    if (found.finished_at, found.level, found.result) != (name.at, name.level, name.result):
        return "verification_name"
    return "verification"
