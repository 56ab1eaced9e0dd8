"""Find which backups prune must keep for their sets, and which sets have no backups left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow_pgbackup.backup.set_members import SetMembers
from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.backup_set import BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, Catalogue
from airflow_pgbackup.repository.evidence import MOST_BYTES
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.repository.set_files import ListedSet, list_sets, read_listed_set

_AHEAD = 32


@dataclass
class ServerSets:
    """The backup sets of some servers, newest first, while a prune decides.

    :param note: takes a line for people about a set that cannot be read.
    :ivar newest_complete: by server, the newest set that is complete.
    :ivar newest_usable: by server, the newest complete set whose backups all exist and have not failed: an older one,
        if somebody removed a backup of the newest, or one failed its verification.
    :ivar unjudged: by server, why its newest complete set is unknown: the store refuses to read a newer one.
    """

    repository: Repository
    now: datetime
    note: Callable[[str], None]
    listed: Mapping[str, Sequence[ListedSet]]
    newest_complete: dict[str, BackupSet] = field(default_factory=dict)
    newest_usable: dict[str, BackupSet] = field(default_factory=dict)
    _newest_backup: dict[Series, datetime] = field(default_factory=dict)
    unjudged: dict[str, str] = field(default_factory=dict)
    _unread: list[BackupSet] = field(default_factory=list)
    _refused: dict[str, str] = field(default_factory=dict)
    _contents: dict[str, BackupSet | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        repository: Repository,
        catalogue: Catalogue,
        now: datetime,
        note: Callable[[str], None],
        *,
        complete: bool,
        stored_by: datetime | None = None,
        all_servers: bool = False,
        limit: int = MOST_BYTES,
        most_sets: int | None = None,
    ) -> ServerSets:
        """List the sets of the servers of a catalogue, and find the newest complete ones of each.

        :param complete: the catalogue has all series of its servers; otherwise the backups of others are read.
        :param stored_by: ignore files of sets that were stored after this.
        :param all_servers: also list the sets of servers without any backup.
        :param limit: bytes of the files of a backup, see :func:`.read_evidence`.
        :param most_sets: read the backups of no more complete sets of a server than this; 0: only find the newest.
        """
        there = {backup.identity for backup in catalogue.backups}
        known = catalogue.by_series()
        reader = SetMembers(repository, now=now, limit=limit)

        def all_exist(members: Sequence[SetMember]) -> bool:
            expected = [one for one in members if complete or one.parsed_series in known]
            return all(one.identity in there for one in expected)

        servers = sorted({series.server for series in known})
        every = (
            list_sets(repository) if all_servers else [one for name in servers for one in list_sets(repository, name)]
        )
        listed: dict[str, list[ListedSet]] = {server: [] for server in servers}
        for one in every if stored_by is None else _as_stored(every, stored_by):
            listed.setdefault(one.server, []).append(one)
        found = cls(repository, now, note, listed)
        for backup in catalogue.backups:
            if backup.started_at <= now + SKEW:
                newest = found._newest_backup.get(backup.series, backup.started_at)
                found._newest_backup[backup.series] = max(newest, backup.started_at)
        for server, sets in found.listed.items():
            read = 0
            for one in sets:
                content = found._read(one) if one.started_at <= now + SKEW else None
                if one.location in found._refused and one.status == "complete":
                    found.unjudged.setdefault(server, found._refused[one.location])
                if content is None or content.status != "complete":
                    continue
                found.newest_complete.setdefault(server, content)
                if most_sets == 0:
                    break
                if not (content.members and all_exist(content.members)):
                    continue
                if read == most_sets:
                    note(
                        f"the newest {read} complete backup sets of {server} have backups that cannot be used; "
                        "older sets are not read here"
                    )
                    break
                read += 1
                try:
                    usable = reader.are_usable(content.members)
                except RepositoryError as error:  # of one backup: the set is kept, and so is the next one
                    note(f"backup set {content.location}: a backup of it cannot be read: {error.message}")
                    found._unread.append(content)
                    continue
                if usable:
                    found.newest_usable[server] = content
                    break
        return found

    def kept(self) -> dict[tuple[Series, str], str]:
        """Return the members of the newest complete sets of each server, with the reason why they are kept."""
        reasons: tuple[tuple[str, Iterable[BackupSet]], ...] = (  # the last one counts
            ("in set {}, in which one backup cannot be read", self._unread),
            ("in the newest complete set {} that has all its backups", self.newest_usable.values()),
            ("in the newest complete set {}", self.newest_complete.values()),
        )
        return {
            member.identity: reason.format(one.id) for reason, sets in reasons for one in sets for member in one.members
        }

    def usable_members(self) -> dict[tuple[Series, str], SetMember]:
        """Return the members of the newest sets whose backups all exist and have not failed."""
        return {one.identity: one for found in self.newest_usable.values() for one in found.members}

    def members_before_newest(self, backups: Sequence[Backup]) -> set[tuple[Series, str]]:
        """Return the members of each server's last complete set before its newest usable one, of those sets whose
        backups all exist and have not failed: what the server has if a backup of the newest fails.

        :param backups: those of some series; members in others are taken to exist.
        """
        known = {backup.series for backup in backups}
        usable = {backup.identity for backup in backups if counts(backup, None)}
        found = set[tuple[Series, str]]()
        for server, newest in self.newest_usable.items():
            for one in self.listed[server]:
                content = self._read(one) if one.started_at < newest.started_at else None
                if content is None or content.status != "complete":
                    continue
                members = {each.identity for each in content.members if each.parsed_series in known}
                if members and members <= usable:
                    found |= members
                    break
        return found

    def newest(self, server: str) -> BackupSet | None:
        """Return the newest set of a server that can be read, complete or not; None: there is none."""
        past = (one for one in self.listed[server] if one.started_at <= self.now + SKEW)
        return next((content for one in past if (content := self._read(one)) is not None), None)

    def dropped(self, series: Collection[Series]) -> set[Series]:
        """Return the series of databases that were not on their server when its newest complete set was made.

        A database that a newer set names, even as missing, exists, as does one with a newer backup. If a newer set
        cannot be read, nothing is known to be dropped.
        """
        found = set[Series]()
        for server, newest in self.newest_complete.items():
            names: set[str | None] | None = _names(newest)
            for one in self.listed[server]:
                if names is None or one.started_at <= newest.started_at:
                    break
                if one.started_at <= self.now + SKEW:
                    content = self._read(one)
                    names = None if content is None else names | _names(content)
            if names is not None:
                absent = {one for one in series if one.server == server and one.database and one.database not in names}
                found |= {one for one in absent if self._newest_backup.get(one, newest.started_at) <= newest.started_at}
        return found

    def dropped_since(self, series: Collection[Series]) -> dict[Series, list[datetime]]:
        """Return, for the series of databases that were in a set and no longer exist, when complete sets of the server
        were made without them since, newest first.

        :param series: those of these servers that have backups.
        """
        found: dict[Series, list[datetime]] = {}
        dropped = self.dropped(series)
        for server, newest in self.newest_complete.items():
            absent = {one for one in dropped if one.server == server}
            since: list[datetime] = []
            for number, one in enumerate(self.listed[server]):
                if not absent:
                    break
                if number and number % _AHEAD == 0:  # all sets, perhaps: one of them may never have been in any
                    with request_threads() as pool:
                        list(pool.map(self._read, self.listed[server][number : number + _AHEAD]))
                if one.started_at > newest.started_at or (content := self._read(one)) is None:
                    continue
                members = {member.parsed_series for member in content.databases}
                found |= {each: list(since) for each in absent & members}
                absent -= members
                if content.status == "complete":
                    since.append(content.started_at)
        return found

    def without_backups(self, remaining: Iterable[Backup]) -> list[ListedSet]:
        """Return the sets of which no member remains, oldest first. The newest set, and the newest complete one, stay.

        :param remaining: all backups of these servers that are not deleted.
        """
        there = {backup.identity for backup in remaining}
        empty = []
        for server, sets in self.listed.items():
            complete = self.newest_complete.get(server)
            for one in sets[1:]:
                if complete is not None and one.id == complete.id:
                    continue
                content = self._read(one)
                if content and not any(m.identity in there for m in content.members):
                    empty.append(one)
        return sorted(empty, key=lambda one: one.id)

    def _read(self, one: ListedSet) -> BackupSet | None:
        if one.location not in self._contents:
            try:
                self._contents[one.location] = read_listed_set(self.repository, one, now=self.now)
            except (BackupNotFound, ManifestError) as error:
                self.note(f"{one.location}: {error.message}")
                self._contents[one.location] = None
            except RepositoryError as error:  # of this one, as listing the sets succeeded
                self.note(f"{one.location}: {error.message}")
                self._contents[one.location] = None
                self._refused[one.location] = f"backup set {one.location} cannot be read: {error.message}"
        return self._contents[one.location]


def _as_stored(sets: Iterable[ListedSet], moment: datetime) -> list[ListedSet]:
    return [stored for one in sets if (stored := one.as_stored(moment)) is not None]


def _names(one: BackupSet) -> set[str | None]:
    """Return the names of all databases that a server had when a set was made."""
    names = {each.database for each in one.databases}
    return names | {each.database for each in (*one.missing, *one.left_out)}


def remove_set(repository: Repository, one: ListedSet) -> None:
    """Delete the files of a set, the newest last: until then, the set says the same.

    :raises RepositoryError: a file cannot be deleted.
    """
    keys = [f"{one.location}/{name.file}" for name in one.names]
    if keys[:-1]:
        repository.delete(keys[:-1])
    repository.delete(keys[-1:])
