"""A zstd stream cut at the ends of its blocks, which limits the memory that decompressing it needs.

python-zstandard returns everything that a piece of input decompresses to, and a block of four bytes decompresses to
128 KiB: only the size of the input limits the output. RFC 8878, section 3.1, defines the layout.
"""

from __future__ import annotations

from typing import NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.sql.window import Window

MAX_WINDOW = 1 << 27
"""Bytes of history that a decompressor may keep: the default limit of zstd, and what ``zstd --long`` and pg_dump's
``zstd:long`` need."""

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50  # and the next fifteen values
_LONGEST_HEAD = 18
_BLOCKS = 8  # per piece, which decompresses to 1 MiB at most
_BLOCK_HEAD, _CHECKSUM = 3, 4
_RAW, _RLE, _COMPRESSED = range(3)
_LONGEST_BLOCK = 128 << 10


class ZstdBlocks:
    """Read a zstd stream in pieces of a few blocks. If the stream is truncated, so is the last piece.

    :param what: names the stream in errors.
    :raises VerificationFailed: by ``read``: no zstd frame where one must begin.
    :raises NotProven: by ``read``: a frame needs more memory than :data:`MAX_WINDOW`.
    """

    def __init__(self, source: Readable, what: str) -> None:
        self._window = Window(source)
        self._what = what
        self._in_frame = False
        self._checksum = 0  # bytes after the last block

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece, whatever its size; nothing at the end."""
        if self._in_frame:
            return self._blocks()
        while (head := self._window.peek(_LONGEST_HEAD)) and _magic(head) & ~0xF == _SKIPPABLE_MAGIC:
            self._skip(8 + int.from_bytes(head[4:8], "little"))
        return self._head(head)

    def _skip(self, count: int) -> None:
        window = self._window
        while count:
            skipped = len(window.peek(min(count, _LONGEST_BLOCK)))
            if not skipped:
                self._fail("the stream is truncated in a skippable frame")
            window.position += min(skipped, count)
            count -= min(skipped, count)

    def _head(self, head: bytes) -> bytes:
        """Return the header of a frame. If the rest is too short for one, the decompressor reports it."""
        window = self._window
        if len(head) < 6:
            window.position += len(head)
            return head
        if _magic(head) != _MAGIC:
            self._fail("no zstd frame begins there")
        descriptor = head[4]
        single_segment = descriptor >> 5 & 1
        dictionary, content = (0, 1, 2, 4)[descriptor & 3], (single_segment, 2, 4, 8)[descriptor >> 6]
        size = 5 + (1 - single_segment) + dictionary + content
        if single_segment:
            field = head[size - content : size]
            needed = int.from_bytes(field, "little") + (256 if content == 2 else 0)
        else:
            exponent, mantissa = head[5] >> 3, head[5] & 7
            needed = (1 << 10 + exponent) // 8 * (8 + mantissa)
        if needed > MAX_WINDOW and len(head) >= size:
            raise NotProven(
                f"{self._what} needs a zstd window of {needed >> 20} MiB; {MAX_WINDOW >> 20} MiB are allowed",
                hint="Recompress it with a window of 27 bits or less, as zstd -19 --long does.",
            )
        self._in_frame = True
        self._checksum = _CHECKSUM if descriptor & 4 else 0
        window.position += len(head[:size])
        return head[:size]

    def _blocks(self) -> bytes:
        """Return blocks that are completely in memory; at the end of the input, also a truncated one."""
        window = self._window
        window.peek(_BLOCK_HEAD + _LONGEST_BLOCK + _CHECKSUM)
        buffer, start = window.buffer, window.position
        end = start
        for _ in range(_BLOCKS):
            head = int.from_bytes(buffer[end : end + _BLOCK_HEAD], "little")
            last, kind, size = head & 1, head >> 1 & 3, head >> 3
            if kind > _COMPRESSED or size > _LONGEST_BLOCK:
                self._fail("no zstd block begins there")
            next_end = end + _BLOCK_HEAD + (1 if kind == _RLE else size) + (self._checksum if last else 0)
            if next_end > len(buffer) and end > start:
                break
            end = next_end
            if last:
                self._in_frame = False
                break
            if end >= len(buffer):
                break
        window.position = min(end, len(buffer))
        return buffer[start : window.position]

    def _fail(self, detail: str) -> NoReturn:
        raise VerificationFailed(f"{self._what} is corrupt near byte {self._window.offset}: {detail}")


def _magic(head: bytes) -> int:
    return int.from_bytes(head[:4], "little")
