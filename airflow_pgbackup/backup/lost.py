"""Find backups that were deleted or overwritten, and that a versioned bucket still holds.

No code of this package overwrites a key, so the first version of a key is the one that was written with its backup; any
later version is somebody else's. There is one exception: an upload may write the keys of a backup that prune has
deleted. So where the backup that readers see is complete, only the versions since the last deletion count. prune
deletes the files of a backup, which a versioned bucket only hides behind delete markers; but it keeps what is locked.
So a locked backup that is hidden was deleted by somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import dropwhile, groupby, takewhile

from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, read_manifest
from airflow_pgbackup.repository.evidence import missing_files
from airflow_pgbackup.repository.layout import (
    MANIFEST_FILE,
    Series,
    VerificationName,
    attempt_of,
    backup_folder,
    split_key,
)
from airflow_pgbackup.repository.manifest import MAX_BYTES
from airflow_pgbackup.repository.protection import Version


@dataclass(frozen=True)
class LostFile:
    """A file whose first version is not the one that readers see.

    :param first: that version.
    :param above: the other versions of its key and its delete markers, newest first.
    :param unfinished: whether it was overwritten and then hidden, which is how a killed revert leaves it.
    """

    first: Version
    above: tuple[Version, ...]
    unfinished: bool = False

    @property
    def hidden(self) -> bool:
        """Whether a delete marker hides it."""
        return any(version.latest and version.deleted for version in self.above)


@dataclass(frozen=True)
class LostBackup:
    """A backup that is deleted or damaged, and can be restored from the versions that the store keeps.

    :param why: ``deleted``, or ``overwritten``.
    :param at: when, by the clock of the store.
    :param locked: why the store refuses to remove its manifest for good, as :meth:`.Protection.locked`.
    :param files: what must be restored, the manifest last.
    :param manifests: the manifest's first versions, one of each time that it was written after a deletion: the oldest
        first. More than one if a deleted backup was uploaded again.
    """

    series: Series
    id: str
    why: str
    at: datetime
    locked: str | None
    files: tuple[LostFile, ...]
    manifests: tuple[LostFile, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "series": self.series.path,
            "id": self.id,
            "why": self.why,
            "at": self.at.isoformat(),
            "locked": self.locked,
            "files": [file.first.key for file in self.files],
            "size": sum(file.first.size for file in self.files),
        }


def find_lost(repository: Repository, prefix: str = "") -> list[LostBackup]:
    """Return the backups below a folder that can be restored from older versions, sorted by series and id.

    :raises RepositoryError: the store does not answer, or the credentials may not list versions.
    """
    return lost_among(repository, repository.protection.versions(prefix))


def lost_among(
    repository: Repository,
    versions: Iterable[Version],
    *,
    failed: Callable[[str, RepositoryError], None] | None = None,
) -> list[LostBackup]:
    """Return what :func:`find_lost` does, from a listing of versions.

    :param failed: takes the folder of a backup about which the store does not tell everything, and the error; the
        backup is then left out, or returned as one that is not locked. By default the error is raised.
    :raises RepositoryError: the store does not answer.
    """
    folders: dict[str, dict[str, list[Version]]] = {}
    for version in versions:
        if split := split_key(version.key):
            folder = version.key[: -len(split[2]) - 1]
            folders.setdefault(folder, {}).setdefault(split[2], []).append(version)
    errors: list[tuple[str, RepositoryError]] = []

    def lost(folder: str, files: Mapping[str, list[Version]]) -> LostBackup | None:
        try:
            return _lost(repository, files)
        except RepositoryError as error:
            errors.append((folder, error))
            return None

    def with_lock(one: LostBackup) -> LostBackup:
        try:
            return _with_lock(repository, one)
        except RepositoryError as error:
            errors.append((backup_folder(one.series, one.id), error))
            return one

    found = [one for folder, files in sorted(folders.items()) if (one := lost(folder, files))]
    with request_threads(name="pgbackup-lost") as pool:
        found = list(pool.map(with_lock, found))
    for folder, error in errors:
        if failed is None:
            raise error
        failed(folder, error)
    return found


def find_overwritten(versions: Iterable[Version]) -> Iterator[LostFile]:
    """Yield the files that somebody overwrote since they were last deleted, sorted by key.

    A user who may only put objects cannot change which version is the first one since then: a put adds a version, and a
    delete marker needs the right to delete.

    :param versions: in the order of :meth:`.Protection.versions`.
    """
    for _, every in groupby(versions, key=lambda version: version.key):
        since = since_deletion(every)
        if len(since) > 1 and since[0].etag != since[-1].etag:
            yield LostFile(since[-1], tuple(since[:-1]))


def _lost(repository: Repository, files: Mapping[str, list[Version]]) -> LostBackup | None:
    """Return what the versions of one backup's files show; None if nothing is lost, or it was never complete."""
    if all(version.deleted for version in files.get(MANIFEST_FILE, ())):
        return None
    split = split_key(files[MANIFEST_FILE][0].key)
    assert split is not None  # noqa: S101  as when it was grouped
    manifests = _firsts(files[MANIFEST_FILE])
    if len(manifests) > 1 and _is_complete(repository, split[0], split[1], files):
        files = {path: since_deletion(versions) or versions for path, versions in files.items()}
        manifests = manifests[-1:]
    lost = {path: one for path, versions in files.items() if path != PIN_FILE and (one := _file(versions))}
    manifest = lost.get(MANIFEST_FILE)
    replaced = [one for path, one in lost.items() if _shows(path, one)]
    deleted = [manifest] if manifest is not None and manifest.hidden else []
    if not deleted and not replaced:
        deleted = _deleted_data(repository, split[0], split[1], lost)
    if not deleted and not replaced:
        return None
    if not any(version.latest and not version.deleted for versions in files.values() for version in versions):
        lost = {path: replace(one, unfinished=False) for path, one in lost.items()}  # a revert hides one at a time
    # The manifest makes it a backup, so it is the last one to be restored.
    ordered = sorted(lost.items(), key=lambda item: (item[0] == MANIFEST_FILE, item[0]))
    at = max(version.modified for file in deleted or replaced for version in file.above if version.latest)
    why = "deleted" if deleted else "overwritten"
    return LostBackup(split[0], split[1], why, at, None, tuple(file for _, file in ordered), manifests)


