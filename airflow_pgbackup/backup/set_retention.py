"""Which backups their sets keep from prune, and which sets have no backups any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.repository.backup_set import BackupSet, ListedSet, list_sets, read_listed_set
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series


@dataclass
class ServerSets:
    """The backup sets of some servers, newest first, while a prune decides.

    :param note: takes a line for people about a set that cannot be read.
    :ivar newest_complete: by server, the newest set that is complete.
    """

    repository: Repository
    now: datetime
    note: Callable[[str], None]
    listed: Mapping[str, Sequence[ListedSet]]
    newest_complete: dict[str, BackupSet] = field(default_factory=dict)

    @classmethod
    def of(
        cls, repository: Repository, servers: Iterable[str], now: datetime, note: Callable[[str], None]
    ) -> ServerSets:
        """List the sets of these servers, and find the newest complete one of each."""
        found = cls(repository, now, note, {server: list_sets(repository, server) for server in sorted(set(servers))})
        for server, sets in found.listed.items():
            for one in sets:
                content = found._read(one) if one.started_at <= now + SKEW else None
                if content is not None and content.status == "complete":
                    found.newest_complete[server] = content
                    break
        return found

    def kept(self) -> dict[tuple[Series, str], str]:
        """Return the members of the newest complete set of each server, with the reason why they are kept."""
        return {
            (member.parsed_series, member.id): f"in the newest complete set {one.id}"
            for one in self.newest_complete.values()
            for member in one.members
        }

    def without_backups(self, remaining: Iterable[Backup]) -> list[ListedSet]:
        """Return the sets of which no member remains, oldest first. The newest set, and the newest complete one, stay.

        :param remaining: all backups of these servers that are not deleted.
        """
        there: dict[str, set[tuple[Series, str]]] = {}
        starts: dict[str, list[datetime]] = {}
        for backup in remaining:
            there.setdefault(backup.series.server, set()).add((backup.series, backup.id))
            starts.setdefault(backup.series.server, []).append(backup.started_at)
        empty: list[ListedSet] = []
        for server, sets in self.listed.items():
            complete = self.newest_complete.get(server)
            for one in sets[1:]:
                # A backup that started during the run of the set is a member, or near enough: no file needs to be read.
                during = (one.started_at - SKEW <= at <= one.names[0].at for at in starts.get(server, ()))
                if (complete is not None and one.id == complete.id) or any(during):
                    continue
                content = self._read(one)
                if content is None:
                    continue
                if not any((m.parsed_series, m.id) in there.get(server, ()) for m in content.members):
                    empty.append(one)
        return sorted(empty, key=lambda one: one.id)

    def _read(self, one: ListedSet) -> BackupSet | None:
        try:
            return read_listed_set(self.repository, one, now=self.now)
        except (BackupNotFound, ManifestError) as error:
            self.note(f"{one.location}: {error.message}")
            return None


def remove_set(repository: Repository, one: ListedSet) -> None:
    """Delete the files of a set, the newest last: until then, the set says the same.

    :raises RepositoryError: a file cannot be deleted.
    """
    keys = [f"{one.location}/{name.file}" for name in one.names]
    if keys[:-1]:
        repository.delete(keys[:-1])
    repository.delete(keys[-1:])
