"""A repository in memory. Each read and each change is a step of an :mod:`interleaving`, like a request to a store."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

from interleaving import step

from airflow_pgbackup.errors import (
    AlreadyExists,
    OutcomeUnknown,
    RepositoryError,
    RepositoryNotFound,
)
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.byte_source import ByteSource, OnRead
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.entry import Entry, Incoming, UnfinishedWrite, missing
from airflow_pgbackup.repository.layout import TEMP_PREFIX


@dataclass
class Store:
    """The contents of the store, which all its repositories share.

    :ivar conditional: True if writing to an existing key fails atomically; False if the later of two writers wins.
    :ivar ahead: how far the store's clock is ahead of the real time.
    :ivar late: requests that their client gave up, and that the store executes later.
    """

    conditional: bool = True
    ahead: timedelta = timedelta(0)
    objects: dict[str, tuple[bytes, Entry]] = field(default_factory=dict)
    late: list[Callable[[], object]] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def put(self, key: str, data: bytes) -> Entry | None:
        """Store an object; return None if the key exists and this store refuses to replace it."""
        if self.conditional and key in self.objects:
            return None
        entry = Entry(key=key, size=len(data), modified=self.now)
        self.objects[key] = (data, entry)
        return entry

    def let_through(self) -> None:
        """Execute the late requests."""
        for request in self.late:
            request()
        self.late.clear()


class MemoryRepository(Repository):
    """A repository in a :class:`Store`, as one worker opens it."""

    def __init__(self, store: Store, name: str = "store", *, cancel: CancelFlag | None = None) -> None:
        super().__init__(f"memory://{name}", cancel=cancel)
        self._store = store

    def stat(self, key: str) -> Entry | None:
        self._step(f"stat {key}")
        found = self._store.objects.get(key)
        return found[1] if found else None

    @contextmanager
    def read(self, key: str, *, pin: Entry | None = None) -> Iterator[BinaryIO]:
        self._step(f"read {key}")
        if key not in self._store.objects:
            raise missing(self.location(key))
        yield io.BytesIO(self._store.objects[key][0])

    @contextmanager
    def incoming(
        self,
        prefix: str,
        folder: Path,
        *,
        cancel: CancelFlag | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
        on_read: OnRead | None = None,
    ) -> Iterator[Incoming]:
        def finish(digests: Mapping[str, str]) -> Sequence[Entry]:
            done: list[Entry] = []
            try:
                for member in self._members(prefix, folder):
                    with (folder / member).open("rb") as stream:
                        source = ByteSource(stream, sha256=digests.get(member), digest=True, cancel=cancel)
                        entry = self._write(f"{prefix}/{member}", source, size_hint=None, sha256=None)
                        done.append(replace(entry, sha256=source.sha256))
            except BaseException:
                self._delete([entry.key for entry in done])
                raise
            return done

        yield Incoming(finish)

    def unfinished_writes(
        self, older_than: timedelta, *, prefix: str = "", say: Callable[[str], None] | None = None
    ) -> Sequence[UnfinishedWrite]:
        self._step("list leftovers")
        limit = self._store.now - older_than
        entries = [entry for _, entry in self._store.objects.values() if entry.key.startswith(TEMP_PREFIX)]
        return [UnfinishedWrite(entry.key, entry.modified) for entry in entries if entry.modified <= limit]

    def old_probes(self, older_than: timedelta) -> Sequence[UnfinishedWrite]:
        return []  # unfinished_writes() has them, whatever the prefix

    def remove_unfinished(self, leftovers: Iterable[UnfinishedWrite]) -> None:
        self._delete([leftover.key for leftover in leftovers])

    def _step(self, what: str) -> None:
        if step(what):
            raise RepositoryError(f"{self.uri} does not answer", hint="wait")

    def _not_found(self) -> RepositoryNotFound:
        return RepositoryNotFound(f"no repository at {self.uri}")

    def _make_root(self) -> None:
        """Do nothing: the store exists."""

    def _list(self, folder: str) -> Iterator[Entry]:
        self._step(f"list {folder}")
        return iter([entry for key, (_, entry) in self._store.objects.items() if key.startswith(folder)])

    def _folders(self, folder: str) -> Iterator[str]:
        below = (entry.key.removeprefix(folder).partition("/") for entry in self._list(folder))
        return iter({name for name, slash, _ in below if slash})

    def _write(self, key: str, source: ByteSource, *, size_hint: int | None, sha256: str | None) -> Entry:
        taken = AlreadyExists(f"{self.location(key)} exists already")
        unknown = OutcomeUnknown(f"cannot write {self.location(key)}: no answer")
        if self.stat(key):
            raise taken
        data = b""
        while chunk := source.read(1 << 20):
            data += chunk
        source.check()
        kind = step(f"put {key}")
        if kind == "refused":
            raise RepositoryError(f"cannot write {self.location(key)}: refused")
        if kind == "late":
            self._store.late.append(lambda: self._store.put(key, data))
            raise unknown
        entry = self._store.put(key, data)
        if entry is None:
            raise taken
        if kind == "lost" or step(f"confirm {key}"):
            raise unknown
        if key not in self._store.objects:
            raise unknown
        if self._store.objects[key][1] is not entry:
            raise AlreadyExists(f"{self.location(key)} was written by another at the same time")
        return entry

    def _delete(self, keys: Sequence[str]) -> None:
        failed = []
        for key in keys:
            kind = step(f"delete {key}")
            if kind in ("refused", "late"):
                failed.append(key)
                continue
            self._store.objects.pop(key, None)
            if kind == "lost":
                failed.append(key)
        if failed:
            raise RepositoryError(f"not deleted from {self.uri}: {', '.join(failed)}")
