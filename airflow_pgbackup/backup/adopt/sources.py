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
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.layout import REPOSITORY_FILE
from airflow_pgbackup.repository.nofollow import open_below, parent_below

TOC = "toc.dat"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Seen:
    """A file as it was when it was opened.

    :ivar identity: compares equal as long as nothing was written to it and nothing was put in its place.
    """

    name: str
    size: int
    modified: datetime
    identity: object


@dataclass(frozen=True)
class Candidate:
    """What may be a dump. :ivar name: its path below the source. :ivar members: of a directory dump, else None."""

    name: str
    members: tuple[str, ...] | None = None
    error: str | None = None
    """Why it cannot be looked into."""


class Source(ABC):
    """A place with dumps. Names are paths below it, joined by ``/``. :ivar label: for people."""

    label: str

    @abstractmethod
    def candidates(self) -> Iterator[Candidate]:
        """Yield regular files, directories that are directory dumps, and what cannot be read."""

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
        """Return what two sources call the same that reach the same file."""
        return f"{self.label.rstrip('/')}/{candidate.name}"


class LocalSource(Source):
    """Files below a directory.

    :param root: may be a symbolic link. :param matches: of what is below; None for all.
    """

    def __init__(self, root: Path, label: str, matches: re.Pattern[str] | None = None) -> None:
        self.label = label
        self._root = root
        self._matches = matches

    @property
    def root(self) -> Path:
        """The directory."""
        return self._root

    def candidates(self) -> Iterator[Candidate]:
        left = [""]
        while left:
            name = left.pop()
            path = self._root / name if name else self._root
            try:
                status = path.stat(follow_symlinks=not name)
                if stat.S_ISDIR(status.st_mode):
                    is_dump = bool(name) and os.path.lexists(path / TOC)
                    if os.path.lexists(path / REPOSITORY_FILE):
                        yield Candidate(name or ".", error="a repository of backups; pgbackup upload copies from one")
                    elif not is_dump:
                        prefix = f"{name}/" if name else ""
                        left += sorted((prefix + child for child in os.listdir(path)), reverse=True)  # noqa: PTH208
                    elif self._selects(name):
                        yield Candidate(name, tuple(sorted(os.listdir(path))))  # noqa: PTH208
                elif stat.S_ISREG(status.st_mode) and self._selects(name):
                    yield Candidate(name)
                elif stat.S_ISLNK(status.st_mode) and self._matches and self._matches.fullmatch(name):
                    yield Candidate(name, error="a symbolic link, which is not followed")
            except OSError as error:
                if self._selects(name):
                    yield Candidate(name or ".", error=f"cannot be read: {reason(error)}")

    def _selects(self, name: str) -> bool:
        """Return whether the name, or a directory above it, matches."""
        if self._matches is None:
            return True
        parts = name.split("/")
        return any(self._matches.fullmatch("/".join(parts[:count])) for count in range(1, len(parts) + 1))

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
        return os.path.realpath(self._root / candidate.name)


def _seen(name: str, status: os.stat_result) -> Seen:
    modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
    # Without the time of the last change of its inode: a hard link sets that.
    identity = (status.st_dev, status.st_ino, status.st_mode, status.st_mtime_ns)
    return Seen(name, status.st_size, modified, identity)


def local_source(path: str) -> LocalSource:
    """Return the source for a directory, a file, or a glob with ``*``, ``?``, ``[…]`` and ``**`` for any directories.

    A glob takes the directories that it matches with everything below them; ``*`` does not match a leading dot.

    :raises ConfigurationError: there is nothing of this name.
    """
    given = Path(path).absolute()
    if os.path.lexists(given):
        if given.is_dir():
            if os.path.lexists(given / TOC):  # itself a dump
                return LocalSource(given.parent, str(given.parent), re.compile(re.escape(given.name)))
            return LocalSource(given, str(given))
        return LocalSource(given.parent, str(given.parent), re.compile(re.escape(given.name)))
    parts = given.parts
    fixed = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), None)
    if fixed is None:
        raise ConfigurationError(
            f"{path} does not exist on this machine", hint="Name a file, a directory, a glob in quotes, or s3://…."
        )
    root = Path(*parts[:fixed])
    if not root.is_dir():
        raise ConfigurationError(f"{root} is not a directory on this machine")
    return LocalSource(root, str(root), glob_expression(parts[fixed:]))


def glob_expression(parts: Sequence[str]) -> re.Pattern[str]:
    """Return the regular expression for a glob's path segments."""
    *directories, last = parts
    expression = ""
    for part in directories:
        expression += "(?:[^/]+/)*" if part == "**" else f"{_segment(part)}/"
    return re.compile(expression + ("(?:[^/]+/)*[^/]+" if last == "**" else _segment(last)), re.DOTALL)


_GLOB = re.compile(r"(?P<any>\*+)|(?P<one>\?)|\[(?P<not>!?)(?P<set>\]?[^\]]*)\]|(?P<literal>.)", re.DOTALL)


def _segment(part: str) -> str:
    expression = "" if part.startswith(".") else r"(?!\.)"
    for token in _GLOB.finditer(part):
        if token["literal"]:
            expression += re.escape(token["literal"])
        elif token["set"] is not None:
            characters = re.sub(r"([\\\]\[^&~|])", r"\\\1", token["set"])
            expression += f"[{'^' if token['not'] else ''}{characters}]"
        else:
            expression += "[^/]*" if token["any"] else "[^/]"
    return expression


def reason(error: OSError) -> str:
    """Return what the operating system says, in lower case."""
    return (error.strerror or type(error).__name__).lower()
