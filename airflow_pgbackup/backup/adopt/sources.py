"""Where dumps to adopt are: files, globs and directories of this machine.

Others may write there: a file is opened below its source's directory by descriptors, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.backup.adopt.enclosing import IS_BACKUP, IS_REPOSITORY, Enclosing
from airflow_pgbackup.backup.adopt.globs import Glob
from airflow_pgbackup.errors import ConfigurationError, RepositoryError
from airflow_pgbackup.repository.calendar_time import file_time
from airflow_pgbackup.repository.layout import REPOSITORY_FILE
from airflow_pgbackup.repository.local.errors import hint
from airflow_pgbackup.repository.nofollow import names_below, open_below, parent_below

TOC = "toc.dat"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Seen:
    """A file as it was when it was opened.

    :param identity: compares equal as long as nothing was written to it and nothing was put in its place.
    """

    name: str
    size: int
    modified: datetime
    identity: object


@dataclass(frozen=True)
class Candidate:
    """What may be a dump. :param name: its path below the source. :ivar members: of a directory dump, else None."""

    name: str
    members: tuple[str, ...] | None = None
    error: str | None = None
    """Why it is not read."""
    unreadable: bool = False
    """It could not be read."""


class DumpSource(ABC):
    """A place with dumps. Names are paths below it, joined by ``/``.

    :ivar label: for people.
    :ivar named: it is one dump that the user named.
    :ivar pattern: the glob that the user gave; None without one.
    """

    label: str
    named: bool = False
    pattern: str | None = None

    @abstractmethod
    def candidates(self) -> Iterator[Candidate]:
        """Yield regular files, directories that are directory dumps, and what is skipped unread, with the reason."""

    @abstractmethod
    def open(self, name: str, *, again: Seen | None = None) -> AbstractContextManager[tuple[BinaryIO, Seen]]:
        """Open a file.

        :param again: as it was before; a store that pins versions gives those bytes or fails.
        :raises OSError: it cannot be opened, or is not a regular file.
        """

    @abstractmethod
    def remove(self, candidate: Candidate, seen: Sequence[Seen]) -> None:
        """Remove an adopted dump.

        :raises OSError: it has changed since, or cannot be removed. Then it is kept, or what is left of it.
        """

    def identity(self, candidate: Candidate) -> str:
        """Return a value that is equal for two sources that reach the same file."""
        return f"{self.label.rstrip('/')}/{candidate.name}"


class LocalSource(DumpSource):
    """Files below a directory.

    :param root: may be a symbolic link.
    :param glob: of what is below; None for all.
    """

    def __init__(
        self, root: Path, label: str, glob: Glob | None = None, *, named: bool = False, pattern: str | None = None
    ) -> None:
        self.label, self.named, self.pattern = label, named, pattern
        self._root = root
        self._glob = glob

    @property
    def root(self) -> Path:
        """The directory."""
        return self._root

    def candidates(self) -> Iterator[Candidate]:
        enclosing = Enclosing.of_directory(self._root)
        left = [""]
        while left:
            name = left.pop()
            try:
                mode = self._mode(name)
                if not stat.S_ISDIR(mode):
                    if self._selects(name):
                        yield Candidate(name, error=_why_not(mode))
                    continue
                if not self._leads_into(name):
                    continue
                if enclosing.has_backup_at(name):
                    yield Candidate(name or ".", error=IS_BACKUP)
                    continue
                children = names_below(self._root, name)
                if REPOSITORY_FILE in children:
                    yield Candidate(name or ".", error=IS_REPOSITORY)
                elif not (name and TOC in children):
                    prefix = f"{name}/" if name else ""
                    left += sorted((prefix + child for child in children), reverse=True)
                elif self._selects(name):
                    yield Candidate(name, tuple(sorted(children)))
            except OSError as error:
                if not name:  # what was asked for, not one of its files
                    raise _unreadable(self.label, error) from error
                if self._leads_into(name):
                    yield Candidate(name, error=f"cannot be read: {reason(error)}", unreadable=True)

    def _mode(self, name: str) -> int:
        if not name:
            return self._root.stat().st_mode
        with parent_below(self._root, name) as (directory, last):
            return os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode

    def _selects(self, name: str) -> bool:
        return self._glob is None or self._glob.selects(name)

    def _leads_into(self, name: str) -> bool:
        return self._glob is None or self._glob.leads_into(name)

    @contextmanager
    def open(self, name: str, *, again: Seen | None = None) -> Iterator[tuple[BinaryIO, Seen]]:
        try:
            descriptor = open_below(self._root, name)
        except OSError as error:
            error.strerror = f"{name.rpartition('/')[2]}: {reason(error)}"
            raise
        with os.fdopen(descriptor, "rb") as stream:
            yield stream, _seen(name, os.fstat(descriptor))

    def remove(self, candidate: Candidate, seen: Sequence[Seen]) -> None:
        for file in seen:
            with parent_below(self._root, file.name) as (directory, last):
                if _seen(file.name, os.stat(last, dir_fd=directory, follow_symlinks=False)) != file:
                    raise OSError(errno.EBUSY, "it has changed since it was read")
                os.unlink(last, dir_fd=directory)
        if candidate.members is not None:
            with parent_below(self._root, candidate.name) as (directory, last), suppress(FileNotFoundError):
                os.rmdir(last, dir_fd=directory)

    def identity(self, candidate: Candidate) -> str:
        return os.path.join(os.path.realpath(self._root), candidate.name)  # noqa: PTH118  a link is not its target


def _why_not(mode: int) -> str | None:
    """Return why a file that is not a directory is not read; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return "a symbolic link, which is not followed" if stat.S_ISLNK(mode) else "not a regular file"


def _seen(name: str, status: os.stat_result) -> Seen:
    modified = file_time(status.st_mtime)
    # Without the time of the last change of its inode: a hard link sets that.
    identity = (status.st_dev, status.st_ino, status.st_mode, status.st_mtime_ns)
    return Seen(name, status.st_size, modified, identity)


def local_source(path: str) -> LocalSource:
    """Return the source for a directory, a file, or a glob with ``*``, ``?``, ``[…]`` and ``**`` for any directories.

    A glob takes the directories that it matches with everything below them; ``*`` does not match a leading dot.

    :raises ConfigurationError: there is nothing of this name.
    :raises RepositoryError: this user may not look.
    """
    given = Path(path).absolute()
    try:
        given.lstat()
        exists = True
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except OSError:
        exists = False
    if exists:
        if given.is_dir():
            if os.path.lexists(given / TOC):  # itself a dump
                return LocalSource(given.parent, str(given.parent), Glob.literal(given.name), named=True)
            return LocalSource(given, str(given))
        return LocalSource(given.parent, str(given.parent), Glob.literal(given.name), named=True)
    parts = given.parts
    fixed = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), None)
    if fixed is None:
        raise ConfigurationError(
            f"{path} does not exist on this machine", hint="Name a file, a directory, a glob in quotes, or s3://…."
        )
    root = Path(*parts[:fixed])
    if not root.is_dir():
        raise ConfigurationError(f"{root} is not a directory on this machine")
    return LocalSource(root, str(root), Glob(parts[fixed:]), pattern=path)


def _unreadable(what: str, error: OSError) -> RepositoryError:
    return RepositoryError(f"cannot read {what}: {reason(error)}", hint=hint(error.errno))


def reason(error: OSError) -> str:
    """Return what the operating system says, as messages begin; names in it stay as they are."""
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]
