"""Backups that a versioned bucket hides behind delete markers."""

from __future__ import annotations

from airflow_pgbackup.backup.fsck.findings import Findings
from airflow_pgbackup.backup.lost import find_lost
from airflow_pgbackup.backup.progress import counted
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.wording import command


def check_deleted(repository: Repository, findings: Findings) -> None:
    """Report what was deleted and can be restored. prune deletes nothing that is locked, so somebody else did."""
    try:
        found = [one for one in find_lost(repository) if one.why == "deleted"]
    except RepositoryError:  # reported where overwritten files are searched for
        return
    unlocked = 0
    for one in found:
        if one.locked:
            key = f"{one.series.path}/{one.id}"
            findings.error(
                "deleted",
                key,
                f"was deleted although it is locked {one.locked}, at {one.at.isoformat()}",
                f"Run {command('undelete')} {repository.uri} {one.series.path} {one.id}, and find out who did it.",
            )
        else:
            unlocked += 1
    if unlocked:
        hint = f"{command('undelete')} lists them. A lifecycle rule for noncurrent versions removes them for good."
        findings.note("deleted", "", f"{counted(unlocked, 'deleted backup')} can be restored", hint)
