"""Check that a compressed file is complete, and read a compressed plain dump.

pg_restore does not check the first: in a directory archive it takes a gzip, zstd or lz4 member that was truncated
anywhere in its data for a shorter one, and exits 0 (tried with 18.6 at every length).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.decompressors import Decompressor, decompressor
from airflow_pgbackup.postgres.archive.machine_errors import lacks_memory, not_read
from airflow_pgbackup.postgres.archive.zstd_blocks import ZstdBlocks
from airflow_pgbackup.postgres.sql.window import CHUNK

_ZSTD_MAGIC = 0xFD2FB528
_LZ4_MAGIC = 0x184D2204
_SKIPPABLE_MAGIC = 0x184D2A50  # and the next fifteen values, in both formats
_INPUT = 32 << 10
_PADDED = ("gzip", "xz")
"""Methods whose streams may be followed by zero bytes. gzip ignores them, because tapes pad files with them (its
manual, "Invoking gzip"); in xz, they are Stream Padding (The .xz File Format, section 2.2)."""
_STEP = 4096  # integers read between two calls of on_step


def check_complete(file: BinaryIO, suffix: str, what: str, on_step: Callable[[], None]) -> bytes | None:
    """Raise if a compressed file is not complete to its last byte.

    gzip is decompressed, which verifies its checksum too. Of zstd and lz4 only the frames are walked, which is cheap:
    pg_restore decodes their data later.

    :param suffix: ``gz``, ``zst`` or ``lz4``.
    :param what: names the file in errors.
    :param on_step: called every few MiB; may raise.
    :return: the last 8 bytes of the decompressed data for gzip; None for zstd and lz4.
    :raises VerificationFailed: the file is empty, truncated or corrupt, and where.
    """
    if suffix == "gz":
        return _check_gzip(file, what, on_step)
    walk = _zstd_frame if suffix == "zst" else _lz4_frame
    frames = _Frames(file, what, on_step)
    while frames.more():
        walk(frames)
    return None


def _check_gzip(file: BinaryIO, what: str, on_step: Callable[[], None]) -> bytes:
    reader = Decompressed(file, "gzip", what, on_step=on_step)
    tail, any_data = b"", False
    while data := reader.read(CHUNK):
        tail, any_data = (tail + data)[-8:], True
        on_step()
    if not any_data and not reader.streams:
        raise VerificationFailed(f"{what} is empty")
    return tail


class _Frames:
    """A position that moves forward through the frames of a file."""

    def __init__(self, file: BinaryIO, what: str, on_step: Callable[[], None]) -> None:
        self._file = file
        self._on_step = on_step
        self._numbers = 0
        self._what = what
        self._size = file.seek(0, 2)
        self._position = file.seek(0)

    def more(self) -> bool:
        return self._position < self._size

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        self._position += len(data)
        if len(data) < count:
            self.truncated()
        return data

    def number(self, count: int) -> int:
        self._numbers += 1
        if self._numbers % _STEP == 1:  # a frame may have any number of blocks
            self._on_step()
        return int.from_bytes(self.take(count), "little")

    def skip(self, count: int) -> None:
        self._position += count
        if self._position > self._size:
            self.truncated()
        self._file.seek(self._position)

    def truncated(self) -> None:
        raise VerificationFailed(f"{self._what} is truncated after {self._size} bytes, inside a compressed frame")

    def corrupt(self) -> None:
        raise VerificationFailed(f"{self._what} is corrupt near byte {self._position}: invalid compressed frame")

    def begin(self, magic: int) -> bool:
        """Read the start of a frame. Skip a skippable frame, and return False."""
        found = self.number(4)
        if found & ~0xF == _SKIPPABLE_MAGIC:
            self.skip(self.number(4))
            return False
        if found != magic:
            self.corrupt()
        return True


def _zstd_frame(frames: _Frames) -> None:
    """RFC 8878, section 3.1."""
    if not frames.begin(_ZSTD_MAGIC):
        return
    descriptor = frames.number(1)
    single_segment = descriptor >> 5 & 1
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    frames.skip((1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size)
    last = 0
    while not last:
        header = frames.number(3)
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            frames.corrupt()
        frames.skip(1 if kind == 1 else size)
    frames.skip(4 if descriptor & 4 else 0)


def _lz4_frame(frames: _Frames) -> None:
    """The LZ4 Frame Format, version 1.6."""
    if not frames.begin(_LZ4_MAGIC):
        return
    flags = frames.number(1)
    if flags >> 6 != 1:
        frames.corrupt()
    frames.skip(1 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0) + 1)
    while block := frames.number(4):
        frames.skip((block & 0x7FFFFFFF) + (4 if flags & 16 else 0))
    frames.skip(4 if flags & 4 else 0)


class Decompressed:
    """Read a compressed source as a stream. A premature end raises an error.

    It needs a few MiB of memory, however much the source decompresses to; for zstd also the window that a frame asks
    for, and for xz its dictionary, at most 128 MiB (:data:`.MAX_WINDOW`).

    :param method: one of :data:`.decompressors.METHODS`; or ``zlib``, which pg_dump calls gzip inside its archives.
    :param what: names the source in errors.
    :param on_step: called after each read of the source, which may decompress to nothing; may raise.
    :ivar streams: number of compressed streams read to their ends; a file may hold several, one after another.
    :raises VerificationFailed: by ``read``: the source is truncated or corrupt.
    :raises NotProven: by ``read``: a method that is not supported, a zstd window of more than 128 MiB, or not enough
        memory.
    """

    def __init__(self, source: Readable, method: str, what: str, *, on_step: Callable[[], None] = lambda: None) -> None:
        self._counted = CountingReader(source, lambda size: on_step())
        self._source: Readable = ZstdBlocks(self._counted, what) if method == "zstd" else self._counted
        self._what = what
        self._method = method
        self._decompressor: Decompressor | None = None
        self._left = b""  # compressed bytes not yet passed to the decompressor
        self._more = False  # the decompressor may have more output than it was asked for
        self._output = memoryview(b"")
        self._padding = 0  # zero bytes since the last stream
        self.streams = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return between one byte and `size` bytes, as available; nothing at the end. `size` must be positive."""
        while not self._output:
            if not (self._left or self._more):
                self._left = self._source.read(_INPUT)
                if not self._left:
                    return self._end()
            self._output = memoryview(self._decompress())
        data, self._output = bytes(self._output[:size]), self._output[size:]
        return data

    def _decompress(self) -> bytes:
        if self._decompressor is None:
            if self.streams and self._method in _PADDED and not self._skip_padding():
                return b""
            self._decompressor = decompressor(self._method)
        try:
            output = self._decompressor.decompress(self._left, CHUNK)
        except NotProven:
            raise
        except MemoryError as error:
            raise not_read(self._what, "out of memory") from error
        except Exception as error:  # the libraries share no class of errors
            if lacks_memory(str(error)):
                raise not_read(self._what, str(error)) from error
            raise VerificationFailed(f"{self._what} is corrupt before byte {self._counted.size}: {error}") from error
        if self._decompressor.eof:
            self._left, self._more = self._decompressor.unused_data, False
            self._decompressor = None
            self.streams += 1
        else:
            self._left, self._more = self._decompressor.unconsumed_tail, len(output) >= CHUNK
        return output

    def _skip_padding(self) -> bool:
        """Skip zero bytes after a stream. Return whether another stream follows in what has been read."""
        rest = self._left.lstrip(b"\0")
        self._padding += len(self._left) - len(rest)
        self._left = rest
        if not rest:
            return False
        if self._padding and self._method == "gzip":
            raise VerificationFailed(
                f"{self._what} is corrupt before byte {self._counted.size}: its gzip stream is followed by zero bytes "
                "and then by others, which gzip ignores"
            )
        self._check_padding()
        self._padding = 0
        return True

    def _check_padding(self) -> None:
        if self._method == "xz" and self._padding % 4:
            raise VerificationFailed(
                f"{self._what} is corrupt before byte {self._counted.size}: its xz stream is followed by "
                f"{self._padding} zero bytes, not by a multiple of 4"
            )

    def _end(self) -> bytes:
        if self._decompressor is not None:
            raise VerificationFailed(
                f"{self._what} is truncated after {self._counted.size} bytes: its {self._method} stream does not end"
            )
        self._check_padding()
        return b""
