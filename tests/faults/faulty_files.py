"""The edge to the file system, where a call on a path below a directory can be made to fail."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Calls of the os module that take a path, or a descriptor, first.
CALLS = (
    "open", "stat", "lstat", "scandir", "listdir", "mkdir", "rmdir", "link", "rename", "replace", "unlink", "fsync",
    "fstat", "fchmod", "statvfs", "utime",
)  # fmt: skip

_readlink = os.readlink


class FaultyFiles:
    """:param fails: decides by the number of a call, from 1. :ivar calls: what was called on which path."""

    def __init__(self, below: Path, number: int, fails: Callable[[int], bool]) -> None:
        self.calls: list[str] = []
        self._below = str(below)
        self._number = number
        self._fails = fails

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with (
            patch.object(io, "open", self._wrapped("open", io.open)),
            patch.multiple(os, **{name: self._wrapped(name, getattr(os, name)) for name in CALLS}),
        ):
            yield

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any = ".", *arguments: Any, **options: Any) -> Any:
            path = _path_of(target, options.get("dir_fd", options.get("src_dir_fd")))
            if path is not None and (path == self._below or path.startswith(f"{self._below}/")):
                self.calls.append(f"{name} {path}")
                if self._fails(len(self.calls)):
                    raise OSError(self._number, os.strerror(self._number), path)
            return real(target, *arguments, **options)

        return call


def _path_of(target: Any, directory: int | None) -> str | None:
    try:
        if isinstance(target, int):
            return _readlink(f"/proc/self/fd/{target}")
        path = os.fsdecode(target)
        return path if directory is None else str(Path(_readlink(f"/proc/self/fd/{directory}"), path))
    except (OSError, TypeError, ValueError):
        return None
