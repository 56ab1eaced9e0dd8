"""The disk space that the throwaway server of a rehearsal needs, and leaves to the worker's other tasks."""

from __future__ import annotations

import os
import shutil

from airflow_pgbackup.backup.rehearsal.dump import is_part
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.private_directory import temporary_directory
from airflow_pgbackup.quantities import human_bytes
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.wording import setting

_ROOM = 1.3
"""Bytes of disk needed for each byte of the dumped database: the copy is smaller, but there is WAL."""

_UNPACKED = 3
"""Bytes of the copy for each byte of an artifact, if nobody knows the size of what was dumped."""

_WITHOUT_ROWS = ("exclude_table_data", "exclude_table_data_and_children", "no_data", "schema_only")

_SPARE = 256 * 1024**2  # an empty cluster and its first WAL
_RESERVE = 1024**3  # at most


def check_disk_space(manifest: Manifest, settings: Settings) -> None:
    """Check the free disk space before a rehearsal.

    :raises NotProven: the disk would fill up.
    """
    directory = settings.temp_dir or temporary_directory()
    needed = int(_size_of_copy(manifest) * _ROOM) + _SPARE
    free = shutil.disk_usage(directory).free
    reserve = _reserve(directory)
    if free < needed + reserve:
        raise NotProven(
            f"a rehearsal needs about {human_bytes(needed)} in {directory}, and {human_bytes(reserve)} must stay free "
            f"for other tasks, but only {human_bytes(free)} is free",
            hint=larger_disk(),
        )


def larger_disk() -> str:
    """Return the hint for a disk that is full."""
    return f"Set {setting('temp_dir')} to a directory on a larger disk."


def _size_of_copy(manifest: Manifest) -> int:
    """Return the estimated bytes of a copy. A dump of a part can be much smaller than its database."""
    unpacked = _UNPACKED * manifest.artifact.size
    size = manifest.source.size_bytes
    if size and (is_part(manifest) or any(map(manifest.options.get, _WITHOUT_ROWS))):
        return min(size, unpacked)
    return size or unpacked


def is_nearly_full(directory: os.PathLike[str]) -> bool:
    """Return whether a rehearsal has left other tasks too little disk space. Its size is only known at its end: a dump
    can compress to a hundredth, and a materialized view can have any number of rows."""
    return shutil.disk_usage(directory).free < _reserve(directory)


def _reserve(directory: os.PathLike[str] | str) -> int:
    """Return the bytes that stay free: a twentieth of the file system, at most 1 GiB."""
    return min(shutil.disk_usage(directory).total // 20, _RESERVE)
