"""What makes the tests' servers cheap: their files are in memory.

A thousand new files for each of thousands of servers cost ext4 more time than PostgreSQL needs for all the rest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_GIB = 1 << 30


def keep_temporary_files_in_memory() -> None:
    """Set TMPDIR to a place in memory, unless it is set, or there is little memory."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory >= 16 * _GIB and shutil.disk_usage(_MEMORY).free >= 8 * _GIB:
        os.environ["TMPDIR"] = os.fspath(_MEMORY)
        tempfile.tempdir = None  # Python asks for it once
