"""A stream seen through a buffer that moves along it."""

from __future__ import annotations

from typing import Protocol

CHUNK = 1 << 18


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Window:
    """The part of a stream that is in memory, and a position in it.

    :param source: its ``read(n)`` may return less than ``n``; empty is the end.
    :param held: what was already read of it, from ``offset`` on.
    :ivar buffer: what is in memory.
    :ivar position: where in the buffer to go on; its user's to move.
    """

    def __init__(self, source: Readable, chunk_size: int = CHUNK, *, held: bytes = b"", offset: int = 0) -> None:
        self._source = source
        self._chunk_size = chunk_size
        self._base = offset  # offset of the buffer's first byte in the stream
        self._end = False
        self.buffer = held
        self.position = 0

    @property
    def offset(self) -> int:
        """Of the position in the stream, bytes."""
        return self._base + self.position

    def fill(self, keep_from: int) -> bool:
        """Read on, and forget what is before ``keep_from``: all places in the buffer move down by that.

        :return: False at the end of the input, where nothing moves.
        """
        if self._end:
            return False
        more = self._source.read(self._chunk_size)
        if not more:
            self._end = True
            return False
        self._base += keep_from
        self.position -= keep_from
        self.buffer = self.buffer[keep_from:] + more if keep_from < len(self.buffer) else more
        return True

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer only at the end. Forgets what is before the position."""
        while len(self.buffer) - self.position < count and self.fill(self.position):
            pass
        return self.buffer[self.position : self.position + count]
