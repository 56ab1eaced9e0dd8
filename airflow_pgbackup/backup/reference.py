"""References: what operators hand to each other, and the way back from one to the backup it names.

A reference is a small plain-JSON dict, safe in XCom::

    {"repository": "s3://bucket/prefix", "repository_uuid": "…",
     "series": "server/database", "id": "20261122T020000Z-3f9ac1", "artifact": "dvdrental_2026-11-22_0200.dump",
     "key": "server/database/20261122T020000Z-3f9ac1/7d41c09e/dvdrental_2026-11-22_0200.dump",
     "size": 1234 (bytes), "sha256": "…", "format": "custom",
     "database": "dvdrental" (None for a cluster), "server_version": "18.4", "client_version": "18.4",
     "started_at": "2026-11-22T02:00:00+00:00", "verified": "archive" (None where no verification passed)}

It carries the repository's UUID, so a look-alike folder on another worker is found out. ``series`` is the folder, its
names percent-encoded; ``key`` is the place of the artifact in the repository. ``verified`` is what the backup's own
files prove, see :mod:`.evidence`; it is there for people, and decisions read the repository again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.evidence import Evidence, is_whole, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest

SEED = "seed_sha256"
"""The manifest's ``origin`` keeps this digest of what asked for a backup: six digits in an id are no proof."""


def reference_of(repository: Repository, evidence: Evidence) -> dict[str, object]:
    """The reference of a backup that has just been read.

    :raises ManifestError: its manifest cannot be believed.
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
    """The manifest of the backup that a reference names.

    :raises ConfigurationError: this is no reference.
    :raises RepositoryMismatch: the repository here is not the one the reference was made in.
    :raises BackupNotFound: no such backup there (any more).
    :raises ManifestError: its manifest cannot be believed.
    """
    return read_manifest(repository, *_named(repository, reference))


def load_evidence(repository: Repository, reference: Mapping[str, object]) -> Evidence:
    """As :func:`load_manifest`, with all that the backup's own files prove.

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
        raise ConfigurationError(
            f"not a reference to a backup: {str(reference)[:200]}",
            hint="Pass what a dump, verify or upload task returned, as in backup=dump.output.",
        ) from None
    repository.require(uuid)
    return series, id


def find_committed(repository: Repository, series: Series, seed: str) -> Evidence | None:
    """The backup that an earlier try of the same task committed before it was killed; see :func:`is_of`."""
    for id in reversed(repository.folders(series.path)):
        if layout.parse_backup_id(id) and id.endswith(f"-{layout.id_suffix(seed)}"):
            try:
                evidence = read_evidence(repository, series, id)
            except BackupNotFound:
                continue
            if is_of(evidence, seed):
                return evidence
    return None


def is_of(evidence: Evidence, seed: str) -> bool:
    """Whether this is what was asked for, and whole. One that has failed a verification since is not."""
    if not is_whole(evidence) or evidence.backup.state == "failed":
        return False
    return evidence.require_manifest().origin.get(SEED) == seed_digest(seed)


def seed_digest(seed: str) -> str:
    return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()
