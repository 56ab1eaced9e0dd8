"""A repository in a directory: ``file:///var/backups/pg``.

A file is written beside its place under a temporary name, flushed to disk, and gets its name by a hard link, which,
unlike a rename, fails when that name is taken: two writers cannot both win. Then the directory is flushed, so that
after a crash the file is complete or absent. Files are 0600 and directories 0700 whatever the umask: a dump holds
everything that the database holds.

Below its root a repository has no symbolic links: listings leave them out, and a path through one is refused. Reads,
writes and deletions go through descriptors of the directories in the path, so that a link put there in between
cannot lead outside.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.errors import (
    AlreadyExists,
    RepositoryError,
    RepositoryNotFound,
)
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.byte_source import CHUNK, ByteSource, OnRead, counted, digest_all
from airflow_pgbackup.repository.calendar_time import file_time
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.entry import Entry, Incoming, UnfinishedWrite, missing
from airflow_pgbackup.repository.layout import TEMP_PREFIX, check_key, is_key, split_key
from airflow_pgbackup.repository.local.errors import OpenFile, hint, reason
from airflow_pgbackup.repository.local.naming import rename, temporary_name
from airflow_pgbackup.repository.local.root import OTHERS, Root, unlink
from airflow_pgbackup.repository.local.tree import entry_of, last_grown, walk
from airflow_pgbackup.repository.nofollow import (
    flush,
    make_private,
    open_below,
    open_member,
    parent_below,
    remove_tree,
    set_mode,
)
from airflow_pgbackup.repository.set_layout import holds_backups_or_sets, split_set_key

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalRepository(Repository):
    """A repository in a directory.

    :param root: absolute; may itself be a symbolic link or a mount point. :meth:`init` makes it, nothing else.
    """

    def __init__(self, root: Path, *, cancel: CancelFlag | None = None) -> None:
        super().__init__(root.as_uri(), cancel=cancel)
        self._root = Root(root, self.uri)

    def local_path(self, key: str) -> Path:
        return self._root.path(check_key(key))

    def free_bytes(self, prefix: str = "") -> int:
        folder = self.local_path(prefix) if prefix else self._root.directory
        while folder != self._root.directory and not folder.is_dir():
            folder = folder.parent
        with self._root.errors("cannot read", folder):
            return shutil.disk_usage(folder).free

    def stat(self, key: str) -> Entry | None:
        path = self.local_path(key)
        with self._root.errors("cannot read", path):
            try:
                return entry_of(key, path.lstat())
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextmanager
    def read(self, key: str, *, pin: Entry | None = None) -> Iterator[BinaryIO]:
        path = self.local_path(key)
        with self._root.errors("cannot read", path):
            try:
                descriptor = open_below(self._root.directory, key)
            except (FileNotFoundError, NotADirectoryError):
                raise missing(self.location(key)) from None
        with io.BufferedReader(OpenFile(descriptor, self.location(key)), CHUNK) as stream:
            yield stream

    @contextmanager
    def scratch(self, prefix: str, *, temp_dir: str = "") -> Iterator[Path]:
        parent = self.local_path(prefix).parent
        folder = parent / temporary_name()

        def make() -> None:
            with parent_below(self._root.directory, self._root.key(folder)) as (directory, name):
                os.mkdir(name, 0o700, dir_fd=directory)

        with self._root.errors("cannot write to", parent):
            self._root.in_directory(parent, make)
        try:
            yield folder
        finally:
            with suppress(OSError):  # prune sweeps what cannot be removed now
                self._remove(self._root.key(folder))
            self._root.remove_empty(parent)

    def unfinished_writes(
        self, older_than: timedelta, *, prefix: str = "", say: Callable[[str], None] | None = None
    ) -> list[UnfinishedWrite]:
        limit = time.time() - older_than.total_seconds()
        grown: dict[str, float] = {}  # path to time
        empty: dict[str, os.stat_result] = {}  # directories in which nothing was found yet
        start = self.local_path(prefix) if prefix else self._root.directory
        with self._root.errors("cannot list", start):
            for path, status in self._walk(start):
                parent, _, name = path.rpartition("/")
                empty.pop(parent, None)
                if name.startswith(TEMP_PREFIX):
                    grown[path] = last_grown(path)
                elif stat.S_ISDIR(status.st_mode):
                    empty[path] = status
        places = {path: status for path, status in empty.items() if _is_empty_place(self._root.key(path), status)}
        grown |= {path: status.st_mtime for path, status in places.items()}
        found = [UnfinishedWrite(self._root.key(path), file_time(at)) for path, at in grown.items() if at <= limit]
        return sorted(found, key=lambda unfinished: unfinished.key)

    def remove_unfinished(self, writes: Iterable[UnfinishedWrite]) -> None:
        for unfinished in writes:
            parent, _, name = unfinished.key.rpartition("/")
            path = (self._root.path(parent) if parent else self._root.directory) / name
            if name.startswith(TEMP_PREFIX):
                with self._root.errors("cannot remove", path), suppress(FileNotFoundError):
                    self._remove(unfinished.key)
            self._root.remove_empty(path)

    def old_probes(self, older_than: timedelta) -> list[UnfinishedWrite]:
        limit = time.time() - older_than.total_seconds()
        with self._root.errors("cannot list", self._root.directory):
            found = (path for path, _ in self._walk(self._root.directory, deep=False))
            probes = (path for path in found if Path(path).name.startswith(TEMP_PREFIX))
            grown = {self._root.key(path): last_grown(path) for path in probes}
        return [UnfinishedWrite(key, file_time(at)) for key, at in sorted(grown.items()) if at <= limit]

    # -- for the base class --------------------------------------------------------------------------------------

    def _remove(self, key: str) -> None:
        with parent_below(self._root.directory, key) as (directory, name):
            remove_tree(name, dir_fd=directory)

    def _walk(self, start: Path, *, deep: bool = True) -> Iterator[tuple[str, os.stat_result]]:
        return walk(start, deep=deep, root=start == self._root.directory)

    def _not_found(self) -> RepositoryNotFound:
        return self._root.not_found()

    def _make_root(self) -> None:
        with self._root.errors("cannot make", self._root.directory):
            self._root.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _strangers(self, folder: str) -> Iterator[str]:
        start = self.local_path(folder[:-1]) if folder else self._root.directory
        with self._root.errors("cannot list", start):
            for path, status in self._walk(start):
                name = self._root.key(path)
                if not (stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and is_key(name))):
                    yield name

    def _list(self, folder: str) -> Iterator[Entry]:
        start = self.local_path(folder[:-1]) if folder else self._root.directory
        with self._root.errors("cannot list", start):
            for path, status in self._walk(start):
                if (entry := entry_of(self._root.key(path), status)) is not None:
                    yield entry
            self._root.require()

    def _folders(self, folder: str) -> Iterator[str]:
        start = self.local_path(folder[:-1]) if folder else self._root.directory
        with self._root.errors("cannot list", start):
            found = self._walk(start, deep=False)
            yield from (Path(path).name for path, status in found if stat.S_ISDIR(status.st_mode))
            self._root.require()

    def _write(self, key: str, source: ByteSource, *, size_hint: int | None, sha256: str | None) -> Entry:
        path = self._root.path(key)
        temporary = path.parent / temporary_name()
        with ExitStack() as stack:

            def create() -> tuple[int, int]:
                directory, _ = stack.enter_context(parent_below(self._root.directory, key))
                return directory, os.open(temporary.name, _CREATE, 0o600, dir_fd=directory)

            with self._root.errors("cannot write", path):
                if os.path.lexists(path):  # before a dump that may take hours; the link below decides
                    raise AlreadyExists(f"{path} exists already")
                directory, descriptor = self._root.in_directory(path.parent, create)
            stack.callback(self._root.remove_empty, path.parent)
            stack.callback(unlink, temporary.name, directory)
            with io.FileIO(descriptor, "wb") as target:
                with self._root.errors("cannot write", path):
                    set_mode(descriptor, 0o600)
                while data := source.read(CHUNK):
                    with self._root.errors("cannot write", path):
                        view = memoryview(data)
                        while view:
                            view = view[target.write(view) :]
                with self._root.errors("cannot write", path):
                    os.fsync(descriptor)
                    entry = entry_of(key, os.fstat(descriptor))
            if entry is None or entry.size != source.size:
                raise RepositoryError(f"{path} does not have the {source.size} bytes that were written")
            source.check()
            self._root.give_name(key, temporary, directory)
            return entry

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
        yield Incoming(lambda digests: self._bring_in(prefix, folder, digests, cancel, on_read))

    def _bring_in(
        self,
        prefix: str,
        folder: Path,
        digests: Mapping[str, str],
        cancel: CancelFlag | None,
        on_read: OnRead | None,
    ) -> list[Entry]:
        members = self._members(prefix, folder)
        target = self._root.path(prefix)
        # scratch() makes the parent, holds a copy where a rename is not possible, and removes both again.
        with self._root.errors("cannot write", target), self.scratch(prefix) as copy:
            if folder.stat().st_dev != copy.stat().st_dev:
                self._copy(folder, copy, members, cancel, on_read)
                folder = copy
            sums = digest_all(folder, members, digests, cancel)
            for path in [folder, *folder.rglob("*")]:
                make_private(path)
            if cancel is not None:
                cancel.check()
            with parent_below(self._root.directory, prefix) as (directory, name):
                try:
                    rename(folder, name, new_directory=directory)  # replaces nothing but an empty directory, rename(2)
                except OSError as error:
                    if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                        raise AlreadyExists(f"{target} exists already") from None
                    raise
                if self._root.was_replaced(prefix, directory):
                    raise RepositoryError(f"{target.parent} was replaced while {name} was written", hint=OTHERS)
            flush(target.parent)
            flush(folder.parent)
            return [
                replace(entry, sha256=sha256)
                for member, sha256 in zip(members, sums, strict=True)
                if (entry := entry_of(f"{prefix}/{member}", (target / member).lstat())) is not None
            ]

    def _copy(
        self, folder: Path, copy: Path, members: Sequence[str], cancel: CancelFlag | None, on_read: OnRead | None
    ) -> None:
        for member in members:
            (copy / member).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_member(folder / member) as reader, (copy / member).open("xb") as writer:
                source = ByteSource(counted(reader, member, on_read), cancel=cancel)
                while data := source.read(CHUNK):
                    writer.write(data)

    def _delete(self, keys: Sequence[str]) -> None:
        failed, number = [], None
        parents = set()
        for key in keys:
            path = self._root.path(key)
            try:
                with suppress(FileNotFoundError), parent_below(self._root.directory, key) as (directory, name):
                    os.unlink(name, dir_fd=directory)
                parents.add(path.parent)
            except NotADirectoryError:
                pass
            except OSError as error:
                failed.append(f"{key} ({reason(error)})")
                number = error.errno
        for parent in parents:
            if parent.is_dir():
                with self._root.errors("cannot flush", parent):
                    flush(parent)
            self._root.remove_empty(parent)
        if failed:
            raise RepositoryError(f"not deleted from {self.uri}: {', '.join(failed)}", hint=hint(number))


def _is_empty_place(key: str, status: os.stat_result) -> bool:
    """Return whether a crash left this empty directory: the folder of a backup or set, or one below or above it. A
    directory above has an ordinary name, so it counts only with the owner and mode that we set: it could also be a
    mount point, for example.
    """
    if split_key(f"{key}/_") or split_set_key(f"{key}/_"):
        return True
    ours = stat.S_IMODE(status.st_mode) == 0o700 and status.st_uid == os.geteuid()
    return ours and holds_backups_or_sets(key)
