"""Which modes of a file with a secret are safe."""

from __future__ import annotations

import os


def is_open_to_others(found: os.stat_result) -> bool:
    """Return whether others than the owner may read or write a file.

    As libpq does for ``sslkey``, root's files may be readable by their group: those of a Kubernetes Secret are, if the
    pod has an ``fsGroup``.
    """
    return bool(found.st_mode & (0o037 if found.st_uid == 0 else 0o077))
