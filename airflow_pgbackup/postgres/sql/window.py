"""A stream seen through a buffer that moves along it."""

from __future__ import annotations

from airflow_pgbackup.byte_streams import Readable

CHUNK = 1 << 18


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

    def fill(self, keep_from: int, *, least: int = 0) -> bool:
        """Read on, and forget what is before ``keep_from``: all places in the buffer move down by that.

        What is kept is copied. So as much again is read: however long it grows, all copies together take a time linear
        in its length.

        :param least: bytes to read, unless the input ends before.
        :return: False at the end of the input, where nothing moves.
        """
        if self._end:
            return False
        more = self._read(max(self._chunk_size, least or len(self.buffer) - keep_from))
        if not more:
            return False
        self._base += keep_from
        self.position -= keep_from
        self.buffer = self.buffer[keep_from:] + more if keep_from < len(self.buffer) else more
        return True

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer only at the end. Forgets what is before the position."""
        while (missing := count - (len(self.buffer) - self.position)) > 0 and self.fill(self.position, least=missing):
            pass
        return self.buffer[self.position : self.position + count]

    def _read(self, count: int) -> bytes:
        """So many bytes, fewer at the end; of up to a chunk, what the source has at hand."""
        piece = self._source.read(count)
        pieces, size = [piece], len(piece)
        while piece and size < count and count > self._chunk_size:
            piece = self._source.read(count - size)
            pieces.append(piece)
            size += len(piece)
        self._end = not piece
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]
