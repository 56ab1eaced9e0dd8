"""Count and hash rows in COPY's text format, from an archive or from a ``COPY ... TO`` of a database.

A row is a line: COPY writes a newline inside a value as ``\\n``. Source: the COPY manual page, File Formats.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from airflow_pgbackup.errors import VerificationFailed

_SUM_LIMIT = 1 << 128
_LONGEST_ROW = (1 << 30) - 1  # MaxAllocSize in src/include/utils/memutils.h: a line of COPY must fit into it
_MAX_COUNTED = 500_000  # distinct rows: about 60 MB


class TableDigester:
    """Compute rows, bytes and sha256 of COPY data, passed in pieces that may end anywhere.

    One instance takes all blocks of a table.

    :param count: count the rows; otherwise :attr:`rows` stays 0.
    """

    __slots__ = ("_count", "_hash", "bytes", "rows")

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
    """The rows of a table in any order. Two are equal if they have the same rows, each the same number of times.

    :param rows: number of rows.
    :param digest: the sum of their 128-bit hashes, modulo 2**128, in hexadecimal.
    :param counts: number of occurrences by hash; None if not requested, or if there are too many distinct rows.
    """

    rows: int
    digest: str
    counts: Counter[bytes] | None = field(default=None, compare=False, repr=False)

    def contains(self, other: RowSet) -> bool | None:
        """Return whether these rows include all rows of `other`, each at least as often; None if not counted."""
        return None if self.counts is None or other.counts is None else other.counts <= self.counts


class RowHasher:
    """Compute the :class:`RowSet` of COPY data, passed in pieces that may end anywhere.

    It holds no row in memory, with one exception: a row of a block that lists the columns in another order than the
    first block.

    :param count: also count the occurrences of each row; for tables with few rows.
    """

    def __init__(self, *, count: bool = False) -> None:
        self._rows = 0
        self._sum = 0
        self._partial = hashlib.blake2b(digest_size=16)  # of the row whose end has not been passed yet
        self._counts: Counter[bytes] | None = Counter() if count else None
        self._columns: tuple[str, ...] | None = None
        self._order: list[int] | None = None
        self._begun: list[bytes] = []  # of the row whose end has not been passed yet
        self._begun_size = 0

    def begin_block(self, columns: tuple[str, ...]) -> None:
        """Begin the next block of the table.

        With ``--load-via-partition-root`` a table has a block per partition, with the columns in the partition's order.

        :param columns: in the order of this block.
        """
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
            if len(self._counts) > _MAX_COUNTED:
                self._counts = None

    def _arranged(self, data: bytes, order: list[int]) -> bytes:
        if b"\n" not in data:
            self._begun.append(data)
            self._begun_size += len(data)
            if self._begun_size > _LONGEST_ROW:
                raise VerificationFailed(f"a row has more than {_LONGEST_ROW:,} bytes, PostgreSQL's limit")
            return b""
        *lines, rest = b"".join([*self._begun, data]).split(b"\n")
        self._begun, self._begun_size = [rest], len(rest)
        rows = (line.split(b"\t") for line in lines)  # a tab inside a value is written \t
        return b"".join(b"\t".join([row[i] for i in order]) + b"\n" for row in rows)

    def finish(self) -> RowSet:
        return RowSet(self._rows, f"{self._sum:032x}", self._counts)
