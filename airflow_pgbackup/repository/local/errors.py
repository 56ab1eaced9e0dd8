"""Errors of a file system as errors of the repository, with what to do about them."""

from __future__ import annotations

import errno
import io
import os
import pwd
from typing import TYPE_CHECKING

from airflow_pgbackup.errors import RepositoryError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# EFBIG: RLIMIT_FSIZE (Python ignores SIGXFSZ), or the largest file of the file system.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OpenFile(io.FileIO):
    """A file open for reading whose errors, such as a bad disk's, are RepositoryErrors."""

    def __init__(self, descriptor: int, location: str) -> None:
        super().__init__(descriptor, "rb")
        self._location = location

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise RepositoryError(f"cannot read {self._location}: {reason(error)}", hint=hint(error.errno)) from error


def reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def hint(number: int | None) -> str | None:
    """Return what to do about an error number; None where there is no advice."""
    if number in FULL:
        return "Free some space, prune, or raise the quota or file size limit (ulimit -f). Nothing was left behind."
    if number in (errno.EACCES, errno.EPERM):
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:  # a container's arbitrary user
            user = str(os.geteuid())
        return f"User {user} (uid {os.geteuid()}) lacks read and write access: grant it."
    return _HINTS.get(number or 0)


_DEAD = "The volume does not answer: check its mount."
_HINTS = {
    errno.EROFS: "The volume is mounted read-only: mount it read-write.",
    errno.ESTALE: _DEAD,
    errno.EIO: _DEAD,
    errno.ETIMEDOUT: _DEAD,
    errno.EHOSTDOWN: _DEAD,
    errno.ENOTCONN: _DEAD,
    errno.ENOENT: "Check the name, and that the volume is mounted.",
    errno.ENOTDIR: "A file is where a directory is expected: remove it, or choose another directory.",
    errno.EISDIR: "A directory is where a file is expected: remove it, or choose another name.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENFILE: "Raise the system's limit of open files (fs.file-max).",
    errno.ENAMETOOLONG: "Choose a shorter path: file systems limit names to 255 bytes and paths to 4096.",
    errno.ELOOP: "Replace the symbolic link with a directory, or choose the directory it leads to.",
    errno.EBUSY: "Another process uses it: end that process, or wait for it.",
    errno.ENOMEM: "Give the process more memory.",
}
