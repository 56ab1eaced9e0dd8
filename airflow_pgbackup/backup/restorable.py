"""Whether older versions in a versioned bucket make a complete backup: a manifest, and all files that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby

from airflow_pgbackup.backup.lost import LostBackup, LostFile, since_deletion
from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import missing_files
from airflow_pgbackup.repository.layout import MANIFEST_FILE, VerificationName, attempt_of, backup_folder, split_key
from airflow_pgbackup.repository.manifest import MAX_BYTES, Manifest
from airflow_pgbackup.repository.protection import Version


def complete_files(repository: Repository, lost: LostBackup) -> tuple[LostFile, ...]:
    """Return the files that make a lost backup complete once they are restored, the manifest last.

    If it was deleted and uploaded again, the oldest manifest counts whose files the store still holds.

    :raises RepositoryError: the store does not hold a valid manifest with all its files, or does not answer.
    """
    folder = f"{backup_folder(lost.series, lost.id)}/"
    entries = {entry.key.removeprefix(folder): entry for entry in list(repository.list(folder.removesuffix("/")))}
    data = {file.first.key.removeprefix(folder): file for file in lost.files}
    data.pop(MANIFEST_FILE, None)
    entries |= {path: file.first.as_entry() for path, file in data.items()}
    problems = []
    for one in lost.manifests:
        manifest, problem = _complete(repository, one.first, entries)
        if manifest is not None:
            deleted = min((version.modified for version in one.above if version.deleted), default=None)
            needed = [
                file
                for path, file in data.items()
                if attempt_of(path) in (None, manifest.artifact.attempt) and not _is_withdrawn(path, file, deleted)
            ]
            return (*needed, *([] if _is_current(one) else [one]))
        problems.append(problem)
    raise RepositoryError(
        f"backup {lost.series}/{lost.id} cannot be restored: {problems[0]}",
        hint="Nothing was changed. A lifecycle rule may have removed versions of its files.",
    )


def is_better(repository: Repository, file: LostFile, versions: Iterable[Version]) -> bool:
    """Return whether an overwritten file is a manifest whose backup is complete, while that of its first version would
    not be, even if its overwritten files were reverted too.

    Two attempts that commit at once, to a store without conditional writes, may both write the manifest. Both then
    choose the last one, and the other attempt removes its artifact.

    :param versions: at least those of the backup's folder, in the order of :meth:`.Protection.versions`.
    """
    folder = file.first.key.removesuffix(MANIFEST_FILE)
    if (split := split_key(file.first.key)) is None or split[2] != MANIFEST_FILE:
        return False
    current, first = {}, {}
    ours = (version for version in versions if version.key.startswith(folder))
    for key, every in groupby(ours, key=lambda version: version.key):
        if since := since_deletion(every):
            path = key.removeprefix(folder)
            current[path], first[path] = since[0].as_entry(), since[-1].as_entry()
    if _complete(repository, file.above[0], current)[0] is None:
        return False
    return _complete(repository, file.first, first)[0] is None


def _is_withdrawn(path: str, file: LostFile, deleted: datetime | None) -> bool:
    """Return whether a file is a pass that was hidden while its backup existed: rewrap withdraws passes if the source
    has failed. One that was overwritten before it was hidden is what a killed revert leaves.

    :param deleted: when the manifest was deleted; None: it was not.
    """
    name = VerificationName.parse(path)
    if name is None or name.result != "pass" or not file.hidden or file.unfinished:
        return False
    return deleted is None or max(version.modified for version in file.above if version.deleted) < deleted


def _complete(
    repository: Repository, version: Version, entries: Mapping[str, Entry]
) -> tuple[Manifest | None, str | None]:
    """Return a version of a manifest if it is valid and all its files are among these; else None and why not."""
    if version.size > MAX_BYTES:
        return None, f"its manifest has {version.size} bytes"
    try:
        manifest = Manifest.from_json(repository.protection.read(version, limit=MAX_BYTES))
    except (ManifestError, BackupNotFound) as error:
        return None, error.message
    split = split_key(version.key)
    if split is None or (manifest.series, manifest.id) != split[:2]:
        return None, f"its manifest is that of {manifest.series}/{manifest.id}"
    problem = missing_files(manifest, entries)
    return (None, problem) if problem else (manifest, None)


def _is_current(file: LostFile) -> bool:
    """Return whether readers see this version, or a copy of it."""
    current = next((version for version in (file.first, *file.above) if version.latest), None)
    return current is not None and (current.etag, current.size) == (file.first.etag, file.first.size)
