"""Open files and directories without following links, where other users may put a link or a FIFO."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.errors import RepositoryError

log = logging.getLogger(__name__)

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO would wait for a writer; it has no effect on a regular file.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_regular(path: str | Path, *, dir_fd: int | None = None) -> int:
    """Open a regular file for reading, and nothing else.

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
    """Open a file that is being written to a repository, as :func:`open_regular` does.

    :raises RepositoryError: it cannot be opened; it is a symbolic link, or not a regular file.
    """
    try:
        return os.fdopen(open_regular(path), "rb")
    except OSError as error:
        raise RepositoryError(f"cannot read {path}: {(error.strerror or type(error).__name__).lower()}") from None


def members_of(directory: Path) -> list[str]:
    """Return the paths of the files in a directory to be written to a repository, relative to it, sorted.

    :raises RepositoryError: there are none, something in it is neither a file nor a directory, or it cannot be read.
    """
    members = []
    try:
        paths = sorted(directory.rglob("*"))
    except OSError as error:  # such as a directory that is removed meanwhile
        raise RepositoryError(f"cannot read {directory}: {(error.strerror or type(error).__name__).lower()}") from None
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise RepositoryError(f"{path} is neither a file nor a directory, so it cannot be stored in the repository")
        if path.is_file():
            members.append(path.relative_to(directory).as_posix())
    if not members:
        raise RepositoryError(f"the directory {directory} is empty, so there is nothing to store in the repository")
    return members


def open_below(root: Path, path: str) -> int:
    """Open a regular file below a directory to which others may write, as :func:`open_regular` does.

    :param root: may itself be a symbolic link.
    :param path: relative, segments joined by ``/``, none of them a link.
    """
    with parent_below(root, path) as (directory, name):
        return open_regular(name, dir_fd=directory)


@contextmanager
def parent_below(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that holds a path below `root`; yield its descriptor and the last name, for a ``dir_fd``.

    No link on the way is followed, and no link that is put there later changes where the descriptor leads.

    :param root, path: as for :func:`open_below`.
    :raises OSError: a segment is not a directory.
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


def remove_tree(name: str, *, dir_fd: int) -> None:
    """Remove a file or link, or a directory with everything in it; no link is followed.

    :param dir_fd: of the directory in which `name` is.
    :raises OSError: something in it cannot be removed.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            for below in os.listdir(directory):  # noqa: PTH208
                remove_tree(below, dir_fd=directory)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=dir_fd)


def names_below(root: Path, path: str) -> list[str]:
    """Return the names in a directory below `root`.

    :param root, path: as for :func:`open_below`; `root` itself if `path` is ''.
    :raises OSError: it cannot be read; it is a symbolic link, or not a directory.
    """
    if not path:
        return os.listdir(root)  # noqa: PTH208
    with parent_below(root, path) as (directory, name):
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.listdir(descriptor)  # noqa: PTH208
    finally:
        os.close(descriptor)


def make_directories_below(root: Path, path: str) -> None:
    """Make a directory and its parents below `root`, each durable and of mode 0700; those that exist stay as they are.

    :param root, path: as for :func:`open_below`.
    :raises OSError: `root` does not exist, or a segment is not a directory.
    """
    segments = path.split("/")
    for count in range(1, len(segments) + 1):
        with parent_below(root, "/".join(segments[:count])) as (directory, name):
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
            except FileExistsError:
                continue
            make_private(name, dir_fd=directory)
            flush(".", dir_fd=directory)


def make_private(path: str | Path, *, dir_fd: int | None = None) -> None:
    """Set the mode of a file or directory of ours to 0600 or 0700, and flush it to disk."""
    descriptor = os.open(path, _READ, dir_fd=dir_fd)
    try:
        set_mode(descriptor, 0o700 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_OPEN_MOUNTS: set[int] = set()
"""The devices of which :func:`set_mode` has warned."""


def set_mode(descriptor: int, mode: int) -> None:
    """Set the mode of a file or directory that we have made.

    A mount with one owner and mode for all files, as of SMB or FUSE, refuses it: that is a warning where others may
    read them.
    """
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        status = os.fstat(descriptor)
        if status.st_mode & 0o077 and status.st_dev not in _OPEN_MOUNTS:
            _OPEN_MOUNTS.add(status.st_dev)
            log.warning(
                "the file system of the repository sets mode %04o on its files, so other users may read the backups; "
                "mount it with a mode for its owner alone",
                stat.S_IMODE(status.st_mode),
            )


def flush(path: str | Path, *, dir_fd: int | None = None) -> None:
    """Flush a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
