"""drill: choose the backups to rehearse, so that the weekly drill reaches every series within a limit of bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, read_each
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.text import first_of, printing
from airflow_pgbackup.wording import command

NAMED = 5
"""Series that an error names."""

_warn = printing(logging.getLogger(__name__).warning)

_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_USABLE = frozenset({"verified", "written", "notproven"})


def choose_drill(
    repository: Repository, *, max_bytes: int, server: str | None = None, log: Callable[[str], None] = _warn
) -> list[dict[str, object]]:
    """Return the backups to rehearse now: the newest of each series whose turn it is.

    File names alone decide nothing: of each series the newest backups are read until one is usable, and those with the
    newest rehearsals until the files confirm one.

    :param max_bytes: the sum of the artifacts' sizes. If the series whose turn is first has a larger backup, that one
        is rehearsed in addition, at the end of the run.
    :param server: only the series of this server.
    :param log: takes a warning for each series without a usable backup; by default Python's logging.
    :return: references, for level ``restore``; at least one.
    :raises BackupNotFound: no series has a usable backup.
    :raises RepositoryError: the repository cannot be read.
    """
    now = datetime.now(timezone.utc)
    listed = read_catalogue(repository, server=server).by_series()
    with request_threads() as pool:
        read = dict(zip(listed, pool.map(lambda each: _read(repository, each, now), listed.values()), strict=True))
    found = {one.backup.folder: one for each in read.values() for one in each}
    chosen = whose_turn((one.backup for one in found.values()), max_bytes=max_bytes)
    unusable = {series: why for series, each in read.items() if (why := _unusable(each)) is not None}
    if not chosen:
        raise _nothing(repository, server, unusable)
    for series, why in unusable.items():
        log(f"warning: no backup of {series} can be rehearsed: {why}")
    return [reference_of(repository, found[backup.folder]) for backup in chosen]


def _unusable(read: Sequence[Evidence]) -> str | None:
    """Return why a series has no usable backup, by what was read of it; None if it has one."""
    if any(one.backup.state in _USABLE for one in read):
        return None
    if not read:
        return "all are from the future"
    newest = read[0].backup
    return f"{newest.id} {newest.standing}"


def _nothing(repository: Repository, server: str | None, unusable: dict[Series, str]) -> BackupNotFound:
    of_server = "" if server is None else f" of server {server}"
    if not unusable:
        return BackupNotFound(
            f"{repository.uri} has no backups{of_server} to rehearse",
            hint=f"Check the repository and the server's name. {command('list')} shows the backups.",
        )
    names = first_of([f"{series} ({why})" for series, why in unusable.items()], NAMED, "; ")
    return BackupNotFound(
        f"no backup{of_server} in {repository.uri} can be rehearsed: {names}",
        hint="Find out why the newest backups failed, and dump again.",
    )


def _read(repository: Repository, listed: Sequence[Backup], now: datetime) -> list[Evidence]:
    """Read the evidence of one series that decides whose turn it is, newest first."""
    past = [backup for backup in listed if backup.started_at <= now + SKEW]
    read = []
    for evidence in read_each(repository, past, now=now):
        read.append(evidence)
        if evidence.backup.state in _USABLE:
            break
    rehearsed = sorted((each for each in past if _rehearsed(each) > _NEVER), key=_rehearsed, reverse=True)
    last = _NEVER
    evidence_of = read_each(repository, rehearsed, now=now)
    for claim in rehearsed:
        if last >= _rehearsed(claim):
            break
        read.append(next(evidence_of))
        last = max(last, _rehearsed(read[-1].backup))
    return read


def _rehearsed(backup: Backup) -> datetime:
    return max((look.at for look in backup.verifications if look.level == "restore"), default=_NEVER)


def whose_turn(backups: Iterable[Backup], *, max_bytes: int) -> list[Backup]:
    """Return the backups whose turn it is, of these. Pure.

    First comes the series that was never rehearsed, or whose last rehearsal, passed or not, is the oldest; then those
    that still fit. The first does not count if it is larger than the limit: a rehearsal that never ends records
    nothing, so its series stays the first, and the others need their turns all the same. A series whose newest backup
    was rehearsed already still gets its turn: the rehearsal may have become impossible since. A failed or incomplete
    backup proves nothing more: the one before it is chosen.
    """
    newest: dict[object, Backup] = {}
    rehearsed: dict[object, datetime] = {}
    for backup in backups:
        rehearsed[backup.series] = max(_rehearsed(backup), rehearsed.get(backup.series, _NEVER))
        held = newest.get(backup.series)
        if backup.state in _USABLE and (held is None or backup.id > held.id):
            newest[backup.series] = backup
    waiting = sorted(newest.values(), key=lambda backup: (rehearsed[backup.series], backup.size, backup.folder))
    too_large = [backup for backup in waiting[:1] if backup.size > max_bytes]
    chosen: list[Backup] = []
    room = max_bytes
    for backup in waiting:
        if backup.size <= room:
            chosen.append(backup)
            room -= backup.size
    return chosen + too_large
