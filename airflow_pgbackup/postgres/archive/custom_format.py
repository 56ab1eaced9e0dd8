"""The data blocks of an archive in custom format, which follow its table of contents.

A block has a type, a dump ID, and the data in chunks. A chunk is a length and that many bytes; length 0 ends the block.
All large objects share one block: the OID of each precedes its chunks, and OID 0 ends the block. An integer is a sign
byte and four bytes, least significant first. Source: ``src/bin/pg_dump/pg_backup_custom.c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import Keep, Toc, read_toc
from airflow_pgbackup.postgres.sql.window import Window

INT = 5
ZERO = bytes(INT)
DATA, BLOBS = 1, 3
PIECE = 1 << 18


class CustomArchive:
    """An archive in custom format: its table of contents, then its blocks in order.

    :param source: read forward only.
    :param what: names the archive in errors.
    :param keep: as for :func:`.read_toc`.
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
        toc: Toc | None = None,
    ) -> None:
        self.toc, read = (toc, b"") if toc else read_toc(source, what=what, keep=keep)
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
        """Return whether another block follows."""
        return bool(self.window.peek(1))

    def block(self) -> tuple[int, int, bytes]:
        """Read the start of a block.

        :return: type, dump ID, and the bytes that encode them.
        """
        start = self.take(1 + INT)
        return start[0], int.from_bytes(start[2:], "little"), start

    def chunks(self) -> Iterator[bytes]:
        """Yield the data up to the chunk of length 0. Long chunks come in pieces, since a row may have 1 GiB."""
        while (length := self.take(INT)) != ZERO:
            if length[0]:
                self.fail("a chunk has a negative length")
            left = int.from_bytes(length[1:], "little")
            while left:
                yield self.take(min(left, PIECE))
                left -= min(left, PIECE)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        data = self.window.peek(count)
        if len(data) < count:
            self.fail("the file ends inside its data")
        self.window.position += count
        return data

    def fail(self, detail: str) -> NoReturn:
        raise VerificationFailed(f"{self.what} is damaged near byte {self.window.offset}: {detail}")


def to_int(value: int) -> bytes:
    """Encode an integer that is not negative."""
    return b"\0" + value.to_bytes(INT - 1, "little")
