"""What killed processes left on this machine: private directories with password files, servers, copies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from airflow_pgbackup.private_directory import sweep
from airflow_pgbackup.settings import Settings


def sweep_leftovers(settings: Settings, log: Callable[[str], None] | None = None) -> list[str]:
    """Remove them, wherever this package makes such directories, and log each. Raises no error of its own.

    :return: their paths.
    """
    # /tmp: sockets go there when the path of another directory is too long for them.
    swept = sweep(tempfile.gettempdir(), "/tmp", *filter(None, [settings.temp_dir]))  # noqa: S108
    if log:
        for path in swept:
            log(f"removed what a killed process left: {path}")
    return swept
