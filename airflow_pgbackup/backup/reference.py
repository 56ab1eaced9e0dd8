"""References: what operators hand to each other, and the way back from one to the backup it names.

A reference is a small plain-JSON dict, safe in XCom::

    {"repository": "s3://bucket/prefix", "repository_uuid": "…",
     "series": "server/database", "id": "20261122T020000Z-3f9ac1",
     "artifact": "dvdrental_2026-11-22_0200.dump", "size": 1234 (bytes), "sha256": "…", "format": "custom",
     "database": "dvdrental" (None for a cluster), "server_version": "18.4", "client_version": "18.4",
     "started_at": "2026-11-22T02:00:00+00:00", "verified": "archive" (None where no verification passed)}

It carries the repository's UUID, so a look-alike folder on another worker is found out. ``series`` is the folder, its
names percent-encoded. ``verified`` is what the backup's own files prove, see :mod:`.evidence`; it is there for people,
and decisions read the repository again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, PgBackupError
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest

SEED = "seed_sha256"
"""The manifest's ``origin`` keeps this digest of what asked for a backup: six digits in an id are no proof."""


def make_reference(repository: Repository, manifest: Manifest) -> dict[str, object]:
    """The reference of a committed backup; ``verified`` is read from the repository."""
    return _reference(repository, manifest, read_evidence(repository, manifest.series, manifest.id).backup.level)


def reference_of(repository: Repository, evidence: Evidence) -> dict[str, object]:
    """As :func:`make_reference`, of a backup that has just been read.

    :raises ManifestError: its manifest cannot be believed.
    """
    return _reference(repository, evidence.require_manifest(), evidence.backup.level)


def _reference(repository: Repository, manifest: Manifest, verified: str | None) -> dict[str, object]:
    return {
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
        "series": manifest.series.path,
        "id": manifest.id,
        "artifact": manifest.artifact.name,
        "size": manifest.artifact.size,
        "sha256": manifest.artifact.sha256,
        "format": manifest.artifact.format,
        "database": manifest.series.database,
        "server_version": manifest.source.server_version,
        "client_version": manifest.client.version,
        "started_at": manifest.started_at.isoformat(),
        "verified": verified,
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
            hint="pass what a dump, verify or upload task returned, as in backup=dump.output",
        ) from None
    repository.require(uuid)
    return series, id


def find_committed(repository: Repository, series: Series, seed: str) -> Manifest | None:
    """The backup that an earlier try of the same task committed before it was killed.

    One that has failed a verification since is none: whoever clears the task then wants a new one. Nor is one whose
    artifact is not there.
    """
    digest = seed_digest(seed)
    for id in reversed(repository.folders(series.path)):
        if layout.parse_backup_id(id) and id.endswith(f"-{layout.id_suffix(seed)}"):
            try:
                evidence = read_evidence(repository, series, id)
            except BackupNotFound:
                continue
            manifest, state = evidence.manifest, evidence.backup.state
            if manifest and manifest.origin.get(SEED) == digest and state not in ("failed", "incomplete"):
                return manifest
    return None


def seed_digest(seed: str) -> str:
    return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()


def take_back(repository: Repository, written: Sequence[str], say: Callable[[str], None]) -> None:
    """Remove what an attempt has written so far, on its way out with an error that matters more than ours would."""
    if not written:
        return
    try:
        repository.delete(written)
    except PgBackupError as error:
        say(f"left behind: {', '.join(written)}: {error}. It is no backup without a manifest, and prune sweeps it")
