"""Backup sets of past nights, written in a moment: small backups that hold, and the set that names them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from honest import write_backup, write_verification

from airflow_pgbackup.repository.backup_set import Absent, BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_id

NOW = datetime.now(timezone.utc).replace(microsecond=0)


def fail(repository: Repository, member: SetMember) -> None:
    """Let the newest verification of a member fail."""
    manifest = read_evidence(repository, member.parsed_series, member.id, now=NOW).require_manifest()
    write_verification(repository, manifest, "archive", "fail", NOW)


def night(
    repository: Repository,
    number: int,
    *databases: str,
    missing: tuple[str, ...] = (),
    globals_missing: str | None = None,
) -> BackupSet:
    """The backups and the set of that many nights ago, written at its time."""
    start = NOW - timedelta(days=number, hours=1)
    members = []
    for name in databases:
        backup = write_backup(
            repository,
            Series("prod", name),
            start + timedelta(minutes=1),
            looks=["archive-pass"],
            seed=f"{name}{number}",
        )
        manifest = read_evidence(repository, Series("prod", name), backup.id, now=NOW).require_manifest()
        members.append(
            SetMember(
                series=manifest.series.path,
                id=manifest.id,
                database=name,
                size=manifest.artifact.size,
                sha256=manifest.artifact.sha256,
                key=manifest.artifact_key,
                level="archive",
            )
        )
    made = BackupSet(
        id=backup_id(start, f"set {number}"),
        server="prod",
        status="partial" if missing or globals_missing else "complete",
        started_at=start,
        finished_at=start + timedelta(minutes=30),
        server_version="18.1",
        globals=None,
        globals_missing=globals_missing,
        databases=tuple(members),
        missing=tuple(Absent(name, "no backup was made") for name in missing),
    )
    repository.write_bytes(f"{made.location}/{made.name.file}", made.to_json())
    return made
