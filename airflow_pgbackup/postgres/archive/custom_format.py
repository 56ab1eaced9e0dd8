"""The data blocks of an archive in custom format, which follow its table of contents.

A block has a type, a dump ID, and the data in chunks. A chunk is a length and that many bytes; length 0 ends the block.
All large objects share one block: the OID of each precedes its chunks, and OID 0 ends the block. An integer is a sign
byte and four bytes, least significant first. Source: ``src/bin/pg_dump/pg_backup_custom.c``.

pg_restore believes the type of a block: the data of a block of rows is SQL to it if the entry is one of large objects.
It goes to the offset that the table of contents has, and takes the first block of an entry if there is none. So whoever
reads blocks checks each one with :class:`ExpectedBlocks`: what is read is then what pg_restore reads.

``pg_dump -Fc > file`` appends since version 16 (``fdopen()`` with "ab"). At the end pg_dump writes the table of
contents again, with the offsets; in such a file that copy follows the last block. It begins with a zero byte, which no
block does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import Keep, Toc, TocEntry, read_toc
from airflow_pgbackup.postgres.sql.window import Window

INT = 5
ZERO = bytes(INT)
DATA, BLOBS = 1, 3
PIECE = 1 << 18
_MOST = 2**31 - 1  # C's int; pg_restore reads what is larger as a negative number
head_of_chunk = struct.Struct("<Bi").unpack_from
"""Sign and length, which is negative if it is out of range: for a loop over many chunks."""


class CustomArchive:
    """An archive in custom format: its table of contents, then its blocks in order.

    :param source: read forward only.
    :param what: names the archive in errors.
    :param keep: as for :func:`.read_toc`.
    :param limited: as for :func:`.read_toc`.
    :param toc: the table of contents, where it was parsed before; `source` is then positioned behind it.
    :raises VerificationFailed: not an archive in custom format; by every method: it is truncated or damaged.
    :ivar head: the bytes of the header and the table of contents; nothing if it was parsed before.
    :ivar window: moves over the blocks.
    """

    def __init__(
        self,
        source: Readable,
        *,
        what: str,
        chunk_size: int = 1 << 17,
        keep: Keep | None = None,
        limited: bool = True,
        toc: Toc | None = None,
    ) -> None:
        self.toc, read = (toc, b"") if toc else read_toc(source, what=what, keep=keep, limited=limited)
        self.what = what
        self.head = read[: self.toc.size]
        self.window = Window(source, chunk_size, held=b"" if toc else read[self.toc.size :], offset=self.toc.size)
        if self.toc.format != "custom":
            raise VerificationFailed(f"{what} is in {self.toc.format} format, expected custom")

    def release(self) -> None:
        """Free the memory of the table of contents, which may be larger than what is held of the data at any time."""
        self.head = b""
        self.toc.entries.clear()

    def more(self) -> bool:
        """Return whether another block follows, and not the end of the file or another table of contents."""
        return self.window.peek(1) not in (b"", b"\0")

    def block(self) -> tuple[int, int, bytes]:
        """Read the start of a block.

        :return: type, dump ID, and the bytes that encode them.
        """
        start = self.take(1 + INT)
        return start[0], int.from_bytes(start[2:], "little"), start

    def chunks(self) -> Iterator[bytes]:
        """Yield the data up to the chunk of length 0. Long chunks come in pieces, since a row may have 1 GiB."""
        while (length := self.take(INT)) != ZERO:
            left = int.from_bytes(length[1:], "little")
            if length[0] or left > _MOST:
                self.fail("a chunk has a negative length")
            while left:
                yield self.take(min(left, PIECE))
                left -= min(left, PIECE)

    def large_object(self) -> tuple[int, bytes] | None:
        """Read the OID of the next large object in a block, and the bytes that encode it; None at its end.

        pg_dump writes an OID as an int of C, so one of 2^31 and more is a negative number.
        """
        stored = self.take(INT)
        if stored == ZERO:
            return None
        sign, value = stored[0], int.from_bytes(stored[1:], "little")
        if not (0 < value <= _MOST if sign == 0 else sign == 1 and 0 < value <= _MOST + 1):
            self.fail(f"a large object has an invalid OID: {stored.hex()}")
        return (2**32 - value if sign else value), stored

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        data = self.window.peek(count)
        if len(data) < count:
            self.fail("the file ends inside its data")
        self.window.position += count
        return data

    def fail(self, detail: str) -> NoReturn:
        raise VerificationFailed(f"{self.what} is damaged near byte {self.window.offset}: {detail}")


class _Expected(NamedTuple):
    """A block that has not come yet. :ivar kind: of the block. :ivar offset: as in :class:`.TocEntry`."""

    label: str
    kind: int
    offset: int | None


class ExpectedBlocks:
    """Checks the start of each block against the table of contents: every entry with data has one block.

    :param entries: of the table of contents, at least those with data.
    """

    def __init__(self, entries: Iterable[TocEntry]) -> None:
        self._missing = {
            entry.dump_id: _Expected(entry.label, BLOBS if entry.kind == "BLOBS" else DATA, entry.offset)
            for entry in entries
            if entry.has_data
        }

    def next(self, archive: CustomArchive) -> tuple[int, int, bytes] | None:
        """Return what :meth:`CustomArchive.block` reads, or None behind the last block.

        :raises VerificationFailed: pg_dump does not write this block, or not there, or it has written more of them.
        """
        if not archive.more():
            if self._missing:
                first = next(iter(self._missing.values())).label
                archive.fail(f"data missing for {len(self._missing)} entries, first {first}")
            return None
        offset = archive.window.offset
        kind, dump_id, start = archive.block()
        entry = None if start[1] else self._missing.pop(dump_id, None)
        if entry is None or kind != entry.kind:
            archive.fail(f"unexpected block of type {kind} for entry {-dump_id if start[1] else dump_id}")
        if entry.offset is not None and entry.offset != offset:
            archive.fail(f"{entry.label} has its data at byte {offset}, expected at {entry.offset}")
        return kind, dump_id, start


def to_int(value: int) -> bytes:
    """Encode an integer that is not negative."""
    return b"\0" + value.to_bytes(INT - 1, "little")
