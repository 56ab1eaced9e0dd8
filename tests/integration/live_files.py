"""The files of a server that runs: they come and go while they are read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def files_with(root: Path, data: bytes) -> list[str]:
    """Return the files below a directory, relative to it, that contain some bytes."""
    found = []
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in sorted(names)):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and data in path.read_bytes():
                    found.append(str(path.relative_to(root)))
    return found
