"""A buffer that moves along a stream."""

from __future__ import annotations

from airflow_pgbackup.byte_streams import Readable

CHUNK = 1 << 18


class Window:
    """The part of a stream that is in memory, and a position in it.

    :param source: its ``read(n)`` can return fewer than ``n`` bytes; an empty result is the end.
    :param held: bytes that were already read from the source.
    :param offset: of the first of these bytes in the stream.
    :ivar buffer: the bytes in memory.
    :ivar position: the position in the buffer; the caller moves it.
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
        """The position in the stream, bytes."""
        return self._base + self.position

    def fill(self, keep_from: int, *, least: int = 0) -> bool:
        """Read more, and discard the bytes before ``keep_from``: positions in the buffer decrease by that number.

        The rest of the buffer is copied, so at least as many bytes are read: all copies together take time linear in
        the length of the stream.

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
        """Return the next bytes, fewer only at the end of the input; discard the bytes before the position."""
        while (missing := count - (len(self.buffer) - self.position)) > 0 and self.fill(self.position, least=missing):
            pass
        return self.buffer[self.position : self.position + count]

    def _read(self, count: int) -> bytes:
        """Read `count` bytes, fewer at the end; up to a chunk, a single read of the source is enough."""
        piece = self._source.read(count)
        pieces, size = [piece], len(piece)
        while piece and size < count and count > self._chunk_size:
            piece = self._source.read(count - size)
            pieces.append(piece)
            size += len(piece)
        self._end = not piece
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]
