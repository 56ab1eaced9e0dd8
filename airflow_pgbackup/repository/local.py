"""A repository in a folder: ``file:///var/backups/pg``.

What is written lies beside its place under a temporary name, is flushed to disk, and gets its real name by a hard
link, which, unlike a rename, fails when that name is taken: two writers cannot both win. The folder is flushed
after that, so that a crash leaves the file whole or not there. Files are 0600 and folders 0700 whatever the umask:
a dump holds everything that the database does.

Below its root a repository has no symbolic links: those that are there are not listed, and a path through one is
refused, so that nothing is read from, or written to, a place outside.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, TypeVar

from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    OutcomeUnknown,
    RepositoryError,
    RepositoryNotFound,
)
from airflow_pgbackup.repository.base import Entry, Incoming, Leftover, Repository
from airflow_pgbackup.repository.files import (
    FULL,
    File,
    entry_of,
    fsync,
    hint,
    name_exclusively,
    newest,
    reason,
    temporary_name,
    walk,
)
from airflow_pgbackup.repository.layout import TEMP_PREFIX, check_key, is_key, split_key
from airflow_pgbackup.repository.regular_files import make_private, open_below, open_member, parent_below
from airflow_pgbackup.repository.source import CHUNK, CancelFlag, Source, Stop, digest

T = TypeVar("T")

_AT_ONCE = 4  # members read; hashing takes a core each

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalRepository(Repository):
    """:param root: absolute; may itself be a symbolic link or a mount point. :meth:`init` makes it, nothing else."""

    def __init__(self, root: Path, *, cancel: CancelFlag | None = None) -> None:
        super().__init__(root.as_uri(), cancel=cancel)
        self._root = root

    def local_path(self, key: str) -> Path:
        return self._path(check_key(key))

    def free_bytes(self) -> int:
        with self._errors("cannot look at", self._root):
            return shutil.disk_usage(self._root).free

    def stat(self, key: str) -> Entry | None:
        path = self.local_path(key)
        with self._errors("cannot look at", path):
            try:
                return entry_of(key, path.lstat())
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextmanager
    def read(self, key: str, *, pin: Entry | None = None) -> Iterator[BinaryIO]:
        path = self.local_path(key)
        with self._errors("cannot read", path):
            try:
                descriptor = open_below(self._root, key)
            except (FileNotFoundError, NotADirectoryError):
                raise BackupNotFound(f"there is no {self.location(key)}") from None
        with io.BufferedReader(File(descriptor, self.location(key)), CHUNK) as stream:
            yield stream

    @contextmanager
    def scratch(self, prefix: str, *, temp_dir: str = "") -> Iterator[Path]:
        parent = self.local_path(prefix).parent
        folder = parent / temporary_name()
        with self._errors("cannot write to", parent):
            self._in_folder(parent, lambda: folder.mkdir(mode=0o700))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed is a leftover, and swept as one
            self._remove_empty(parent)

    def leftovers(
        self, older_than: timedelta, *, prefix: str = "", say: Callable[[str], None] | None = None
    ) -> list[Leftover]:
        limit = time.time() - older_than.total_seconds()
        found = []
        start = self.local_path(prefix) if prefix else self._root
        with self._errors("cannot list", start):
            below = dict(walk(start))
            full = {path.parent for path in below}
            for path, status in below.items():
                key = path.relative_to(self._root).as_posix()
                if path.name.startswith(TEMP_PREFIX):
                    at = newest(path)
                # A backup's folder that a crash has left empty, or one in there.
                elif stat.S_ISDIR(status.st_mode) and path not in full and split_key(f"{key}/_"):
                    at = status.st_mtime
                else:
                    continue
                if at <= limit:
                    found.append(Leftover(key, datetime.fromtimestamp(at, timezone.utc)))
        return sorted(found, key=lambda leftover: leftover.key)

    def abort_leftovers(self, leftovers: Iterable[Leftover]) -> None:
        for leftover in leftovers:
            path = self._path(leftover.key)
            with self._errors("cannot remove", path):
                if not path.is_dir():
                    path.unlink(missing_ok=True)
                elif path.name.startswith(TEMP_PREFIX):
                    shutil.rmtree(path)
            self._remove_empty(path if path.is_dir() else path.parent)

    # -- for the base class --------------------------------------------------------------------------------------

    def _not_found(self) -> RepositoryNotFound:
        what = "holds no repository.json" if self._root.is_dir() else "is not there"
        return RepositoryNotFound(
            f"no repository at {self.uri}: on host {socket.gethostname()} the folder {self._root} {what}",
            hint="is the volume mounted on this worker? Several workers need a shared volume, or an s3:// repository; "
            "a new one is made by init_repository=True or 'pgbackup init'",
        )

    def _make_root(self) -> None:
        with self._errors("cannot make", self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _strangers(self, folder: str) -> Iterator[str]:
        start = self.local_path(folder[:-1]) if folder else self._root
        with self._errors("cannot list", start):
            for path, status in walk(start):
                name = path.relative_to(self._root).as_posix()
                if not (stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and is_key(name))):
                    yield name

    def _list(self, folder: str) -> Iterator[Entry]:
        start = self.local_path(folder[:-1]) if folder else self._root
        with self._errors("cannot list", start):
            for path, status in walk(start):
                if (entry := entry_of(path.relative_to(self._root).as_posix(), status)) is not None:
                    yield entry
            self._require_root()

    def _folders(self, folder: str) -> Iterator[str]:
        start = self.local_path(folder[:-1]) if folder else self._root
        with self._errors("cannot list", start):
            yield from (p.name for p, status in walk(start, deep=False) if stat.S_ISDIR(status.st_mode))
            self._require_root()

    def _write(self, key: str, source: Source, *, size_hint: int | None, sha256: str | None) -> Entry:
        path = self._path(key)
        with self._errors("cannot write", path):
            if os.path.lexists(path):  # before a dump that may take hours; decided by the link below
                raise AlreadyExists(f"{path} exists already")
            temporary = path.parent / temporary_name()
            descriptor = self._in_folder(path.parent, lambda: os.open(temporary, _CREATE, 0o600))
        try:
            with io.FileIO(descriptor, "wb") as target:
                os.fchmod(descriptor, 0o600)
                while data := source.read(CHUNK):
                    with self._errors("cannot write", path):
                        view = memoryview(data)
                        while view:
                            view = view[target.write(view) :]
                with self._errors("cannot write", path):
                    os.fsync(descriptor)
                    entry = entry_of(key, os.fstat(descriptor))
            if entry is None or entry.size != source.size:
                raise RepositoryError(f"{path} has not the {source.size} bytes that were written")
            source.check()
            with self._errors("cannot write", path):
                name_exclusively(temporary, path)
            try:
                with self._errors("cannot flush", path.parent):
                    fsync(path.parent)
            except RepositoryError as error:  # others see it by now
                raise OutcomeUnknown(f"{error.message}; {path} may be lost in a crash", hint=error.hint) from error
            return entry
        finally:
            temporary.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    @contextmanager
    def incoming(
        self,
        prefix: str,
        folder: Path,
        *,
        cancel: CancelFlag | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> Iterator[Incoming]:
        yield Incoming(lambda digests: self._bring_in(prefix, folder, digests, cancel))

    def _bring_in(
        self, prefix: str, folder: Path, digests: Mapping[str, str], cancel: CancelFlag | None
    ) -> list[Entry]:
        members = self._members(prefix, folder)
        target = self._path(prefix)
        # The scratch folder makes the parent, holds a copy where a rename cannot do, and clears both up again.
        with self._errors("cannot write", target), self.scratch(prefix) as copy:
            if folder.stat().st_dev != copy.stat().st_dev:
                self._copy(folder, copy, members, cancel)
                folder = copy
            sums = self._sums(folder, members, digests, cancel)
            for path in [folder, *folder.rglob("*")]:
                make_private(path)
            if cancel is not None:
                cancel.check()
            try:
                folder.rename(target)  # replaces nothing but an empty folder, rename(2)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise AlreadyExists(f"{target} exists already") from None
                raise
            fsync(target.parent)
            fsync(folder.parent)
            return [
                replace(entry, sha256=sha256)
                for member, sha256 in zip(members, sums, strict=True)
                if (entry := entry_of(f"{prefix}/{member}", (target / member).lstat())) is not None
            ]

    @staticmethod
    def _sums(
        folder: Path, members: Sequence[str], digests: Mapping[str, str], cancel: CancelFlag | None
    ) -> Sequence[str]:
        stop = Stop(cancel)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pgbackup-member") as pool:
            try:
                return list(pool.map(lambda member: digest(folder / member, digests.get(member), stop), members))
            except BaseException:
                stop.set()  # an interrupt does not wait until large files are read
                raise

    def _copy(self, folder: Path, copy: Path, members: Sequence[str], cancel: CancelFlag | None) -> None:
        for member in members:
            (copy / member).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_member(folder / member) as reader, (copy / member).open("xb") as writer:
                source = Source(reader, cancel=cancel)
                while data := source.read(CHUNK):
                    writer.write(data)

    def _delete(self, keys: Sequence[str]) -> None:
        failed, number = [], None
        parents = set()
        for key in keys:
            path = self._path(key)
            try:
                # Between that look and this call somebody may put a link in the place of a folder.
                with suppress(FileNotFoundError), parent_below(self._root, key) as (directory, name):
                    os.unlink(name, dir_fd=directory)
                parents.add(path.parent)
            except NotADirectoryError:
                pass
            except OSError as error:
                failed.append(f"{key} ({reason(error)})")
                number = error.errno
        for parent in parents:
            if parent.is_dir():
                with self._errors("cannot flush", parent):
                    fsync(parent)
                self._remove_empty(parent)
        if failed:
            raise RepositoryError(f"not deleted from {self.uri}: {', '.join(failed)}", hint=hint(number))

    # -- paths and folders ---------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        path = self._root
        for segment in key.split("/"):
            path /= segment
            if path.is_symlink():
                raise RepositoryError(
                    f"{path} is a symbolic link, which a repository does not follow",
                    hint="to spread a repository over volumes, mount them at its folders",
                )
        return path

    def _require_root(self) -> None:
        if not self._root.is_dir():
            raise self._not_found()

    def _in_folder(self, folder: Path, action: Callable[[], T]) -> T:
        """Make the folder and do something in it. Another writer that gives up may remove it in between."""
        for _ in range(20):
            try:
                self._make_folders(folder)
                return action()
            except FileNotFoundError:
                self._require_root()
        raise RepositoryError(f"{folder} goes away again and again: something else removes it")

    def _make_folders(self, folder: Path) -> None:
        """Make folders below the root, each durably; never the root: its absence means an unmounted volume."""
        missing = []
        while folder != self._root and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            try:
                folder.mkdir(mode=0o700)
                make_private(folder)
            except FileExistsError:
                continue
            fsync(folder.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Folders that hold nothing do not exist in a repository, as in S3."""
        while folder != self._root:
            try:
                with parent_below(self._root, folder.relative_to(self._root).as_posix()) as (directory, name):
                    os.rmdir(name, dir_fd=directory)
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _errors(self, what: str, path: Path) -> Iterator[None]:
        """The one place where a file system's answers become ours."""
        try:
            yield
        except FileNotFoundError:
            self._require_root()
            raise RepositoryError(f"{what} {path}: it went away meanwhile") from None
        except OSError as error:
            message = f"{what} {path}: {reason(error)}"
            if error.errno in FULL:
                message = f"the repository is full: {message}"
            raise RepositoryError(message, hint=hint(error.errno)) from error
