"""How much of what comes from outside is kept in memory."""

from __future__ import annotations

from airflow_pgbackup.errors import NotProven

MOST = 1 << 30
"""Bytes: names and statements of two million tables."""
_EACH = 256  # what Python needs beside the text


class MemoryLimit:
    """Of one pass over a script, which may name any number of things in few compressed bytes.

    :param what: names it in messages.
    """

    def __init__(self, what: str, most: int = MOST) -> None:
        self._what = what
        self._left = self._most = most

    def take(self, size: int) -> None:
        """Something of so many bytes is kept from now on.

        :raises NotProven: it is too much.
        """
        self._left -= size + _EACH
        if self._left < 0:
            raise NotProven(
                f"{self._what} has so many tables, roles and the like that their names take more than "
                f"{self._most >> 20} MiB of memory",
                hint="If it is a sound dump, restore it with psql, and dump in custom format.",
            )
