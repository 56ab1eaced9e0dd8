"""References: what operators pass to each other, and how to find the backup that one names.

A reference is a small plain-JSON dict, safe in XCom::

    {"repository": "s3://bucket/prefix", "repository_uuid": "…",
     "series": "server/database", "id": "20261122T020000Z-3f9ac1", "artifact": "dvdrental_2026-11-22_0200.dump",
     "key": "server/database/20261122T020000Z-3f9ac1/7d41c09e/dvdrental_2026-11-22_0200.dump",
     "size": 1234 (bytes), "sha256": "…", "format": "custom",
     "database": "dvdrental" (None for a cluster), "server_version": "18.4", "client_version": "18.4",
     "started_at": "2026-11-22T02:00:00+00:00", "verified": "archive" (None where no verification passed)}

The UUID reveals a look-alike directory on another worker. ``series`` is the folder, its names percent-encoded; ``key``
is the artifact's key in the repository. ``verified`` is what the backup's own files prove, see :mod:`.evidence`; it is
for people, and decisions read the repository again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.evidence import Evidence, is_complete, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest

SEED = "seed_sha256"
"""The manifest's ``origin`` holds the digest of the seed under this key: six digits in an id prove nothing."""


def reference_of(repository: Repository, evidence: Evidence) -> dict[str, object]:
    """Return the reference of a backup that has just been read.

    :raises ManifestError: its manifest is invalid.
    """
    manifest = evidence.require_manifest()
    return {
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
        "series": manifest.series.path,
        "id": manifest.id,
        "artifact": manifest.artifact.name,
        "key": manifest.artifact_key,
        "size": manifest.artifact.size,
        "sha256": manifest.artifact.sha256,
        "format": manifest.artifact.format,
        "database": manifest.series.database,
        "server_version": manifest.source.server_version,
        "client_version": manifest.client.version,
        "started_at": manifest.started_at.isoformat(),
        "verified": evidence.backup.level,
    }


def load_manifest(repository: Repository, reference: Mapping[str, object]) -> Manifest:
    """Return the manifest of the backup that a reference names.

    :raises ConfigurationError: not a reference.
    :raises RepositoryMismatch: this repository is not the one that the reference was made in.
    :raises BackupNotFound: there is no such backup, or it was removed.
    :raises ManifestError: its manifest is invalid.
    """
    return read_manifest(repository, *_named(repository, reference))


def load_evidence(repository: Repository, reference: Mapping[str, object]) -> Evidence:
    """Return the manifest as :func:`load_manifest` does, with all that the backup's own files prove.

    :raises RepositoryError: as there.
    """
    evidence = read_evidence(repository, *_named(repository, reference))
    evidence.require_manifest()
    return evidence


def _named(repository: Repository, reference: Mapping[str, object]) -> tuple[Series, str]:
    try:
        series, id = Series.parse(str(reference["series"])), str(reference["id"])
        uuid = str(reference["repository_uuid"])
    except (KeyError, TypeError, ValueError):
        raise not_a_reference(reference) from None
    repository.require(uuid)
    return series, id


def not_a_reference(value: object) -> ConfigurationError:
    """Return the error for what should be a reference."""
    return ConfigurationError(
        f"not a reference to a backup: {str(value)[:200]}",
        hint="Pass what a dump, verify or upload task returned, as in backup=dump.output.",
    )


def find_committed(
    repository: Repository,
    series: Series,
    seed: str,
    *,
    ids: Sequence[str] | None = None,
    not_before: datetime | None = None,
) -> Evidence | None:
    """Return the backup that an earlier attempt of the same task committed before it was killed; see :func:`is_of`.

    :param ids: the series' folders, sorted; by default they are listed.
    :param not_before: when the task's run began. A manifest that the store, by its own clock, has had for longer is not
        of this task, whatever it says, because the seed is not secret.
    """
    for id in reversed(repository.folders(series.path) if ids is None else ids):
        if layout.parse_backup_id(id) and id.endswith(f"-{layout.id_suffix(seed)}"):
            try:
                evidence = read_evidence(repository, series, id)
            except BackupNotFound:
                continue
            if is_of(evidence, seed) and not _is_older(repository, evidence, not_before):
                return evidence
    return None


def _is_older(repository: Repository, evidence: Evidence, moment: datetime | None) -> bool:
    backup = evidence.backup
    entry = repository.stat(layout.manifest_key(backup.series, backup.id)) if moment else None
    return moment is not None and entry is not None and entry.modified < moment - SKEW


def is_of(evidence: Evidence, seed: str) -> bool:
    """Return whether this backup was made for the seed, is complete, and has not failed a verification since."""
    if not is_complete(evidence) or evidence.backup.state == "failed":
        return False
    return evidence.require_manifest().origin.get(SEED) == seed_digest(seed)


def seed_digest(seed: str) -> str:
    """Return the digest of a seed, for the manifest."""
    return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()
