"""Readers that wrap a stream of bytes: they count it, cut it, put bytes before it or make one of pieces.

Each passes on the errors of its source. The failure of a tool is a read error at the end of its output, so no writer of
that output takes a truncated dump for a complete one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

PIECE = 1 << 20
"""Bytes to read at a time, where nothing asks for another size."""


class Readable(Protocol):
    """``read(n)`` returns between one byte and `n` bytes, and nothing at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


class CountingReader:
    """Count the bytes of a source.

    :param on_read: called with the count after each read, also at the end; may raise, to stop the reader.
    :ivar size: bytes read so far.
    """

    def __init__(self, source: Readable, on_read: Callable[[int], object] | None = None) -> None:
        self._source = source
        self._on_read = on_read
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.size += len(data)
        if self._on_read:
            self._on_read(self.size)
        return data


class PieceReader:
    """Read an iterator of bytes as a stream. It takes a piece when it needs one, and holds no more than what was asked.

    ``read(n)`` returns `n` bytes until the end, so that a reader may take a short read for the end.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")  # of the last piece

    def read(self, size: int = -1, /) -> bytes:
        taken: list[memoryview] = []
        missing = sys.maxsize if size < 0 else size
        while missing:
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._left = memoryview(piece)
            taken.append(self._left[:missing])
            self._left = self._left[missing:]
            missing -= len(taken[-1])
        return b"".join(taken)


class PrefixedReader:
    """Read some bytes, then the source: those already read from it, or those to insert before it."""

    def __init__(self, prefix: bytes, source: Readable) -> None:
        self._prefix = memoryview(prefix)
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        if not self._prefix:
            return self._source.read(size)
        count = len(self._prefix) if size < 0 else size
        data, self._prefix = bytes(self._prefix[:count]), self._prefix[count:]
        return data


class FileSection:
    """Read a section of a file, from an offset on.

    :param size: of the section, bytes; a file that ends before it ends the section.
    """

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        file.seek(offset)
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


class LimitedReader:
    """Read at most `size` bytes of a source."""

    def __init__(self, source: Readable, size: int) -> None:
        self._source = source
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(self._left if size < 0 else min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data
