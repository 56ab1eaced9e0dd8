"""Dumps below a prefix of a bucket. A repository's class reads them; no ``repository.json`` is needed for that."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from airflow_pgbackup.backup.adopt.enclosing import IS_BACKUP, IS_REPOSITORY, Enclosing
from airflow_pgbackup.backup.adopt.globs import Glob
from airflow_pgbackup.backup.adopt.sources import TOC, Candidate, DumpSource, Seen
from airflow_pgbackup.errors import BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import REPOSITORY_FILE, is_key

_ODD_NAME = "its name has a control character, more than 255 bytes, or a segment that is empty, '.' or '..'; rename it"


class RepositorySource(DumpSource):
    """Keys of a store.

    :param store: opened at a prefix.
    :param glob: of the keys below; None for all.
    :param one: the only key; nothing is listed then.
    :param pattern: the text of the glob, for an error.
    :param enclosing: the repositories that hold the prefix.
    """

    def __init__(
        self,
        store: Repository,
        glob: Glob | None = None,
        *,
        one: str | None = None,
        enclosing: Enclosing | None = None,
        pattern: str | None = None,
    ) -> None:
        self.store = store
        self.label = store.uri
        self._glob = glob
        self._one = one
        self.named, self.pattern = one is not None, pattern
        self._enclosing = enclosing or Enclosing()
        self._entries: dict[str, Entry] = {}

    def candidates(self) -> Iterator[Candidate]:
        if self._enclosing.has_backup_at(""):
            yield Candidate(self._one or ".", error=IS_BACKUP)
        elif self._one is not None:
            yield Candidate(self._one)
        else:
            yield from self._listed()

    def _listed(self) -> Iterator[Candidate]:
        entries: dict[str, Entry] = {}
        skipped: dict[str, str] = {}
        listed = {entry.key: entry for entry in self.store.list_all()}
        repositories = {
            key.removesuffix(REPOSITORY_FILE) for key in listed if f"/{key}".endswith(f"/{REPOSITORY_FILE}")
        }
        for key in sorted(listed):
            directories = [key[:end] for end, character in enumerate(key) if character == "/"]
            repository = next((each for each in ("", *(f"{d}/" for d in directories)) if each in repositories), None)
            backup = next((each for each in directories if self._enclosing.has_backup_at(each)), None)
            if repository is not None:
                skipped[repository.rstrip("/") or "."] = IS_REPOSITORY
            elif backup is not None:
                skipped[backup] = IS_BACKUP
            elif is_key(key):
                entries[key] = listed[key]
            elif not key.endswith("/") and self._selects(key):  # such a key only shows a directory in S3's console
                skipped[key] = _ODD_NAME
        yield from (Candidate(name, error=why) for name, why in skipped.items())
        self._entries = entries
        dumps = {key.rpartition("/")[0] for key in entries if key.endswith(f"/{TOC}")}
        members: dict[str, list[str]] = {}
        for key in sorted(entries):
            directory, _, last = key.rpartition("/")
            if directory in dumps:
                members.setdefault(directory, []).append(last)
            elif self._selects(key):
                yield Candidate(key)
        for directory, names in members.items():
            if self._selects(directory):
                yield Candidate(directory, tuple(names))

    def _selects(self, key: str) -> bool:
        return self._glob is None or self._glob.selects(key)

    @contextmanager
    def open(self, name: str, *, again: Seen | None = None) -> Iterator[tuple[BinaryIO, Seen]]:
        entry = self._entry(name) if again is None else self.pin(again)
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self.store.read(name, pin=entry))
            except BackupNotFound:
                raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile", name) from None
            except RepositoryError as error:
                raise OSError(errno.EIO, error.message, name) from None
            yield stream, Seen(name, entry.size, entry.modified, entry)

    def pin(self, seen: Seen) -> Entry:
        """Return the version of an object that was read."""
        if not isinstance(seen.identity, Entry):
            raise TypeError(f"{seen.name} was not read from a store")
        return seen.identity

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name) or self.store.stat(name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile", name)
        return entry

    def remove(self, candidate: Candidate, seen: Sequence[Seen]) -> None:
        for file in seen:
            with self.open(file.name, again=file):  # it has not changed
                pass
        try:
            self.store.delete([file.name for file in seen])
        except RepositoryError as error:
            raise OSError(errno.EIO, error.message) from None