def _firsts(versions: list[Version]) -> tuple[LostFile, ...]:
    """Return the first version after each deletion of a key, the oldest first."""
    found = []
    for number, version in enumerate(versions):
        older = versions[number + 1 :]
        if not version.deleted and (not older or older[0].deleted):
            found.append(LostFile(version, tuple(versions[:number])))
    return tuple(reversed(found))


def since_deletion(versions: Iterable[Version]) -> list[Version]:
    """Return the versions of a key above its newest delete marker, the newest first: none, if the marker is current."""
    return list(takewhile(lambda version: not version.deleted, versions))


def _is_complete(repository: Repository, series: Series, id: str, files: Mapping[str, list[Version]]) -> bool:
    """Return whether readers see a valid manifest and all files that it names, with their sizes."""
    seen = {path: version for path, versions in files.items() for version in versions if version.latest}
    shown = {path: version.as_entry() for path, version in seen.items() if not version.deleted}
    if MANIFEST_FILE not in shown or shown[MANIFEST_FILE].size > MAX_BYTES:
        return False
    try:
        manifest = read_manifest(repository, series, id)
    except (ManifestError, BackupNotFound):
        return False
    return missing_files(manifest, shown) is None


def _file(versions: list[Version]) -> LostFile | None:
    """Return a file if its first version is not the current one."""
    data = [version for version in versions if not version.deleted]
    if not data:
        return None
    first = data[-1]
    if any(v.latest and (v.etag, v.size, v.deleted) == (first.etag, first.size, False) for v in versions):
        return None
    since = since_deletion(dropwhile(lambda version: version.deleted, versions))
    unfinished = versions[0].deleted and since[0].etag != since[-1].etag
    return LostFile(first, tuple(version for version in versions if version is not first), unfinished)


def _shows(path: str, file: LostFile) -> bool:
    """Return whether a listing shows that it was overwritten. A copy of a large artifact has another ETag than the
    original, so only its size counts; verify compares its bytes."""
    verification = VerificationName.parse(path) is not None
    if file.hidden:  # manifests and artifacts then count as deleted
        return verification and file.unfinished
    small = path == MANIFEST_FILE or verification
    return small or any(version.latest and version.size != file.first.size for version in file.above)


def _deleted_data(repository: Repository, series: Series, id: str, lost: Mapping[str, LostFile]) -> list[LostFile]:
    """Return the hidden files of a visible backup's artifact. prune hides those of attempts that did not become it."""
    hidden = [(path, one) for path, one in lost.items() if one.hidden and not VerificationName.parse(path)]
    if not hidden:
        return []
    try:
        attempt = read_manifest(repository, series, id).artifact.attempt
    except RepositoryError:
        return []
    return [one for path, one in hidden if attempt_of(path) in (None, attempt)]


def _with_lock(repository: Repository, lost: LostBackup) -> LostBackup:
    file = next((file for file in lost.files if file.first.key.endswith(f"/{MANIFEST_FILE}")), lost.files[0])
    locked = repository.protection.locked(file.first.key, file.first.id)
    return replace(lost, locked=locked)
