"""What a local repository needs of a file system, below folders and keys."""

from __future__ import annotations

import errno
import io
import itertools
import math
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup.errors import AlreadyExists, RepositoryError
from airflow_pgbackup.repository.base import FEWER, MOST_KEYS, Entry
from airflow_pgbackup.repository.layout import TEMP_PREFIX

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What file systems without hard links answer to link(2): FAT, some FUSE and SMB mounts.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# EFBIG: RLIMIT_FSIZE (Python ignores SIGXFSZ), or what the file system can hold.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class File(io.FileIO):
    """A file whose read errors are ours: a bad disk is news of the repository, not a traceback."""

    def __init__(self, descriptor: int, location: str) -> None:
        super().__init__(descriptor, "rb")
        self._location = location

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise RepositoryError(f"cannot read {self._location}: {reason(error)}", hint=hint(error.errno)) from error


def temporary_name() -> str:
    return f"{TEMP_PREFIX}{secrets.token_hex(8)}"


def entry_of(key: str, status: os.stat_result) -> Entry | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
    return Entry(key=key, size=status.st_size, modified=modified)


def name_exclusively(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists already") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here. A rename replaces, so look before: two writers in the same instant could both pass.
        if os.path.lexists(path):
            raise AlreadyExists(f"{path} exists already") from None
        temporary.rename(path)


def walk(folder: Path, *, deep: bool = True) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below, links not followed; what goes away meanwhile is passed over, what may not be read is not.

    :raises RepositoryError: there are more than :data:`MOST_KEYS` files and folders.
    """
    left, folders = MOST_KEYS, [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                children = list(itertools.islice(found, left + 1))
        except (FileNotFoundError, NotADirectoryError):
            continue
        left -= len(children)
        if left < 0:
            raise RepositoryError(f"cannot list {folder}: it holds more than {MOST_KEYS:,} files", hint=FEWER)
        for child in children:
            # The root's own folder for fsck on an ext volume; nobody but root may look into it.
            if child.name == "lost+found":
                continue
            try:
                status = child.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Path(child.path), status
            if deep and stat.S_ISDIR(status.st_mode) and not child.name.startswith(TEMP_PREFIX):
                folders.append(child.path)


def newest(path: Path) -> float:
    """When a temporary file or folder last grew; never (infinity) when its owner has just removed it."""
    try:
        return max([path.lstat().st_mtime, *(status.st_mtime for _, status in walk(path))])
    except FileNotFoundError:
        return math.inf


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def hint(number: int | None) -> str | None:
    if number in FULL:
        return "free some space, prune, or raise the quota or file size limit (ulimit -f); nothing was left behind"
    if number in (errno.EACCES, errno.EPERM):
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:  # a container's arbitrary user
            user = str(os.geteuid())
        return f"this runs as user {user} (uid {os.geteuid()}), who needs to read and write there"
    if number == errno.EROFS:
        return "the volume is mounted read-only"
    if number in (errno.ESTALE, errno.EIO, errno.ETIMEDOUT):
        return "the volume does not answer: look at the mount"
    return None
