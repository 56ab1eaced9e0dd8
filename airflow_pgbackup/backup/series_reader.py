"""Read the few backups of a series that answer common questions about it, each once.

File names say which backups to read; what counts is what their files prove, see :mod:`.evidence`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.evidence import MOST_BYTES, Evidence, may_count, read_evidence, unreadable
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.repository.verification import Verification, last_count

MOST_READ = 10
"""How many backups of a series are read for one question. Only file names that claim what the files do not prove need
more than one; a series in which ten do so counts as never verified."""


class SeriesReader:
    """Reads the backups of one series, each once."""

    def __init__(self, repository: Repository, now: datetime, *, limit: int = MOST_BYTES) -> None:
        self._repository, self._now, self._limit = repository, now, limit
        self._found: dict[str, Evidence] = {}

    def read(self, backup: Backup) -> Evidence:
        if backup.id not in self._found:
            try:
                found = read_evidence(self._repository, backup.series, backup.id, now=self._now, limit=self._limit)
            except BackupNotFound:
                found = unreadable(backup, "it disappeared during the operation")
            self._found[backup.id] = found
        return self._found[backup.id]

    @property
    def proven(self) -> list[Backup]:
        """The backups read so far, in the states that their files prove."""
        return [found.backup for found in self._found.values()]

    def newest_verified(self, listed: Iterable[Backup], level: str) -> Evidence | None:
        """Return the newest backup that its files prove to be verified at this level or above."""
        claiming = [one for one in listed if may_count(one, level)]
        return next((found for found in map(self.read, claiming[:MOST_READ]) if counts(found.backup, level)), None)

    def last_rehearsal(self, listed: Iterable[Backup]) -> Verification | None:
        """Return the last verification at level ``restore`` that passed, of whichever backup."""
        claiming = [
            (max(times), one)
            for one in listed
            if (times := [seen.at for seen in one.verifications if _is_rehearsal(seen.level, seen.result)])
        ]
        claiming.sort(key=lambda each: each[0], reverse=True)
        for _, backup in claiming[:MOST_READ]:
            for seen in reversed(self.read(backup).verifications):
                if _is_rehearsal(seen.level, seen.result):
                    return seen
        return None


def rows_of(verifications: Sequence[Verification]) -> int | None:
    """Return the rows of a backup by the newest verification that counted them; None: none has."""
    seen = last_count(verifications)
    return None if seen is None else sum(table.rows for table in seen.tables)


def _is_rehearsal(level: str, result: str) -> bool:
    return (level, result) == ("restore", "pass")
