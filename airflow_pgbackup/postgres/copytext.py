"""Counting and hashing the rows of COPY's text format, alike for an archive and for a live table's ``COPY ... TO``.

A row is a line: line ends inside values are written ``\\n``. Source: the COPY manual page, File Formats.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_SUM_LIMIT = 1 << 128


class TableDigester:
    """Rows, bytes and sha256 of COPY data, fed in pieces that may end anywhere. One for all blocks of a table."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0
        self.bytes = 0

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.rows += data.count(b"\n")
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class RowSet:
    """The rows of a table whatever their order: equal for two tables with the same rows, each as many times.

    :ivar rows: how many.
    :ivar digest: the sum of their 128-bit hashes, modulo 2**128, in hexadecimal.
    """

    rows: int
    digest: str


class RowHasher:
    """A :class:`RowSet` of COPY data, fed in pieces that may end anywhere. Holds no row, however long."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0
        self._partial = hashlib.blake2b(digest_size=16)  # of a row whose end has not come yet

    def update(self, data: bytes) -> None:
        first, *rest = data.split(b"\n")
        self._partial.update(first)
        if not rest:
            return
        last = rest.pop()
        blake2b, from_bytes = hashlib.blake2b, int.from_bytes
        total = from_bytes(self._partial.digest(), "big")
        for row in rest:
            total += from_bytes(blake2b(row, digest_size=16).digest(), "big")
        self._sum = (self._sum + total) % _SUM_LIMIT
        self._rows += len(rest) + 1
        self._partial = blake2b(last, digest_size=16)

    def finish(self) -> RowSet:
        return RowSet(self._rows, f"{self._sum:032x}")
