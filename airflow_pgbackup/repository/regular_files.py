"""Regular files, opened where somebody else may put a link or a FIFO in their place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.errors import RepositoryError

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: the open of somebody's FIFO would wait for a writer; it means nothing to a regular file.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_regular(path: str | Path, *, dir_fd: int | None = None) -> int:
    """Open a regular file for reading, nothing else.

    :return: a descriptor, which the caller closes.
    :raises OSError: it cannot be opened; it is a symbolic link, or not a regular file.
    """
    try:
        descriptor = os.open(path, _READ, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def open_member(path: Path) -> BinaryIO:
    """As :func:`open_regular`, of a file on its way into a repository.

    :raises RepositoryError: it cannot be opened; it is a symbolic link, or not a regular file.
    """
    try:
        return os.fdopen(open_regular(path), "rb")
    except OSError as error:
        raise RepositoryError(f"cannot read {path}: {(error.strerror or type(error).__name__).lower()}") from None


def open_below(root: Path, path: str) -> int:
    """As :func:`open_regular`, of a file below a directory that others may write to: no segment is a symbolic link.

    :param root: may itself be one. :param path: relative, its segments joined by ``/``.
    """
    with parent_below(root, path) as (directory, name):
        return open_regular(name, dir_fd=directory)


@contextmanager
def parent_below(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """The directory in which something lies below `root`, and its name there, for calls that take a ``dir_fd``: no
    link on the way was followed, and none that is put there meanwhile will be.

    :param root, path: as for :func:`open_below`.
    :raises OSError: a segment is no directory.
    """
    *parents, name = path.split("/")
    directory = os.open(root, _DIRECTORY)
    try:
        for parent in parents:
            below = os.open(parent, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
        yield directory, name
    finally:
        os.close(directory)


def make_private(path: Path) -> None:
    """Give a file or directory of ours to its owner alone, and flush it to disk; through a descriptor, as its parent
    may be writable to others, who put a link in its place."""
    descriptor = os.open(path, _READ)
    try:
        os.fchmod(descriptor, 0o700 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
