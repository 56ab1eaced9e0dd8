"""One backup: what its manifest and verifications say, how to restore it, and what changed since the one before."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_pgbackup.backup.diff import diff
from airflow_pgbackup.backup.diff.result import Diff
from airflow_pgbackup.backup.overview.model import LIMIT
from airflow_pgbackup.backup.restore_command import KEY_FILE, restore_command_of
from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, read_each, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.set_files import list_sets, read_listed_set


@dataclass(frozen=True, kw_only=True)
class BackupDetail:
    """A backup, as its files prove it.

    :param tools: the shell line that restores the artifact with PostgreSQL's own tools; None: no valid manifest.
    :param command: that which restores it with ``pgbackup``; it names the same file for an identity as `tools`.
    :param changes: since the backup before it in the series, without reading artifacts; None: there is none that can be
        read.
    :param set: the id of the backup set that names it.
    """

    uri: str
    now: datetime
    series: Series
    evidence: Evidence
    tools: str | None
    command: str
    changes: Diff | None
    set: str | None


def backup_detail(*, repository: Repository, series: Series, id: str, now: datetime | None = None) -> BackupDetail:
    """Return one backup with all that its files say.

    :param id: complete.
    :raises BackupNotFound: it does not exist.
    :raises RepositoryError: the repository could not be read.
    """
    now = now or datetime.now(timezone.utc)
    evidence = read_evidence(repository, series, id, now=now, limit=LIMIT)
    encrypted = evidence.manifest is not None and evidence.manifest.artifact.encryption is not None
    identity = ["--identity", KEY_FILE] if encrypted else []
    return BackupDetail(
        uri=repository.uri,
        now=now,
        series=series,
        evidence=evidence,
        tools=restore_command_of(evidence.manifest) if evidence.manifest else None,
        command=shlex.join(["pgbackup", "restore", repository.uri, series.path, id, *identity]),
        changes=_changes(repository, evidence, now),
        set=_set_of(repository, evidence, now),
    )


def _changes(repository: Repository, after: Evidence, now: datetime) -> Diff | None:
    if after.manifest is None:
        return None
    listed = read_catalogue(repository, series=[after.backup.series]).backups
    earlier = [one for one in listed if (one.started_at, one.id) < (after.backup.started_at, after.backup.id)]
    before = next(
        (one for one in read_each(repository, earlier[:3], now=now, ahead=1, limit=LIMIT) if one.manifest), None
    )
    return diff(repository=repository, before=before, after=after, read_artifacts=False) if before else None


def _set_of(repository: Repository, evidence: Evidence, now: datetime) -> str | None:
    """Return the set of the run that made a backup: the newest one that started before it."""
    backup = evidence.backup
    for one in list_sets(repository, backup.series.server):
        if one.started_at <= backup.started_at + SKEW:
            try:
                content = read_listed_set(repository, one, now=now)
            except (BackupNotFound, ManifestError):
                return None
            members = {(member.series, member.id) for member in content.members}
            return content.id if (backup.series.path, backup.id) in members else None
    return None
