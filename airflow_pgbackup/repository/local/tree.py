"""Everything below a directory of a local repository, with links listed and never followed."""

from __future__ import annotations

import itertools
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.calendar_time import file_time
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import TEMP_PREFIX
from airflow_pgbackup.repository.listing_limits import FEWER, MOST_KEYS

_SYSTEM = (".", "#", "@")
"""What the names of directories begin with that file servers make: ``.snapshot``, ``.zfs``, ``#snapshot``, ``@eaDir``.

They hold earlier copies of everything, which are read-only. No server's folder has such a name, see
:func:`.encode_segment`.
"""


def walk(folder: str | Path, *, deep: bool = True, root: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and status of everything below a directory, each directory before what it holds.

    What disappears meanwhile is skipped; what may not be read is an error.

    :param root: the directory is that of a repository: what the system keeps there is left out.
    :raises RepositoryError: there are more than :data:`MOST_KEYS` files and directories.
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
            # mkfs makes it in the root of an ext volume; only root may read it.
            if child.name == "lost+found":
                continue
            if root and _is_of_system(child):
                continue
            try:
                status = child.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield child.path, status
            if deep and stat.S_ISDIR(status.st_mode) and not child.name.startswith(TEMP_PREFIX):
                folders.append(child.path)
        root = False


def _is_of_system(child: os.DirEntry[str]) -> bool:
    ours = child.name.startswith(TEMP_PREFIX)
    return child.name.startswith(_SYSTEM) and not ours and child.is_dir(follow_symlinks=False)


def entry_of(key: str, status: os.stat_result) -> Entry | None:
    """Return the entry of a regular file; None for anything else."""
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = file_time(_grown(status))
    return Entry(key=key, size=status.st_size, modified=modified)


def last_grown(path: str) -> float:
    """Return when a temporary file or directory last grew; infinity when its owner has just removed it."""
    try:
        status = os.lstat(path)
        below = walk(path) if stat.S_ISDIR(status.st_mode) else ()
        return max([_grown(status), *(_grown(each) for _, each in below)])
    except FileNotFoundError:
        return math.inf


def _grown(status: os.stat_result) -> float:
    """Return when a file was last written or came here: links, and copies that keep times, have an old mtime."""
    return max(status.st_mtime, status.st_ctime) if stat.S_ISREG(status.st_mode) else status.st_mtime
