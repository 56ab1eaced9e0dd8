"""Whose turn it is to be rehearsed: a drill that comes round to every series, with so many bytes each time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import THREADS, Backup, read_catalogue
from airflow_pgbackup.repository.evidence import SKEW, Evidence, read_each

_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_USABLE = frozenset({"verified", "written", "notproven"})


def choose_drill(repository: Repository, *, max_bytes: int) -> list[dict[str, object]]:
    """The backups to rehearse now: the newest of each series whose turn it is.

    File names alone decide nothing: of each series the newest backups are read until one is usable, and those with the
    newest rehearsals until one of them is real.

    :param max_bytes: of artifacts together. A series that alone is larger has its turn by itself.
    :return: references, for level ``restore``.
    :raises RepositoryError: it cannot be read.
    """
    now = datetime.now(timezone.utc)
    members = list(read_catalogue(repository).by_series().values())
    with ThreadPoolExecutor(THREADS) as pool:
        read = [one for found in pool.map(lambda each: _read(repository, each, now), members) for one in found]
    found = {one.backup.folder: one for one in read}
    chosen = whose_turn((one.backup for one in found.values()), max_bytes=max_bytes)
    return [reference_of(repository, found[backup.folder]) for backup in chosen]


def _read(repository: Repository, listed: Sequence[Backup], now: datetime) -> list[Evidence]:
    """Of one series, newest first: what decides whose turn it is."""
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
    """Of these backups; pure.

    First the series that was never rehearsed, or whose last rehearsal is longest ago, passed or not; and after it
    those that still fit in. One whose newest backup has been rehearsed already still has its turn: the rehearsal
    may have become impossible since. A backup that failed, or is incomplete, proves nothing more: the one before it is
    taken.
    """
    newest: dict[object, Backup] = {}
    rehearsed: dict[object, datetime] = {}
    for backup in backups:
        rehearsed[backup.series] = max(_rehearsed(backup), rehearsed.get(backup.series, _NEVER))
        held = newest.get(backup.series)
        if backup.state in _USABLE and (held is None or backup.id > held.id):
            newest[backup.series] = backup
    waiting = sorted(newest.values(), key=lambda backup: (rehearsed[backup.series], backup.size, backup.folder))
    chosen: list[Backup] = []
    room = max_bytes
    for backup in waiting:
        if not chosen or backup.size <= room:
            chosen.append(backup)
            room -= backup.size
    return chosen
