"""List a repository: file names show the state, so ten thousand backups cost no GET.

Names are for display. Anyone who may write files can choose any name, so code that deletes, promotes, restores or
reports a backup as verified reads the files: see :mod:`.evidence`.

One paginated listing covers the repository: one LIST per 1,000 keys is the minimum of S3, and a listing per series
would cost at least one each. A request for some series lists those in parallel. Manifests are read only for what is
shown, see :func:`read_manifests`.

Everything in a backup's folder belongs to the backup, or to another attempt at it. Backup sets are not backups: see
:mod:`.set_files`. Files elsewhere are foreign, and ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, ManifestError, RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import (
    MANIFEST_FILE,
    REPOSITORY_FILE,
    SCOPES,
    Series,
    VerificationName,
    attempt_of,
    backup_folder,
    encode_segment,
    is_ours,
    manifest_key,
    parse_backup_id,
    split_key,
)
from airflow_pgbackup.repository.manifest import MAX_BYTES, Manifest
from airflow_pgbackup.repository.set_files import is_set_key
from airflow_pgbackup.repository.state import STATES, standing
from airflow_pgbackup.wording import command

PIN_FILE = "pin.json"
"""A file of this name in a backup's folder keeps ``prune`` from it."""
MOST_FOREIGN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One committed backup: as a listing shows it, or as :class:`.evidence.Evidence` proves it.

    :param started_at: by the clock of the worker that made it, aware UTC, whole seconds.
    :param committed_at: when its manifest was written, by the clock of the store, see :class:`.entry.Entry`.
    :param size: bytes of the artifact; from a listing, with those that other attempts at it have left.
    :param state: ``verified``, ``written`` (not verified yet), ``failed``, ``notproven``, or ``incomplete``: without an
        artifact, or the manifest is empty or huge. From evidence also ``unreadable``: the manifest is invalid.
    :param level: the highest level passed, None unless verified.
    :param verifications: oldest first.
    :param attempts: what attempts at it have written, if more than one has: the manifest names the one that counts.
    :param problem: why its files prove less than its file names claim; None where they do not.
    :param locked: why the store would refuse to delete it (object lock), else None. No listing shows it: ``prune``
        requests it for those that it is about to delete.
    :param labels: from evidence; a listing does not show them.
    :param stored_at: when its verifications were written, by the clock of the store.
    """

    series: Series
    id: str
    started_at: datetime
    committed_at: datetime
    size: int
    state: str
    level: str | None = None
    verifications: tuple[VerificationName, ...] = ()
    pinned: bool = False
    attempts: tuple[Leftover, ...] = ()
    problem: str | None = None
    locked: str | None = None
    labels: tuple[str, ...] = ()
    stored_at: Mapping[VerificationName, datetime] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What people call it: ``prod/app/20261122T020000Z-3f9ac1``."""
        return f"{self.series}/{self.id}"

    @property
    def identity(self) -> tuple[Series, str]:
        """The key of a backup in a repository."""
        return self.series, self.id

    @property
    def folder(self) -> str:
        return backup_folder(self.series, self.id)

    @property
    def standing(self) -> str:
        """The reason why it does not count, as the predicate of a sentence: ``is not verified yet``."""
        text = STATES[self.state].format(level=self.level)
        return f"{text}: {self.problem}" if self.problem else text

    def shortcoming(self, minimum: str) -> str:
        """Return why it is not verified at a level: ``is verified at archive only, and restore is required``."""
        return f"{self.standing}, and {minimum} is required"

    def as_json(self) -> dict[str, object]:
        """Return ``series``, ``id``, ``started_at`` (ISO 8601), ``size`` (bytes), ``state``, ``verified`` (level)."""
        return {
            "series": self.series.path,
            "id": self.id,
            "started_at": self.started_at.isoformat(),
            "size": self.size,
            "state": self.state,
            "verified": self.level,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A backup's folder without a manifest: a dump that is running, or was killed. Not a backup.

    :param modified: when it last grew, by the clock of the store.
    :param attempt: set for what one attempt wrote into the folder of a backup that another attempt made.
    """

    series: Series
    id: str
    size: int
    modified: datetime
    attempt: str | None = None

    @property
    def name(self) -> str:
        """What people call it: ``prod/app/20261122T020000Z-3f9ac1``."""
        return f"{self.series}/{self.id}"

    @property
    def folder(self) -> str:
        folder = backup_folder(self.series, self.id)
        return f"{folder}/{self.attempt}" if self.attempt else folder


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The backups and leftovers that a listing shows.

    :param backups: by series, newest first in each.
    :param foreign: keys that are not ours, the first :data:`MOST_FOREIGN`.
    """

    backups: tuple[Backup, ...]
    leftovers: tuple[Leftover, ...] = ()
    foreign: tuple[str, ...] = ()

    def by_series(self) -> dict[Series, list[Backup]]:
        return {series: list(members) for series, members in groupby(self.backups, key=lambda backup: backup.series)}


def read_catalogue(
    repository: Repository, *, server: str | None = None, series: Iterable[Series] | None = None
) -> Catalogue:
    """Return the backups of a repository, in the states that file names claim.

    :param server: only the series of this server.
    :param series: only these.
    :raises RepositoryNotFound: there is no repository, which is not the same as an empty one.
    """
    repository.uuid  # noqa: B018  raises where there is no repository
    if series is not None:
        wanted = [s.path for s in sorted(set(series), key=series_order) if server in (None, s.server)]
    else:
        wanted = ["" if server is None else encode_segment(server)]
    if len(wanted) == 1:
        return _sorted([_catalogue(repository.list(wanted[0]))])
    with request_threads() as pool:
        return _sorted(list(pool.map(lambda path: _catalogue(repository.list(path)), wanted)))


def find_backup(repository: Repository, series: Series, backup_id: str) -> Backup:
    """Return one backup by its file names, from one listing of its folder.

    :raises BackupNotFound: there is no such folder, or no manifest in it.
    """
    return find_folder(repository, series, backup_id)[0]


def find_folder(repository: Repository, series: Series, backup_id: str) -> tuple[Backup, Mapping[str, Entry]]:
    """Return one backup as :func:`find_backup` does, and the entries of its folder by their paths in it."""
    repository.uuid  # noqa: B018
    if parse_backup_id(backup_id) is not None:
        folder = backup_folder(series, backup_id)
        entries = list(repository.list(folder))
        for backup in _catalogue(iter(entries)).backups:
            return backup, {entry.key.removeprefix(f"{folder}/"): entry for entry in entries}
    raise _no_backup(repository, series, backup_id)


def _no_backup(repository: Repository, series: Series, backup_id: str) -> BackupNotFound:
    return BackupNotFound(
        f"{repository.uri} has no backup {series}/{backup_id}",
        hint=f"List its backups with {command('list')}; prune may have deleted it.",
    )


def select_series(
    server: str | None, databases: Sequence[str] | None, *, cluster: bool = False, scopes: Sequence[str] = ()
) -> list[Series] | None:
    """Return the series of the given databases of a server, and those of its pg_dumpall; None if none are given.

    :param scopes: those of pg_dumpall's series that hold less than the cluster, see :data:`.layout.SCOPES`.
    :raises ConfigurationError: databases without a server, values of another type, or an unknown scope.
    """
    if server is not None and not isinstance(server, str):
        raise ConfigurationError(f"server is {server!r}", hint="Pass the name of a server.")
    if databases is None and not cluster and not scopes:
        return None
    for name, value in (("databases", databases), ("scopes", scopes)):
        if isinstance(value, str):
            raise ConfigurationError(f"{name} is {value!r}", hint="Pass a list of names.")
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise ConfigurationError(f"unknown scope {unknown[0]!r}", hint=f"Choose from {', '.join(SCOPES)}.")
    if server is None:
        raise ConfigurationError(
            "databases are named without their server",
            hint="Pass server= as in the dumps; by default it is the connection id.",
        )
    named = [Series(server, database) for database in dict.fromkeys(databases or ())]
    named += [Series(server, None)] if cluster else []
    return [*named, *(Series(server, None, scope) for scope in dict.fromkeys(scopes))]


def read_manifest(repository: Repository, series: Series, backup_id: str) -> Manifest:
    """Return the manifest of one backup; its schema, its size and its folder are checked.

    :raises BackupNotFound: there is none.
    :raises RepositoryError: it is too large, or (ManifestError) invalid.
    """
    key = manifest_key(series, backup_id)
    try:
        manifest = Manifest.from_json(repository.read_bytes(key, limit=MAX_BYTES))
    except BackupNotFound:
        raise _no_backup(repository, series, backup_id) from None
    if (manifest.series, manifest.id) != (series, backup_id):
        raise ManifestError(
            f"{repository.location(key)} is the manifest of {manifest.name}",
            hint="The folder was moved or copied: check which backup the artifact beside it belongs to.",
        )
    return manifest


def read_manifests(repository: Repository, backups: Sequence[Backup]) -> list[Manifest | RepositoryError]:
    """Return the manifests of these backups in their order, read in parallel; an error in the place of one that
    cannot be read."""

    def read(backup: Backup) -> Manifest | RepositoryError:
        try:
            return read_manifest(repository, backup.series, backup.id)
        except RepositoryError as error:
            return error

    with request_threads() as pool:
        return list(pool.map(read, backups))


def series_order(series: Series) -> tuple[str, bool, str]:
    """Return a key that sorts by server, then database; what pg_dumpall made, which has none, last."""
    return series.server, series.database is None, series.database or series.scope or ""


def _catalogue(entries: Iterator[Entry]) -> Catalogue:
    """Return what one listing holds. It is sorted by key, so the entries of a folder follow one another."""
    backups: list[Backup] = []
    leftovers: list[Leftover] = []
    foreign: list[str] = []
    for _, group in groupby(entries, key=_folder_of):
        members = list(group)
        split = split_key(members[0].key)
        if split is None:
            foreign += [e.key for e in members if _is_foreign(e.key)][: MOST_FOREIGN - len(foreign)]
            continue
        series, backup_id, _ = split
        listed = {e.key.split("/", 3)[3]: e for e in members}
        names = {path: entry for path, entry in listed.items() if is_ours(path)}
        foreign += [e.key for path, e in listed.items() if path not in names][: MOST_FOREIGN - len(foreign)]
        manifest = names.pop(MANIFEST_FILE, None)
        if manifest is None and names:
            leftovers.append(_leftover(series, backup_id, list(names.values())))
        elif manifest is not None:
            backups.append(_backup(series, backup_id, manifest, names))
    return Catalogue(tuple(backups), tuple(leftovers), tuple(foreign))


def _is_foreign(key: str) -> bool:
    return key != REPOSITORY_FILE and not is_set_key(key)


def _backup(series: Series, backup_id: str, manifest: Entry, names: dict[str, Entry]) -> Backup:
    pinned = names.pop(PIN_FILE, None) is not None
    verifications: dict[VerificationName, datetime] = {}
    files: dict[str | None, list[Entry]] = {}
    for name, entry in names.items():
        verification = VerificationName.parse(name)
        if verification is not None:
            verifications[verification] = entry.modified
        else:
            files.setdefault(attempt_of(name), []).append(entry)
    attempts = (_leftover(series, backup_id, members, name) for name, members in files.items() if name)
    state, level = standing(verifications)
    if not files or not 0 < manifest.size <= MAX_BYTES:
        state, level = "incomplete", None
    started_at = parse_backup_id(backup_id)
    assert started_at is not None  # noqa: S101  split_key has checked it
    return Backup(
        series=series,
        id=backup_id,
        started_at=started_at,
        committed_at=manifest.modified,
        size=sum(entry.size for members in files.values() for entry in members),
        state=state,
        level=level,
        verifications=tuple(sorted(verifications)),
        pinned=pinned,
        attempts=tuple(attempts) if len(files) > 1 else (),
        stored_at=verifications,
    )


def _leftover(series: Series, backup_id: str, members: Sequence[Entry], attempt: str | None = None) -> Leftover:
    size, newest = sum(e.size for e in members), max(e.modified for e in members)
    return Leftover(series=series, id=backup_id, size=size, modified=newest, attempt=attempt)


def _folder_of(entry: Entry) -> tuple[str, ...]:
    """Return the first three segments of a key with four or more; else nothing."""
    parts = entry.key.split("/")
    return tuple(parts[:3]) if len(parts) > 3 else ()


def _sorted(parts: Sequence[Catalogue]) -> Catalogue:
    backups = [backup for part in parts for backup in part.backups]
    backups.sort(key=lambda backup: backup.id, reverse=True)
    backups.sort(key=lambda backup: series_order(backup.series))
    return Catalogue(
        tuple(backups),
        tuple(leftover for part in parts for leftover in part.leftovers),
        tuple(key for part in parts for key in part.foreign)[:MOST_FOREIGN],
    )
