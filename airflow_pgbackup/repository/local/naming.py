"""Give a complete file its name by a hard link, which, unlike a rename, fails when the name is taken.

NFS repeats a request whose answer was lost. The file server may then refuse what it has already done, so a refusal
counts only if the new name is not that of our file.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from airflow_pgbackup.errors import AlreadyExists
from airflow_pgbackup.repository.layout import TEMP_PREFIX

# The answer of link(2) on file systems without hard links: FAT, some FUSE and SMB mounts.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def temporary_name() -> str:
    return f"{TEMP_PREFIX}{secrets.token_hex(8)}"


def name_exclusively(temporary: Path, path: Path, *, directory: int | None = None) -> None:
    """Give a file its name. On a file system with hard links `temporary` stays, for the caller to remove.

    :param directory: a descriptor of the directory of both, which holds even where a path would lead elsewhere by now.
    :raises AlreadyExists: the name is taken.
    """
    old, new = (temporary, path) if directory is None else (Path(temporary.name), Path(path.name))
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        if not _is(os.stat(old, dir_fd=directory, follow_symlinks=False), new, directory):
            raise AlreadyExists(f"{path} exists already") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A rename replaces, so check before: two simultaneous writers could both pass.
        try:
            os.stat(new, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            rename(old, new, directory=directory, new_directory=directory)
        else:
            raise AlreadyExists(f"{path} exists already") from None


def rename(old: Path, new: Path | str, *, directory: int | None = None, new_directory: int | None = None) -> None:
    """Rename a file or directory, as rename(2) does.

    :param directory, new_directory: descriptors of the directories to which relative paths refer.
    """
    status = os.stat(old, dir_fd=directory, follow_symlinks=False)
    try:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=new_directory)
    except FileNotFoundError:
        if not _is(status, new, new_directory):
            raise


def _is(status: os.stat_result, path: Path | str, directory: int | None) -> bool:
    try:
        return os.path.samestat(status, os.stat(path, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False
