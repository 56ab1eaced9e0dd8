"""Backups as ours are, written in a moment: an artifact of a few bytes, with a manifest and verifications that hold.

For tests of what is decided about backups; those of what is in them make real ones. Forgeries begin with one of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, VerificationName, artifact_key, backup_folder, backup_id
from airflow_pgbackup.repository.manifest import (
    Artifact,
    ClientInfo,
    DatabaseSource,
    FileDigest,
    Manifest,
    RecordedCompression,
    directory_sha256,
)
from airflow_pgbackup.repository.verification import Check, TableResult, Verification

CHECKS = {"integrity": ("integrity",), "archive": ("integrity", "archive"), "restore": ("integrity", "restore")}


def manifest_of(
    repository: Repository,
    series: Series,
    started_at: datetime,
    members: Mapping[str, bytes],
    *,
    seed: str = "",
    attempt: str | None = None,
    **changes: Any,
) -> Manifest:
    """The manifest of a dump of these files: one, or those of a directory, ``app.dir/toc.dat``.

    :param changes: other fields of the manifest than those of an ordinary dump.
    """
    name = next(iter(members)).partition("/")[0]
    is_directory = name not in members
    files = tuple(
        FileDigest(path.removeprefix(f"{name}/"), len(data), hashlib.sha256(data).hexdigest())
        for path, data in members.items()
    )
    suffix = Path(name.removesuffix(".age")).suffix
    format = "directory" if is_directory else {".sql": "plain", ".tar": "tar"}.get(suffix, "custom")
    made = Manifest(
        repository=repository.uuid,
        series=series,
        id=backup_id(started_at, seed=seed),
        kind="cluster" if series.database is None else "database",
        started_at=started_at,
        finished_at=started_at + timedelta(seconds=5),
        duration_seconds=5.0,
        artifact=Artifact(
            name=name,
            format=format,
            compression=RecordedCompression(None, None, None)
            if format == "plain"
            else RecordedCompression("gzip", None, "pg_dump"),
            size=sum(file.size for file in files),
            sha256=directory_sha256(files) if is_directory else files[0].sha256,
            files=files,
            attempt=attempt,
        ),
        source=DatabaseSource(
            database=series.database,
            server_version="18.4",
            server_version_num=180004,
            size_bytes=1,
            encoding="UTF8",
            host="h",
        ),
        client=ClientInfo("pg_dump", "18.4", "/bin/pg_dump"),
        options={},
        origin={},
        restore_command="pg_restore app.dump",
    )
    return replace(made, **changes)


def verification_of(manifest: Manifest, level: str, result: str, at: datetime) -> Verification:
    return Verification(
        backup_id=manifest.id,
        level=level,
        result=result,
        started_at=at,
        finished_at=at,
        duration_seconds=0.0,
        checks=tuple(Check(name, result) for name in CHECKS[level]),
        tables=(TableResult(schema="public", name="t", rows=7, sha256=None, result="pass"),),
        artifact_sha256=manifest.artifact.sha256,
    )


def write_verification(repository: Repository, manifest: Manifest, level: str, result: str, at: datetime) -> str:
    """Its key."""
    name = VerificationName(at, level, result)
    key = f"{backup_folder(manifest.series, manifest.id)}/{name.file}"
    repository.write_bytes(key, verification_of(manifest, level, result, at).to_json())
    return key


def write_backup(
    repository: Repository,
    series: Series,
    started_at: datetime,
    *,
    looks: Sequence[str] = ("archive-pass",),
    members: Mapping[str, bytes] | None = None,
    seed: str = "",
    committed: bool = True,
    attempt: str | None = None,
    **changes: Any,
) -> Manifest:
    """Artifact, verifications, manifest.

    :param looks: ``archive-pass``, a minute after each other.
    :param committed: write the manifest.
    :param attempt: the folder of the artifact; None: beside the manifest.
    :param changes: as in :func:`manifest_of`.
    """
    members = members or {"app.dump": b"12345"}
    manifest = manifest_of(repository, series, started_at, members, seed=seed, attempt=attempt, **changes)
    folder = backup_folder(series, manifest.id)
    for path, data in members.items():
        repository.write_bytes(artifact_key(series, manifest.id, path, attempt), data)
    for number, look in enumerate(looks, 1):
        level, _, result = look.partition("-")
        write_verification(repository, manifest, level, result, started_at + timedelta(minutes=number))
    if committed:
        repository.write_bytes(f"{folder}/manifest.json", manifest.to_json())
    return manifest
