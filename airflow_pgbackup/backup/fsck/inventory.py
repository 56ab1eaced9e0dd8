"""Everything that a repository holds, by the folders of its backups: from listings alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.errors import ConfigurationError, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import (
    MANIFEST_FILE,
    REPOSITORY_FILE,
    SPECIAL_FOLDERS,
    TEMP_PREFIX,
    Series,
    encode_segment,
    is_key,
    parse_backup_id,
    split_key,
)
from airflow_pgbackup.repository.set_files import is_set_key
from airflow_pgbackup.repository.set_layout import split_set_key


@dataclass(frozen=True)
class Folder:
    """The folder of a backup.

    :param entries: its files, by their paths in it.
    :param special: what is not a regular file, or has a name that is not a key.
    """

    series: Series
    id: str
    entries: dict[str, Entry] = field(default_factory=dict)
    special: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.series.path}/{self.id}"

    @property
    def is_backup(self) -> bool:
        return MANIFEST_FILE in self.entries


@dataclass(frozen=True)
class Inventory:
    """What a repository holds.

    :param folders: by their keys, sorted.
    :param elsewhere: other keys, but for repository.json and backup sets.
    :param listed: the folders that were listed with all that is below them; the root, which is ``""``, if nothing
        failed.
    :param sets: the files of backup sets, sorted by key.
    """

    folders: Mapping[str, Folder]
    elsewhere: tuple[str, ...]
    listed: tuple[str, ...] = ("",)
    sets: tuple[Entry, ...] = ()

    @property
    def backups(self) -> int:
        return sum(folder.is_backup for folder in self.folders.values())


_Failed = Callable[[str, RepositoryError], None]


def take_inventory(repository: Repository, prefix: str = "", failed: _Failed | None = None) -> Inventory:
    """List a repository, or one folder of it.

    :param failed: called for each folder that cannot be listed, with the error; the others are listed one by one. By
        default the first error is raised.
    :raises RepositoryError: it cannot be listed.
    """
    listed: list[str] = []
    entries, strangers = _list(repository, prefix, failed, listed)
    folders: dict[str, Folder] = {}
    elsewhere: list[str] = []
    sets: list[Entry] = []

    def folder_of(key: str) -> tuple[Folder, str] | None:
        split = split_key(key)
        if split is not None:
            series, backup_id, path = split
            folder = key[: -len(path) - 1]
            if is_key(folder):  # S3 takes segments that are too long for us
                return folders.setdefault(folder, Folder(series, backup_id)), path
        if key != REPOSITORY_FILE:
            elsewhere.append(key)
        return None

    for entry in entries:
        if _is_temporary(entry.key):  # listed as leftovers
            continue
        if is_set_key(entry.key):
            sets.append(entry)
        elif found := folder_of(entry.key):
            folder, path = found
            if is_key(entry.key):
                folder.entries[path] = entry
            else:
                folder.special.append(path)
    for key in strangers:
        if not _is_temporary(key) and (found := folder_of(key)) and found[1] not in found[0].special:
            found[0].special.append(found[1])
    return Inventory(dict(sorted(folders.items())), tuple(sorted(set(elsewhere))), tuple(listed), _by_key(sets))


def _by_key(entries: list[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.key))


def _list(
    repository: Repository, prefix: str, failed: _Failed | None, listed: list[str]
) -> tuple[list[Entry], list[str]]:
    """Return the entries and the strangers below a folder, and add the folders that were listed to `listed`.

    A folder that cannot be listed is listed by its subfolders, down to those of backups: half a backup would look like
    a damaged one.
    """
    try:
        found = list(repository.list_all(prefix)), list(repository.strangers(prefix))
    except RepositoryError as error:
        if failed is None:
            raise
        try:
            below = repository.folders(prefix) if prefix.count("/") < 2 else []
        except RepositoryError:
            below = []
        if not below:
            failed(prefix, error)
            return [], []
        entries: list[Entry] = []
        strangers: list[str] = []
        for name in below:
            more = _list(repository, f"{prefix}/{name}" if prefix else name, failed, listed)
            entries += more[0]
            strangers += more[1]
        return entries, strangers
    listed.append(prefix)
    return found


def check_elsewhere(keys: tuple[str, ...], findings: Faults) -> None:
    """Report files outside the folders of backups."""
    undecodable: dict[str, str] = {}
    for key in keys:
        segments = key.split("/")
        if split_set_key(key):
            findings.warning("foreign_file", key, "not a file of a backup set", "Remove it, or keep it elsewhere.")
        elif len(segments) > 3 and parse_backup_id(segments[2]):
            # A backup's folder in all but the names above it: no listing, prune or restore sees it.
            undecodable.setdefault("/".join(segments[:2]), segments[2])
        elif segments[-1] == MANIFEST_FILE:
            findings.error(
                "manifest_place",
                key,
                "a manifest outside the folders of backups",
                "Move its folder back to SERVER/DATABASE/ID; the manifest names them as series and id.",
            )
        else:
            findings.warning("foreign_file", key, "not a file of a backup", "Remove it, or keep it elsewhere.")
    for path, example in undecodable.items():
        findings.error(
            "undecodable",
            path,
            f"not an encoded name: no command sees the backups below it, such as {example}",
            f"Rename it to {_encoded(path)}, if that is the series that the manifests below it name.",
        )


def _is_temporary(key: str) -> bool:
    return any(segment.startswith(TEMP_PREFIX) for segment in key.split("/"))


def _encoded(path: str) -> str:
    """Return the encoded form of two segments that were decoded, completely or in part."""
    server, _, database = path.partition("/")
    try:
        encoded = database if database in SPECIAL_FOLDERS else encode_segment(unquote(database))
        return f"{encode_segment(unquote(server))}/{encoded}"
    except ConfigurationError:  # too long, or not valid Unicode
        return "SERVER/DATABASE, both percent-encoded"
