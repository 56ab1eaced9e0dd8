"""Backup sets: which backups one run made of the databases of a server, and what is missing.

A set is a folder ``<server>/@sets/<set id>/`` with files ``set-<UTC>-<complete|partial>.json``. Files are added and
never overwritten; the newest one counts. A set is no backup: it names backups, which are verified, copied and removed
without it. The databases of a set are not one snapshot: each was dumped on its own, at its own time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import ClassVar

from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.json_document import MAX_BYTES, Content, Document, moment
from airflow_pgbackup.repository.layout import (
    Series,
    SetName,
    backup_folder,
    decode_segment,
    is_key,
    parse_backup_id,
    set_folder,
    sets_folder,
    split_set_key,
)
from airflow_pgbackup.wording import command

KIND = "pgbackup set"
THREADS = 8


@dataclass(frozen=True, kw_only=True)
class SetMember:
    """One backup of a set.

    :param series: the folder of its series, names percent-encoded, as in references.
    :param database: None for the globals.
    :param size: bytes of the artifact. :param sha256: its digest, as in the backup's manifest.
    :param key: the artifact's key. :param level: at which it was verified when the set was written; None: it was not.
    """

    series: str
    id: str
    database: str | None
    size: int
    sha256: str
    key: str
    level: str | None

    @property
    def parsed_series(self) -> Series:
        return Series.parse(self.series)

    @classmethod
    def decode(cls, content: Content) -> SetMember:
        return cls(
            series=content["series"],
            id=content["id"],
            database=content["database"],
            size=int(content["size"]),
            sha256=content["sha256"],
            key=content["key"],
            level=content["level"],
        )


@dataclass(frozen=True)
class Absent:
    """A database that is not in a set, and why."""

    database: str
    reason: str

    @classmethod
    def decode(cls, content: Content) -> Absent:
        return cls(content["database"], content["reason"])


@dataclass(frozen=True, kw_only=True)
class BackupSet(Document):
    """What one run made of the databases of a server.

    :param status: ``complete`` or ``partial``: something is missing.
    :param started_at: of the run, aware UTC, whole seconds: that of the id. :param finished_at: when this was written.
    :param globals: the backup of roles and tablespaces. None with ``globals_missing`` None: not requested.
    :param globals_missing: why the globals that were requested are not in the set.
    :param databases: in the order in which to restore them, largest first.
    :param missing: databases that were to be dumped and have no usable backup of this run.
    :param left_out: databases that were not to be dumped: templates, those that accept no connections, excluded ones.
    :param dropped: databases of the server's previous set that do not exist any more.
    """

    schema: ClassVar[str] = "set"
    format_version: str = "1.0"
    kind: str = KIND
    id: str
    server: str
    status: str
    started_at: datetime
    finished_at: datetime
    server_version: str
    origin: Mapping[str, object] = field(default_factory=dict)
    globals: SetMember | None
    globals_missing: str | None = None
    databases: tuple[SetMember, ...]
    missing: tuple[Absent, ...] = ()
    left_out: tuple[Absent, ...] = ()
    dropped: tuple[str, ...] = ()
    snapshot: bool = False
    """Always False: the databases are not one snapshot."""

    @classmethod
    def _decode(cls, content: Content, unknown: Content) -> BackupSet:
        return cls(
            format_version=content["format_version"],
            unknown=unknown,
            id=content["id"],
            server=content["server"],
            status=content["status"],
            started_at=moment(content["started_at"]),
            finished_at=moment(content["finished_at"]),
            server_version=content["server_version"],
            origin=content["origin"],
            globals=None if content["globals"] is None else SetMember.decode(content["globals"]),
            globals_missing=content["globals_missing"],
            databases=tuple(SetMember.decode(each) for each in content["databases"]),
            missing=tuple(Absent.decode(each) for each in content["missing"]),
            left_out=tuple(Absent.decode(each) for each in content["left_out"]),
            dropped=tuple(content["dropped"]),
        )

    @property
    def members(self) -> tuple[SetMember, ...]:
        """All its backups, in the order in which to restore them: the globals first."""
        return (*((self.globals,) if self.globals else ()), *self.databases)

    @property
    def location(self) -> str:
        """Its folder in the repository."""
        return set_folder(self.server, self.id)

    @property
    def name(self) -> SetName:
        """The name of its file."""
        return SetName(self.finished_at, self.status)

    def _contradiction(self) -> str | None:
        if self.started_at != parse_backup_id(self.id):
            return f"{self.id} did not start at {self.started_at.isoformat()}"
        if (self.status == "partial") != bool(self.missing or self.globals_missing):
            return f"it is {self.status}, and {len(self.missing) + bool(self.globals_missing)} backups are missing"
        if self.globals and self.globals_missing:
            return "its globals are both present and missing"
        for member in self.members:
            series = _parsed(member.series)
            expected = Series(self.server, member.database, None if member is not self.globals else "globals")
            if series != expected or (member.database is None) != (member is self.globals):
                return f"{member.series!r} is not the series of a member of this set"
            if not (is_key(member.key) and member.key.startswith(f"{backup_folder(series, member.id)}/")):
                return f"{member.key!r} is not a key of backup {member.series}/{member.id}"
        names = [member.database for member in self.databases]
        names += [each.database for each in (*self.missing, *self.left_out)]
        if len(set(names)) < len(names):
            return "it lists a database twice"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSet:
    """A backup set as a listing shows it.

    :param started_at: when its run started, by its id. :param names: of its files, oldest first.
    :param others: keys in its folder that are not such files.
    """

    server: str
    id: str
    started_at: datetime
    names: tuple[SetName, ...]
    others: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        return set_folder(self.server, self.id)

    @property
    def status(self) -> str:
        """``complete`` or ``partial``: that of the newest file."""
        return self.names[-1].status

    @property
    def finished_at(self) -> datetime:
        return self.names[-1].at


def list_sets(repository: Repository, server: str | None = None) -> list[ListedSet]:
    """Return the backup sets of a repository, by server, newest first; from listings alone.

    :param server: only those of this server.
    :raises RepositoryNotFound: there is no repository, which is not the same as an empty one.
    """
    repository.uuid  # noqa: B018
    servers = [name for folder in repository.folders() if (name := _decoded(folder))] if server is None else [server]
    with ThreadPoolExecutor(THREADS) as pool:
        each = pool.map(lambda name: group_sets(repository.list(sets_folder(name))), sorted(servers))
        return [one for found in each for one in found]


def group_sets(entries: Iterable[Entry]) -> list[ListedSet]:
    """Return the sets that a listing shows, by server, newest first.

    :param entries: sorted by key, as :meth:`.Repository.list` returns them.
    """
    sets = []
    for folder, group in groupby(_in_sets(entries), key=lambda each: each[:2]):
        server, set_id = folder
        members = list(group)
        names = {path: SetName.parse(path) for _, _, path, _ in members}
        started_at = parse_backup_id(set_id)
        assert started_at is not None  # noqa: S101  split_set_key has checked it
        if known := sorted(name for name in names.values() if name):
            others = tuple(key for _, _, path, key in members if names[path] is None)
            sets.append(ListedSet(server=server, id=set_id, started_at=started_at, names=tuple(known), others=others))
    sets.sort(key=lambda one: one.id, reverse=True)
    return sorted(sets, key=lambda one: one.server)


def find_set(repository: Repository, server: str, set_id: str) -> ListedSet:
    """Return one backup set, from one listing of its folder.

    :raises BackupNotFound: it does not exist.
    """
    repository.uuid  # noqa: B018
    if parse_backup_id(set_id) is not None:
        for found in group_sets(repository.list(set_folder(server, set_id))):
            return found
    raise BackupNotFound(
        f"{repository.uri} has no backup set {server}/@sets/{set_id}",
        hint=f"List the sets with {command('list --sets')}.",
    )


def read_set(repository: Repository, server: str, set_id: str, *, now: datetime | None = None) -> BackupSet:
    """Return what the newest file of a backup set says. Files from the future are ignored.

    :param now: with a time zone; by default the current time.
    :raises BackupNotFound: there is no such set.
    :raises ManifestError: the newest file is invalid; older ones then do not count either.
    """
    return read_listed_set(repository, find_set(repository, server, set_id), now=now)


def read_listed_set(repository: Repository, listed: ListedSet, *, now: datetime | None = None) -> BackupSet:
    """Return what the newest file of a listed set says, as :func:`read_set` does."""
    newest = _newest(listed, now or datetime.now(timezone.utc))
    if newest is None:
        raise ManifestError(
            f"every file of backup set {listed.location} is from the future",
            hint="Check the clocks of the workers, and who wrote the files.",
        )
    key = f"{listed.location}/{newest.file}"
    hint = f"Check who wrote {repository.location(key)}. If you remove it, the file before it counts."
    try:
        with repository.read(key) as stream:
            found = BackupSet.from_json(stream.read(MAX_BYTES + 1))
    except ManifestError as error:
        message = f"backup set {listed.location} cannot be read: {error.message}"
        raise ManifestError(message, hint=error.hint or hint) from None
    if (found.server, found.id, found.name) != (listed.server, listed.id, newest):
        raise ManifestError(
            f"backup set {listed.location} cannot be read: {newest.file} is {found.name.file} of {found.location}",
            hint=hint,
        )
    return found


def write_set(repository: Repository, wanted: BackupSet) -> BackupSet:
    """Add a set to the repository, unless its newest file says the same.

    :param wanted: its ``finished_at`` is replaced: by the time of writing, and at any rate later than the files that
        exist, whatever the clocks say.
    :return: the set that counts now.
    :raises ManifestError: the set contradicts itself.
    :raises RepositoryError: it could not be written; a retry finds out.
    """
    now = datetime.now(timezone.utc)
    try:
        listed = find_set(repository, wanted.server, wanted.id)
    except BackupNotFound:
        newest = None
    else:
        newest = _newest(listed, now)
        try:
            found = read_listed_set(repository, listed, now=now)
        except ManifestError:
            found = None  # a new file takes its place
        if found is not None and _says(found) == _says(wanted):
            return found
    at = max(now, newest.at + timedelta(microseconds=1)) if newest else now
    written = replace(wanted, finished_at=at)
    data = written.to_json()
    BackupSet.from_json(data)  # only what can be read is written
    repository.write_bytes(f"{written.location}/{written.name.file}", data)
    return written


def is_set_key(key: str) -> bool:
    """Return whether a key is that of a file of a backup set."""
    split = split_set_key(key)
    return split is not None and SetName.parse(split[2]) is not None


def _newest(listed: ListedSet, now: datetime) -> SetName | None:
    return max((name for name in listed.names if name.at <= now + SKEW), default=None)


def _says(one: BackupSet) -> BackupSet:
    """Return a set without who wrote it, and when: two that say the same are equal."""
    return replace(one, finished_at=one.started_at, origin={})


def _in_sets(entries: Iterable[Entry]) -> Iterator[tuple[str, str, str, str]]:
    for entry in entries:
        if split := split_set_key(entry.key):
            yield (*split, entry.key)


def _decoded(folder: str) -> str | None:
    try:
        return decode_segment(folder)
    except ValueError:
        return None


def _parsed(path: str) -> Series | None:
    try:
        return Series.parse(path)
    except ValueError:
        return None
