"""What an archive holds, as reading it finds."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_pgbackup.postgres.archive.toc import TocEntry

_RECORD = struct.Struct("<IQ16s")

TableKey = tuple[str | None, str, str]
"""Database (None unless in a cluster's dump), schema, name."""


@dataclass(frozen=True)
class TableDigest:
    """The rows that one table's statements carry.

    :ivar columns: as the COPY lists them; ``()`` is COPY without a list, None an INSERT without one.
    :ivar bytes: of the COPY data, or of the INSERT statements.
    :ivar sha256: of the COPY data, blocks one after the other; None for INSERTs.
    :ivar blocks: COPY statements; more than one by ``--load-via-partition-root``, in an order that may change.
    :ivar comparable: ``copy``, or ``inserts``, whose text says nothing about the text of COPY.
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


@dataclass(frozen=True)
class SequenceValue:
    """A ``setval``."""

    schema: str
    name: str
    last_value: int
    is_called: bool
    database: str | None = None


@dataclass
class LargeObjects:
    """The large objects of one database. There may be millions: each takes 28 bytes here.

    :ivar size: of all together, bytes.
    """

    database: str | None = None
    count: int = 0
    size: int = 0
    _records: bytearray = field(default_factory=bytearray, repr=False)

    def add(self, oid: int, size: int, sha256: bytes) -> None:
        self._records += _RECORD.pack(oid, size, sha256[:16])
        self.count += 1
        self.size += size

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        """OID, size in bytes and the first half of the sha256 in hexadecimal, by OID."""
        for oid, size, sha256 in sorted(_RECORD.iter_unpack(self._records)):
            yield oid, size, sha256.hex()

    @property
    def digest(self) -> str:
        """sha256 over the lines ``oid size sha256`` by OID; equal for the same objects in any order."""
        total = hashlib.sha256()
        for oid, size, sha256 in self:
            total.update(f"{oid} {size} {sha256}\n".encode())
        return total.hexdigest()


@dataclass
class ArchiveSummary:
    """What :func:`~airflow_pgbackup.postgres.archive.reader.read_archive` found.

    :ivar entries: the table of contents; empty for plain dumps.
    :ivar tables: in the order of the archive.
    :ivar refreshed: materialized views that have data; of the others the dump makes the definition only.
    :ivar databases: those that a script connects to, in its order: of pg_dumpall, or one by ``--create``.
    :ivar cluster: whether it is pg_dumpall's.
    :ivar server_version: of the dumped server, ``18.4 (Debian 18.4-1)``; None where a cluster's dump holds none.
    :ivar dump_version: of the pg_dump that wrote it, likewise.
    :ivar bytes: of the whole SQL text that the archive decodes to, without its definitions but for plain dumps.
    """

    entries: list[TocEntry] = field(default_factory=list)
    tables: list[TableDigest] = field(default_factory=list)
    sequences: list[SequenceValue] = field(default_factory=list)
    large_objects: list[LargeObjects] = field(default_factory=list)
    refreshed: set[TableKey] = field(default_factory=set)
    databases: list[str] = field(default_factory=list)
    cluster: bool = False
    server_version: str | None = None
    dump_version: str | None = None
    bytes: int = 0

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)
