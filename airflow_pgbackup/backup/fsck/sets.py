"""Backup sets: each of their files is read, and what the newest complete set of a server names must exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.backup.fsck.inventory import Folder, take_inventory
from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.set_files import ListedSet, group_sets, read_set_file
from airflow_pgbackup.repository.set_layout import SetName
from airflow_pgbackup.text import first_of

_MOST_NAMED = 3


def check_sets(
    repository: Repository,
    entries: Iterable[Entry],
    folders: Mapping[str, Folder],
    now: datetime,
    findings: Faults,
    check_canceled: Callable[[], None],
) -> None:
    """Check the files of backup sets.

    Retention keeps the backups of a server's newest complete set, and removes those of older ones.

    :param entries: of these files, sorted by key.
    :param folders: of all backups, by key.
    """
    sets = group_sets(entries)

    def read(each: tuple[ListedSet, SetName]) -> BackupSet | RepositoryError | None:
        check_canceled()
        try:
            return read_set_file(repository, *each)
        except BackupNotFound:  # prune removes it at this moment
            return None
        except RepositoryError as error:
            return error

    every = [(listed, name) for listed in sets for name in listed.names]
    newest: dict[str, tuple[str, BackupSet]] = {}
    with request_threads(name="pgbackup-fsck") as pool:
        for (listed, name), found in zip(every, pool.map(read, every), strict=True):
            key = f"{listed.location}/{name.file}"
            if isinstance(found, ManifestError):
                findings.error("set", key, found.message, found.hint or "Check who wrote it.")
            elif isinstance(found, RepositoryError):
                findings.error("read", key, found.message, found.hint or "Check the repository's storage for faults.")
            elif name.at > now + SKEW:
                hint = "Check the clock of the worker that wrote it, and who wrote it; until then it is ignored."
                findings.warning("clock", key, f"was written in the future, at {name.at.isoformat()}", hint)
            elif found and name.status == "complete" and name == _counting(listed, now):
                # Those of a server come newest first.
                newest.setdefault(listed.server, (key, found))
    for key, found in newest.values():
        _check_members(repository, key, found, folders, findings)


def _counting(listed: ListedSet, now: datetime) -> SetName:
    return max(name for name in listed.names if name.at <= now + SKEW)


def _check_members(
    repository: Repository, key: str, found: BackupSet, folders: Mapping[str, Folder], findings: Faults
) -> None:
    members = [*([found.globals] if found.globals else []), *found.databases]
    names = [member.name for member in members]
    missing = [name for name in names if not _exists(repository, name, folders)]
    if missing:
        findings.warning(
            "set_member",
            key,
            f"names {len(missing)} of {len(members)} backups that do not exist: {first_of(missing, _MOST_NAMED)}",
            "Restore an older set, or dump the server again: restore-set cannot restore these databases.",
        )


def _exists(repository: Repository, name: str, folders: Mapping[str, Folder]) -> bool:
    found = folders.get(name)
    if found is None or not found.is_backup:
        try:  # the backup may be newer than the listing, or its folder could not be listed
            found = take_inventory(repository, name).folders.get(name)
        except RepositoryError:
            return True
    return found is not None and found.is_backup
