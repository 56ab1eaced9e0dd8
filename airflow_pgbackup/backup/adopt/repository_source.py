"""Dumps below a prefix of a bucket. A repository's class reads them; no ``repository.json`` is needed for that."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from airflow_pgbackup.backup.adopt.sources import TOC, Candidate, Seen, Source
from airflow_pgbackup.errors import BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import REPOSITORY_FILE


class RepositorySource(Source):
    """Keys of a store.

    :param store: opened at a prefix.
    :param matches: of the keys below; None for all.
    :param one: the only key; nothing is listed then.
    """

    def __init__(self, store: Repository, matches: re.Pattern[str] | None = None, *, one: str | None = None) -> None:
        self.store = store
        self.label = store.uri
        self._matches = matches
        self._one = one
        self._entries: dict[str, Entry] = {}

    def candidates(self) -> Iterator[Candidate]:
        if self._one is not None:
            yield Candidate(self._one)
            return
        entries = {entry.key: entry for entry in self.store.list()}
        if REPOSITORY_FILE in entries:
            yield Candidate(".", error="a repository of backups; pgbackup upload copies from one")
            return
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
        parts = key.split("/")
        return self._matches is None or any(
            self._matches.fullmatch("/".join(parts[:count])) for count in range(1, len(parts) + 1)
        )

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
