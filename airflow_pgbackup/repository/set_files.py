"""The files of backup sets: listing, finding, reading and adding them; see :mod:`.backup_set`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import groupby

from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.json_document import MAX_BYTES
from airflow_pgbackup.repository.layout import decode_segment, parse_backup_id
from airflow_pgbackup.repository.set_layout import SetName, set_folder, sets_folder, split_set_key
from airflow_pgbackup.wording import command


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSet:
    """A backup set as a listing shows it.

    :param started_at: when its run started, by its id.
    :param names: of its files, oldest first.
    :param stored_at: when each of these files was written, in their order, by the clock of the store.
    :param others: keys in its folder that are not such files.
    """

    server: str
    id: str
    started_at: datetime
    names: tuple[SetName, ...]
    stored_at: tuple[datetime, ...]
    others: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        return set_folder(self.server, self.id)

    @property
    def status(self) -> str:
        """``complete`` or ``partial``: that of the newest file. Files from the future are ignored."""
        newest = _newest(self, datetime.now(timezone.utc))
        return newest.status if newest else "partial"

    def as_stored(self, moment: datetime) -> ListedSet | None:
        """Return the set as it was stored at a moment, by the clock of the store; None if no file of it was."""
        stored = [(name, at) for name, at in zip(self.names, self.stored_at, strict=True) if at <= moment]
        if not stored:
            return None
        return replace(self, names=tuple(name for name, _ in stored), stored_at=tuple(at for _, at in stored))


def list_sets(repository: Repository, server: str | None = None) -> list[ListedSet]:
    """Return the backup sets of a repository, by server, newest first; from listings alone.

    :param server: only those of this server.
    :raises RepositoryNotFound: there is no repository, which is not the same as an empty one.
    """
    repository.uuid  # noqa: B018
    servers = [name for folder in repository.folders() if (name := _decoded(folder))] if server is None else [server]
    with request_threads() as pool:
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
        modified = {name: entry.modified for _, _, path, entry in members if (name := names[path])}
        started_at = parse_backup_id(set_id)
        assert started_at is not None  # noqa: S101  split_set_key has checked it
        if known := sorted(modified):
            others = tuple(entry.key for _, _, path, entry in members if names[path] is None)
            stored_at = tuple(modified[name] for name in known)
            one = ListedSet(
                server=server, id=set_id, started_at=started_at, names=tuple(known), stored_at=stored_at, others=others
            )
            sets.append(one)
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

    For scripts of users, and tests: the verbs list sets first, and use :func:`read_listed_set`.

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
    return read_set_file(repository, listed, newest)


def read_set_file(repository: Repository, listed: ListedSet, name: SetName) -> BackupSet:
    """Return what one file of a listed set says.

    :raises BackupNotFound: the file disappeared.
    :raises ManifestError: it is invalid, or that of another set.
    """
    key = f"{listed.location}/{name.file}"
    hint = f"Check who wrote {repository.location(key)}. If you remove it, the file before it counts."
    try:
        with repository.read(key) as stream:
            found = BackupSet.from_json(stream.read(MAX_BYTES + 1))
    except ManifestError as error:
        message = f"backup set {listed.location} cannot be read: {error.message}"
        raise ManifestError(message, hint=error.hint or hint) from None
    if (found.server, found.id, found.name) != (listed.server, listed.id, name):
        raise ManifestError(
            f"backup set {listed.location} cannot be read: {name.file} is {found.name.file} of {found.location}",
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


def _in_sets(entries: Iterable[Entry]) -> Iterator[tuple[str, str, str, Entry]]:
    for entry in entries:
        if split := split_set_key(entry.key):
            yield (*split, entry)


def _decoded(folder: str) -> str | None:
    try:
        return decode_segment(folder)
    except ValueError:
        return None
