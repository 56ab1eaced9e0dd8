"""Where the dynamic linker finds the libraries of PostgreSQL's programs."""

from __future__ import annotations

import os


def library_path() -> dict[str, str]:
    """Return the worker's LD_LIBRARY_PATH for the environment of a program, {} without one.

    Packages that are unpacked elsewhere find their libraries by it.
    """
    value = os.environ.get("LD_LIBRARY_PATH")
    return {} if value is None else {"LD_LIBRARY_PATH": value}
