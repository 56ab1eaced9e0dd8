"""A limit on the memory for names and statements found in a script."""

from __future__ import annotations

from airflow_pgbackup.errors import NotProven

MAX_BYTES = 1 << 30
"""Enough for the names and statements of two million tables."""
_OBJECT_OVERHEAD = 256  # bytes that Python needs beside the text


class MemoryLimit:
    """The memory that one pass over a script may hold. A few compressed bytes may name any number of objects.

    :param what: names the script in errors.
    :param max_bytes: the limit.
    """

    def __init__(self, what: str, max_bytes: int = MAX_BYTES) -> None:
        self._what = what
        self._left = self._max = max_bytes

    def take(self, size: int, *, overhead: int = _OBJECT_OVERHEAD) -> None:
        """Count a text of `size` bytes that is held from now on.

        :param overhead: bytes beside it.
        :raises NotProven: the limit is exceeded.
        """
        self._left -= size + overhead
        if self._left < 0:
            raise NotProven(
                f"{self._what} has so many tables, roles and other objects that their names take more than "
                f"{self._max >> 20} MiB of memory",
                hint="Restore the dump to prove that it is sound. For a plain dump, use the custom format from now on.",
            )
