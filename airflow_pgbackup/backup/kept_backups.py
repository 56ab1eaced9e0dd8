"""The backups that a prune keeps, and whether they still justify its deletions when it carries them out.

The decisions may be hours old, and a backup may have failed verification or disappeared since. Before the first
deletion the kept backups are listed again, over all series, and immediately before the deletions of a series those of
that series once more. Only what has changed is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone

from airflow_pgbackup.backup.set_members import SetMembers
from airflow_pgbackup.errors import BackupNotFound, RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.backup_set import SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, find_folder
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import Evidence, read_evidence, unreadable
from airflow_pgbackup.repository.layout import Series, VerificationName
from airflow_pgbackup.repository.retention import Decision, Policy, counts


def current_time() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class KeptBackups:
    """The evidence that a prune has read, and what must not be deleted because of what was read since.

    :param now: when the prune began, by the clock that it was given. What is read later is read as of later: otherwise
        a failure recorded meanwhile would be ignored as one from the future.
    :param note: takes a line for people.
    :param members: the backups of the newest complete sets: if one of them fails, its server keeps older sets.
    """

    repository: Repository
    policy: Policy
    now: datetime
    cancel: Cancel
    note: Callable[[str], None]
    members: dict[tuple[Series, str], SetMember]
    _seen: dict[str, tuple[int, Backup]] = field(default_factory=dict)
    _held: dict[Series | str, str] = field(default_factory=dict)
    _began: datetime = field(default_factory=lambda: current_time())

    def read(self, backups: Iterable[Backup]) -> dict[str, tuple[Backup, list[str]]]:
        """Return backups as their files prove them, and what their file names claim wrongly, by their folders.

        One that cannot be read is unreadable. The rest of the evidence is not kept: it may list thousands of tables for
        each verification.

        :raises Canceled: before each backup.
        """
        wanted = list(backups)

        def read(backup: Backup) -> tuple[Backup, list[str]]:
            evidence = self._read(backup)
            return evidence.backup, evidence.shortcomings()

        with request_threads() as pool:
            return {one.folder: found for one, found in zip(wanted, pool.map(read, wanted), strict=True)}

    def confirm_all(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Confirm all decisions of this prune.

        If only some series are pruned, this also reads the backups of the others in the newest complete sets.

        :return: as :meth:`confirm`.
        :raises RepositoryError: the store did not answer.
        """
        servers = {decision.backup.series.server for decision in decisions if not decision.keep}
        decided = {decision.backup.identity for decision in decisions}
        others = [one for key, one in self.members.items() if key[0].server in servers and key not in decided]
        with request_threads() as pool:
            for member, reason in zip(others, pool.map(self._why_unusable, others), strict=True):
                if reason:
                    self._hold_server(member.parsed_series, member.id, reason)
        return self.confirm(decisions)

    def confirm(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Return the decisions, without the deletions that are no longer justified.

        If a kept backup that counted does so no longer, nothing of its series is deleted; if it belongs to the newest
        complete set, nothing of its server. The next prune decides again.

        :raises Canceled: before each backup.
        """
        series = {decision.backup.series for decision in decisions if not decision.keep}
        servers = {one.server for one in series}
        counted = [d.backup for d in decisions if d.keep and d.backup.series in series and self.policy.counts(d.backup)]
        members = [
            d.backup for d in decisions if d.backup.series.server in servers and d.backup.identity in self.members
        ]
        now = self._current({one.folder: one for one in (*counted, *members)})
        for one in members:
            if not counts(backup := now[one.folder], None):
                self._hold_server(backup.series, backup.id, backup.standing)
        for one in counted:
            if not self.policy.counts(backup := now[one.folder]):
                why = f"kept backup {backup.id} no longer counts: it {backup.standing}"
                self.hold(one.series, why)
        return self.apply(decisions)

    def hold(self, what: Series | str, why: str) -> None:
        """Keep all backups of a series, or of a server."""
        if what not in self._held:
            self._held[what] = why
            self.note(f"{what}: {why}: nothing is deleted")

    def apply(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Return decisions without the deletions of what is held."""
        return [self._unless_held(decision) for decision in decisions]

    def _hold_server(self, series: Series, id: str, reason: str) -> None:
        self.hold(series.server, f"backup {series}/{id} of the newest complete set {reason}")

    def _unless_held(self, decision: Decision) -> Decision:
        series = decision.backup.series
        why = self._held.get(series) or self._held.get(series.server)
        return decision if decision.keep or why is None else Decision(decision.backup, True, (why,))

    def _current(self, backups: Mapping[str, Backup]) -> dict[str, Backup]:
        with request_threads() as pool:
            return dict(zip(backups, pool.map(self._read_if_changed, backups.values()), strict=True))

    def _read_if_changed(self, backup: Backup) -> Backup:
        self.cancel.check()
        if seen := self._seen.get(backup.folder):
            with suppress(RepositoryError):  # reading it says why
                if _fingerprint(find_folder(self.repository, backup.series, backup.id)[1]) == seen[0]:
                    return seen[1]
        return self._read(backup).backup

    def _why_unusable(self, member: SetMember) -> str | None:
        self.cancel.check()
        try:
            unusable = SetMembers(self.repository, now=self._now()).unusable([member])
            return unusable[0][1] if unusable else None
        except RepositoryError as error:
            return f"cannot be read: {error.message}"

    def _now(self) -> datetime:
        return self.now + (current_time() - self._began)

    def _read(self, backup: Backup) -> Evidence:
        self.cancel.check()
        now = self._now()
        try:
            evidence = read_evidence(self.repository, backup.series, backup.id, now=now)
        except BackupNotFound:
            return unreadable(backup, "it disappeared during the operation")
        except RepositoryError as error:  # of this one: it is kept, and ignored by the rules
            return unreadable(backup, error.message)
        if not _has_later(evidence.entries, now):
            self._seen[backup.folder] = _fingerprint(evidence.entries), evidence.backup
        return evidence


def _has_later(entries: Mapping[str, Entry], now: datetime) -> bool:
    """Return whether a verification is from the future, and may count when it is read again."""
    return any((name := VerificationName.parse(path)) is not None and name.at > now + SKEW for path in entries)


def _fingerprint(entries: Mapping[str, Entry]) -> int:
    """Return what changes with any name, size, time or version in a folder; small, as there may be many backups."""
    return hash(frozenset(entries.items()))
