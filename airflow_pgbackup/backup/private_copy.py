"""Private copies on a disk of this worker."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.errors import DiskError
from airflow_pgbackup.quantities import human_bytes
from airflow_pgbackup.repository.local.errors import FULL
from airflow_pgbackup.wording import command, setting

_FICLONE = 0x40049409  # ioctl_ficlone(2) on x86 and ARM; elsewhere it fails, and the bytes are copied
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: Path) -> BinaryIO:
    """Create a file with mode 0600, to write and read; a link is never followed."""
    return os.fdopen(os.open(path, _CREATE, 0o600), "w+b")


def clone(source: BinaryIO, target: BinaryIO) -> bool:
    """Give an empty file the content of another without copying it: within one file system that can (Btrfs, XFS).

    :return: False where it cannot.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
    except (OSError, io.UnsupportedOperation):  # the latter: a stream from S3
        return False
    return True


def require_room(directory: Path, size: int, source: BinaryIO) -> None:
    """Check that a copy fits.

    :param size: of the copy, in bytes.
    :param source: one of its files: clones take no space.
    :raises DiskError: it does not fit.
    """
    free = shutil.disk_usage(directory).free
    if size < free:
        return
    probe = directory / "probe"
    with create(probe) as target:
        probe.unlink()
        if clone(source, target):
            return
    raise DiskError(
        f"a private copy needs {human_bytes(size)} in {directory.parent}, which has {human_bytes(free)} free",
        hint=f"Free some space, or choose a directory on a larger disk: {setting('temp_dir')}; for {command('get')}, "
        "--into.",
    )


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn errors of the file system into :class:`DiskError`."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"cannot write to {directory}: {(error.strerror or type(error).__name__).lower()}",
            hint="Free some space there, or choose a directory on a larger disk."
            if error.errno in FULL
            else "Choose a directory that this worker may write to.",
        ) from error
