"""Whose turn it is to be rehearsed: a drill that comes round to every series, with so many bytes each time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from airflow_pgbackup.backup.reference import make_reference
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue, read_manifest

_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_USABLE = frozenset({"verified", "written", "notproven"})


def choose_drill(repository: Repository, *, max_bytes: int) -> list[dict[str, object]]:
    """The backups to rehearse now: the newest of each series whose turn it is.

    :param max_bytes: of artifacts together. A series that alone is larger has its turn by itself.
    :return: references, for level ``restore``.
    :raises RepositoryError: it cannot be read.
    """
    backups = whose_turn(read_catalogue(repository).backups, max_bytes=max_bytes)
    return [make_reference(repository, read_manifest(repository, each.series, each.id)) for each in backups]


def whose_turn(backups: Iterable[Backup], *, max_bytes: int) -> list[Backup]:
    """Of a catalogue's backups; pure.

    First the series that was never rehearsed, or whose last rehearsal is longest ago, passed or not; and after it
    those that still fit in. One whose newest backup has been rehearsed already still has its turn: the rehearsal
    may have become impossible since. A backup that failed, or is incomplete, proves nothing more: the one before it is
    taken.
    """
    newest: dict[object, Backup] = {}
    rehearsed: dict[object, datetime] = {}
    for backup in backups:
        seen = max((look.at for look in backup.verifications if look.level == "restore"), default=_NEVER)
        rehearsed[backup.series] = max(seen, rehearsed.get(backup.series, _NEVER))
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
