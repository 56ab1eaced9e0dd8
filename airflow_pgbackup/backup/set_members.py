"""Find the members of a backup set that cannot be used, from the files of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.interruption import THREADS, request_threads
from airflow_pgbackup.repository.backup_set import SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.evidence import MOST_BYTES, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.text import first_of

MISSING = "does not exist"


class SetMembers:
    """Reads the backups of sets, each once.

    :param proven: backups whose files the caller has read, in the states that these prove.
    :param limit: bytes of the files of a backup, see :func:`.read_evidence`.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        now: datetime | None = None,
        proven: Iterable[Backup] = (),
        limit: int = MOST_BYTES,
    ) -> None:
        self._repository, self._now, self._limit = repository, now, limit
        self._reasons = {one.identity: _reason(one) for one in proven}

    def unusable(self, members: Iterable[SetMember]) -> list[tuple[SetMember, str]]:
        """Return the members that do not exist, have failed verification, are incomplete or unreadable, each with the
        reason as the predicate of a sentence.

        :raises RepositoryError: the store did not answer.
        """
        wanted = list(members)
        with request_threads() as pool:
            reasons = list(pool.map(self._read, wanted))
        return [(member, why) for member, why in zip(wanted, reasons, strict=True) if why]

    def are_usable(self, members: Sequence[SetMember], *, first: Collection[Series] = ()) -> bool:
        """Return whether all members can be used, and read no more of them once one cannot.

        :param first: the series to read first.
        :raises RepositoryError: the store did not answer.
        """
        ordered = sorted(members, key=lambda one: one.parsed_series not in first)
        return not any(self.unusable(ordered[at : at + THREADS]) for at in range(0, len(ordered), THREADS))

    def _read(self, member: SetMember) -> str | None:
        key = member.identity
        if key not in self._reasons:
            try:
                found = read_evidence(self._repository, *key, now=self._now, limit=self._limit)
                self._reasons[key] = _reason(found.backup)
            except BackupNotFound:
                self._reasons[key] = MISSING
        return self._reasons[key]


def unusable_text(unusable: Iterable[tuple[SetMember, str]], most: int = 3) -> str:
    """Return the first of these members with their reasons as one line, and how many more there are."""
    return first_of([f"{member.database or 'globals'} {why}" for member, why in unusable], most, "; ")


def unusable_as_json(unusable: Iterable[tuple[SetMember, str]]) -> list[dict[str, object]]:
    """Return these members as plain JSON: ``database`` (None: the globals) and ``reason``."""
    return [{"database": member.database, "reason": reason} for member, reason in unusable]


def _reason(backup: Backup) -> str | None:
    return None if counts(backup, None) else backup.standing
