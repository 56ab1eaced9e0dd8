"""In which order prune deletes backups, and which of them after what was read since it decided.

The backups of each server's complete set before the newest one come last: if a backup of the newest set fails while
older ones are deleted, those of the set before stay, of all series.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby

from airflow_pgbackup.backup.kept_backups import KeptBackups
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import Decision

_Confirm = Callable[[Sequence[Decision]], list[Decision]]


class RemovalOrder:
    """Iterates over the backups to delete; each series is confirmed immediately before its first one.

    :param decisions: those of a series follow each other.
    :param last: the backups that come after all others, if they are to be deleted at all.
    :ivar decisions: as they are by now.
    """

    def __init__(
        self, kept: KeptBackups, decisions: Sequence[Decision], last: Collection[tuple[Series, str]] = frozenset()
    ) -> None:
        self.decisions = list(decisions)
        self._kept = kept
        self._last = last
        self._removed = set[tuple[Series, str]]()

    def __iter__(self) -> Iterator[Backup]:
        """Yield the oldest of each series first: if something interrupts the deletions, the newest backups remain.

        :raises RepositoryError: the store did not answer.
        :raises Canceled: before each backup.
        """
        self._confirm_all()
        yield from self._wave(last=False)
        if self._removed and any(self._is_due(one, last=True) for one in self.decisions):
            self._confirm_all()
        yield from self._wave(last=True)

    def _wave(self, *, last: bool) -> Iterator[Backup]:
        decisions, self.decisions = self.decisions, []
        for _, group in groupby(decisions, key=lambda decision: decision.backup.series):
            mine = list(group)
            if any(self._is_due(one, last=last) for one in mine):
                mine = self._confirmed(mine, self._kept.confirm)
            self.decisions += mine
            due = [one.backup for one in mine if self._is_due(one, last=last)]
            for backup in sorted(due, key=lambda one: (one.started_at, one.id)):
                self._removed.add(backup.identity)
                yield backup

    def _is_due(self, decision: Decision, *, last: bool) -> bool:
        key = decision.backup.identity
        return not decision.keep and key not in self._removed and (key in self._last) == last

    def _confirm_all(self) -> None:
        self.decisions = self._confirmed(self.decisions, self._kept.confirm_all)

    def _confirmed(self, decisions: list[Decision], confirm: _Confirm) -> list[Decision]:
        """Return the decisions as confirmed; those about backups that are deleted already as they are."""
        there = [one for one in decisions if one.backup.identity not in self._removed]
        confirmed = confirm(there)
        now = {one.backup.identity: one for one in confirmed}
        return [now.get(one.backup.identity, one) for one in decisions]
