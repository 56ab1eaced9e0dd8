"""What a versioned bucket still holds: the first versions of overwritten files, and deleted backups."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.backup.lost import LostFile, find_overwritten, lost_among
from airflow_pgbackup.backup.restorable import is_better
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.layout import REPOSITORY_FILE, split_key
from airflow_pgbackup.repository.protection import Version
from airflow_pgbackup.repository.set_layout import split_set_key
from airflow_pgbackup.wording import command


def check_versions(repository: Repository, findings: Faults, context: RunContext, *, revert: bool) -> None:
    """Report files of ours that somebody has overwritten, and backups that were deleted and can be restored.

    :param revert: bring the first versions of overwritten files back, unless that would break a complete backup.
    :raises RepositoryError: `revert` is set, and versions cannot be listed, or some files could not be reverted; all
        others were.
    """
    protection = repository.protection
    try:
        versions = list(protection.versions())
    except RepositoryError as error:
        if revert:
            raise
        hint = "Grant s3:ListBucketVersions to find files that somebody has overwritten."
        findings.note("versions_unlisted", "", error.message, hint)
        return
    overwritten = [file for file in find_overwritten(versions) if _is_ours(file.first.key)]
    by_folder: dict[str, list[Version]] = {}
    for version in versions:
        by_folder.setdefault(_folder_of(version), []).append(version)
    failed: list[RepositoryError] = []
    for file in overwritten:
        context.cancel.check()
        try:
            keep = _is_better(repository, file, by_folder[_folder_of(file.first)], required=revert)
            if revert and not keep:
                protection.restore(file.first, file.above)
                context.log(f"reverted {file.first.key} to version {file.first.id}")
            findings.overwritten(file, reverted=revert and not keep, keep=keep)
        except RepositoryError as error:
            context.log(f"cannot revert {file.first.key}: {error}")
            failed.append(error)
    if len(failed) > 1:
        message = f"{len(failed)} of {counted(len(overwritten), 'overwritten file')} could not be reverted; the first: "
        raise RepositoryError(message + failed[0].message, hint=failed[0].hint) from failed[0]
    if failed:
        raise failed[0]
    if revert and overwritten:
        versions = list(protection.versions())
    _check_deleted(repository, versions, findings)


def _is_better(repository: Repository, file: LostFile, versions: Iterable[Version], *, required: bool) -> bool:
    """Return whether a manifest is better than its first version, as :func:`.is_better`.

    :param required: raise if versions cannot be read; otherwise False is returned.
    """
    try:
        return is_better(repository, file, versions)
    except RepositoryError:
        if required:
            raise
        return False


def _check_deleted(repository: Repository, versions: Iterable[Version], findings: Faults) -> None:
    """Report what was deleted and can be restored. prune deletes nothing that is locked, so somebody else did."""
    unlocked = 0
    unread: list[tuple[str, RepositoryError]] = []
    for one in lost_among(repository, versions, failed=lambda folder, error: unread.append((folder, error))):
        undelete = command(f"undelete {repository.uri} {one.series.path} {one.id}")
        unfinished = [file for file in one.files if file.unfinished]
        if one.why == "deleted" and one.locked:
            findings.error(
                "deleted",
                f"{one.series.path}/{one.id}",
                f"was deleted although it is locked {one.locked}, at {one.at.isoformat()}",
                f"Run {undelete}, and find out who did it.",
            )
        elif unfinished:
            for file in unfinished:
                message = f"was overwritten, and then deleted at {file.above[0].modified.isoformat()}"
                hint = f"Run {undelete}: fsck with --revert may have been interrupted."
                findings.error("deleted", file.first.key, message, hint)
        elif one.why == "deleted":
            unlocked += 1
    if unlocked:
        hint = f"{command('undelete')} lists them. A lifecycle rule for noncurrent versions removes them for good."
        findings.note("deleted", "", f"{counted(unlocked, 'deleted backup')} can be restored", hint)
    if unread:
        folder, error = unread[0]
        message = f"cannot read versions or locks of {counted(len(unread), 'backup')} that may have been deleted"
        hint = (
            "Grant s3:GetObjectVersion and s3:GetObjectRetention, or check the store: a locked backup may be deleted."
        )
        findings.note("versions_unread", folder, f"{message}; the first: {error.message}", hint)


def _folder_of(version: Version) -> str:
    return "/".join(version.key.split("/")[:3])


def _is_ours(key: str) -> bool:
    """Return whether this package writes the key once. A pin may be written again, after unpin has deleted it."""
    parts = split_key(key) or split_set_key(key)
    return key == REPOSITORY_FILE or (parts is not None and parts[2] != PIN_FILE)
