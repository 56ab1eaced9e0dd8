"""The result of reading an archive completely: digests of its tables, sequence values, large objects."""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_RECORD = struct.Struct(">IQ16s")  # big-endian, so that the bytes of records have the order of their values
LARGE_OBJECT_SIZE = _RECORD.size
"""Bytes of memory for each large object."""
_RUN = _RECORD.size << 17
"""Bytes that are sorted at a time, which takes about three times as much memory."""

TableKey = tuple[str | None, str, str]
"""Database (None except in a dump of a cluster), schema, name."""


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The rows of one table.

    :param columns: as the COPY statement lists them; ``()`` for COPY without a list, None for INSERT without one.
    :param bytes: size of the COPY data, or of the INSERT statements.
    :param sha256: of the COPY data, all blocks in order; None for INSERT.
    :param blocks: number of COPY statements; with ``--load-via-partition-root`` there may be several, in varying order.
    :param comparable: ``copy``, or ``inserts``, whose text cannot be compared with COPY text.
    """

    schema: str
    name: str
    columns: tuple[str, ...] | None
    rows: int
    bytes: int
    sha256: str | None
    blocks: int
    comparable: str
    database: str | None = None

    @property
    def key(self) -> TableKey:
        return (self.database, self.schema, self.name)


@dataclass(frozen=True, slots=True)
class SequenceValue:
    """The value that a ``setval`` of the dump sets."""

    schema: str
    name: str
    last_value: int
    is_called: bool
    database: str | None = None


@dataclass
class LargeObjects:
    """The large objects of one database. There may be millions, so each takes only 28 bytes of memory.

    :ivar count: number of large objects.
    :ivar size: their total size in bytes.
    """

    database: str | None = None
    count: int = 0
    size: int = 0
    _records: bytearray = field(default_factory=bytearray, repr=False)

    def add(self, oid: int, size: int, sha256: bytes) -> None:
        """Add one; of its sha256 the first half is kept."""
        self._records += _RECORD.pack(oid, size, sha256[:16])
        self.count += 1
        self.size += size

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        """Yield OID, size in bytes and the first half of the sha256 in hexadecimal, ordered by OID."""
        for record in self._sorted():
            oid, size, sha256 = _RECORD.unpack(record)
            yield oid, size, sha256.hex()

    def _sorted(self) -> Iterator[bytes]:
        """Sort the records in place, a run at a time, and merge the runs."""
        starts = range(0, len(self._records), _RUN)
        for start in starts:
            self._records[start : start + _RUN] = b"".join(sorted(self._run(start)))
        return heapq.merge(*map(self._run, starts))

    def _run(self, start: int) -> Iterator[bytes]:
        for at in range(start, min(start + _RUN, len(self._records)), _RECORD.size):
            yield bytes(self._records[at : at + _RECORD.size])

    @property
    def digest(self) -> str:
        """The sha256 of the lines ``oid size sha256`` ordered by OID; independent of the order in the archive."""
        total = hashlib.sha256()
        for oid, size, sha256 in self:
            total.update(f"{oid} {size} {sha256}\n".encode())
        return total.hexdigest()


@dataclass
class ArchiveSummary:
    """The findings of :class:`~airflow_pgbackup.postgres.archive.reader.ArchiveReader`.

    :ivar tables: in the order of the archive.
    :ivar refreshed: materialized views with data; of all others the dump has the definition only.
    :ivar databases: those that a script connects to, in its order: several from pg_dumpall, one from ``--create``.
    :ivar encodings: of the data, by database as in :data:`TableKey`, as far as the dump declares it.
    :ivar cluster: whether pg_dumpall wrote it.
    :ivar server_version: of the dumped server, ``18.4 (Debian 18.4-1)``; None for a cluster's dump without databases.
    :ivar dump_version: of the pg_dump that wrote it; None as for `server_version`.
    :ivar bytes: size of the SQL that the archive decodes to; without definitions, except for plain dumps.
    """

    tables: list[TableDigest] = field(default_factory=list)
    sequences: list[SequenceValue] = field(default_factory=list)
    large_objects: list[LargeObjects] = field(default_factory=list)
    refreshed: set[TableKey] = field(default_factory=set)
    databases: list[str] = field(default_factory=list)
    encodings: dict[str | None, str] = field(default_factory=dict)
    cluster: bool = False
    server_version: str | None = None
    dump_version: str | None = None
    bytes: int = 0

    @property
    def rows(self) -> int:
        """Number of rows in all tables."""
        return sum(table.rows for table in self.tables)
