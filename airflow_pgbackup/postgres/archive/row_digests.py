"""Counting and hashing the rows of COPY's text format, alike for an archive and for a live table's ``COPY ... TO``.

A row is a line: line ends inside values are written ``\\n``. Source: the COPY manual page, File Formats.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from airflow_pgbackup.errors import VerificationFailed

_SUM_LIMIT = 1 << 128
_LONGEST_ROW = (1 << 30) - 1  # MaxAllocSize in src/include/utils/memutils.h, which a line of COPY has to fit in
_MOST_COUNTED = 500_000  # hashes of rows: about 60 MB


class TableDigester:
    """Rows, bytes and sha256 of COPY data, fed in pieces that may end anywhere. One for all blocks of a table.

    :param count: count the rows; else they stay 0.
    """

    def __init__(self, *, count: bool = True) -> None:
        self._hash = hashlib.sha256()
        self._count = count
        self.rows = 0
        self.bytes = 0

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        if self._count:
            self.rows += len(data) - len(data.replace(b"\n", b""))  # six times as fast as data.count()
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class RowSet:
    """The rows of a table whatever their order: equal for two tables with the same rows, each as many times.

    :ivar rows: how many.
    :ivar digest: the sum of their 128-bit hashes, modulo 2**128, in hexadecimal.
    :ivar counts: how often each hash is there, where that was asked for and there are not too many.
    """

    rows: int
    digest: str
    counts: Counter[bytes] | None = field(default=None, compare=False, repr=False)

    def contains(self, other: RowSet) -> bool | None:
        """Whether all rows of `other` are among these, each as many times; None where they were not counted."""
        return None if self.counts is None or other.counts is None else other.counts <= self.counts


class RowHasher:
    """A :class:`RowSet` of COPY data, fed in pieces that may end anywhere.

    Holds no row, however long; but for those of blocks that list the columns in another order than the first.

    :param count: also count each row. For tables with few rows.
    """

    def __init__(self, *, count: bool = False) -> None:
        self._rows = 0
        self._sum = 0
        self._partial = hashlib.blake2b(digest_size=16)  # of a row whose end has not come yet
        self._counts: Counter[bytes] | None = Counter() if count else None
        self._columns: tuple[str, ...] | None = None
        self._order: list[int] | None = None
        self._begun: list[bytes] = []  # of a row whose end has not come yet
        self._begun_size = 0

    def begin_block(self, columns: tuple[str, ...]) -> None:
        """A table loaded through its partition root has a block for each partition, in the partition's own order."""
        self._columns = self._columns or columns
        same = columns == self._columns or sorted(columns) != sorted(self._columns)
        self._order = None if same else [columns.index(name) for name in self._columns]

    def update(self, data: bytes) -> None:
        if self._order is not None:
            data = self._arranged(data, self._order)
        first, *rest = data.split(b"\n")
        self._partial.update(first)
        if not rest:
            return
        last = rest.pop()
        blake2b, from_bytes = hashlib.blake2b, int.from_bytes
        digests = [self._partial.digest()]
        digests += [blake2b(row, digest_size=16).digest() for row in rest]
        self._sum = (self._sum + sum([from_bytes(digest, "big") for digest in digests])) % _SUM_LIMIT
        self._rows += len(digests)
        self._partial = blake2b(last, digest_size=16)
        if self._counts is not None:
            self._counts.update(digests)
            if len(self._counts) > _MOST_COUNTED:
                self._counts = None

    def _arranged(self, data: bytes, order: list[int]) -> bytes:
        if b"\n" not in data:
            self._begun.append(data)
            self._begun_size += len(data)
            if self._begun_size > _LONGEST_ROW:
                raise VerificationFailed(f"a row of more than {_LONGEST_ROW:,} bytes, which PostgreSQL cannot have")
            return b""
        *lines, rest = b"".join([*self._begun, data]).split(b"\n")
        self._begun, self._begun_size = [rest], len(rest)
        rows = (line.split(b"\t") for line in lines)  # a tab inside a value is written \t
        return b"".join(b"\t".join([row[i] for i in order]) + b"\n" for row in rows)

    def finish(self) -> RowSet:
        return RowSet(self._rows, f"{self._sum:032x}", self._counts)
