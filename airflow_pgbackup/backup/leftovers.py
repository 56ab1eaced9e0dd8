"""Leftovers of killed processes on this machine: private directories with password files, servers, copies."""

from __future__ import annotations

import tempfile
from contextlib import suppress

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.private_directory import sweep


def sweep_leftovers(context: RunContext) -> list[str]:
    """Remove leftover directories in every place where this package creates them, and log each. Raises no error.

    :return: their paths.
    """
    places = [context.settings.temp_dir, "/tmp"]  # noqa: S108  server sockets are in /tmp if other paths are too long
    with suppress(FileNotFoundError):  # no directory is writable; what needs one reports that
        places.append(tempfile.gettempdir())
    swept = sweep(*filter(None, places))
    for path in swept:
        context.log(f"removed the leftovers of a killed process: {path}")
    return swept
