"""The layout of an archive in custom format behind its table of contents (``src/bin/pg_dump/pg_backup_custom.c``).

It has blocks: a type, a dump id, then the data in chunks, each an int and so many bytes, up to a chunk of length 0.
Large objects share a block, in which an OID stands before the chunks of each, up to an OID of 0. An int is a sign byte
and four bytes, the lowest first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.sql.window import Window

INT = 5
ZERO = bytes(INT)
DATA, BLOBS = 1, 3
PIECE = 1 << 18


class CustomArchive:
    """Head and table of contents, and behind them a window that moves over the blocks.

    :param what: names it in messages.
    :param only_data: as for :func:`read_toc`.
    :raises VerificationFailed: it is no archive in custom format. Everywhere here: it is not whole.
    :ivar head: the bytes of the table of contents.
    """

    def __init__(self, source: Readable, *, what: str, chunk_size: int = 1 << 17, only_data: bool = False) -> None:
        self.toc, read = read_toc(source, what=what, only_data=only_data)
        self.what = what
        self.head = read[: self.toc.size]
        self.window = Window(source, chunk_size, held=read[self.toc.size :], offset=self.toc.size)
        if self.toc.format != "custom":
            raise VerificationFailed(f"{what} is in {self.toc.format} format")

    def release(self) -> None:
        """Forget the table of contents, which may be larger than all that is ever held of the data."""
        self.head = b""
        self.toc.entries.clear()

    def more(self) -> bool:
        return bool(self.window.peek(1))

    def block(self) -> tuple[int, int, bytes]:
        """Type, dump id, and the bytes that say so."""
        start = self.take(1 + INT)
        return start[0], int.from_bytes(start[2:], "little"), start

    def chunks(self) -> Iterator[bytes]:
        """What follows, up to the chunk of length 0; long chunks in pieces: a row may take 1 GiB."""
        while (length := self.take(INT)) != ZERO:
            if length[0]:
                self.fail("a chunk of a length below 0")
            left = int.from_bytes(length[1:], "little")
            while left:
                yield self.take(min(left, PIECE))
                left -= min(left, PIECE)

    def take(self, count: int) -> bytes:
        data = self.window.peek(count)
        if len(data) < count:
            self.fail("it ends inside its data")
        self.window.position += count
        return data

    def fail(self, detail: str) -> NoReturn:
        raise VerificationFailed(f"{self.what}, near byte {self.window.offset}: {detail}")


def to_int(value: int) -> bytes:
    return b"\0" + value.to_bytes(INT - 1, "little")
