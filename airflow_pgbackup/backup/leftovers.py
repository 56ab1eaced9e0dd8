"""Leftovers of killed processes on this machine: private directories with password files, servers, copies."""

from __future__ import annotations

import tempfile

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.private_directory import sweep


def sweep_leftovers(context: RunContext) -> list[str]:
    """Remove leftover directories in every place where this package creates them, and log each. Raises no error.

    :return: their paths.
    """
    # /tmp: server sockets are there when the path of another directory is too long for them.
    swept = sweep(tempfile.gettempdir(), "/tmp", *filter(None, [context.settings.temp_dir]))  # noqa: S108
    for path in swept:
        context.log(f"removed the leftovers of a killed process: {path}")
    return swept
