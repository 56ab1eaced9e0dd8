"""Is a compressed file whole? And plain dumps read through their compression.

pg_restore does not say: of a directory archive it takes a gzip, zstd or lz4 member cut anywhere in its data for a
shorter one (tried on every length with 18.6), and exits 0.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.zstd_blocks import MOST_WINDOW, ZstdBlocks
from airflow_pgbackup.postgres.sql.window import CHUNK

_ZSTD_MAGIC = 0xFD2FB528
_LZ4_MAGIC = 0x184D2204
_SKIPPABLE_MAGIC = 0x184D2A50  # and the fifteen after it, in both formats
_WBITS = {"gzip": 31, "zlib": 15}
_INPUT = 32 << 10
_STEP = 4096  # numbers read


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, most: int, /) -> bytes: ...


def check_complete(file: BinaryIO, suffix: str, what: str, on_step: Callable[[], None]) -> bytes | None:
    """Raise if a compressed file is not whole to its last byte.

    gzip is decompressed, which checks its checksum too; the frames of zstd and lz4 are walked, which costs nothing
    (pg_restore then decodes their data).

    :param suffix: ``gz``, ``zst`` or ``lz4``.
    :param on_step: called every few MiB; may raise.
    :return: the last bytes of what gzip holds; None for the others.
    :raises VerificationFailed: what is wrong, and where.
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
    """Forward through a file of frames."""

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
        raise VerificationFailed(f"{self._what} is corrupt near byte {self._position}: no compressed frame")


def _zstd_frame(frames: _Frames) -> None:
    """RFC 8878, section 3.1."""
    magic = frames.number(4)
    if magic & ~0xF == _SKIPPABLE_MAGIC:
        frames.skip(frames.number(4))
        return
    if magic != _ZSTD_MAGIC:
        frames.corrupt()
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
    magic = frames.number(4)
    if magic & ~0xF == _SKIPPABLE_MAGIC:
        frames.skip(frames.number(4))
        return
    if magic != _LZ4_MAGIC:
        frames.corrupt()
    flags = frames.number(1)
    if flags >> 6 != 1:
        frames.corrupt()
    frames.skip(1 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0) + 1)
    while block := frames.number(4):
        frames.skip((block & 0x7FFFFFFF) + (4 if flags & 16 else 0))
    frames.skip(4 if flags & 4 else 0)


class Decompressed:
    """A reader of what ``source`` holds; an end that comes too early is an error, not an end.

    It holds some MiB, whatever the source decompresses to, and with zstd the window that a frame asks for, at most
    128 MiB (:data:`~airflow_pgbackup.postgres.archive.zstd_blocks.MOST_WINDOW`).

    :param method: ``gzip`` or ``zstd``; ``zlib`` is what pg_dump calls gzip inside its archives.
    :param on_step: called whenever the source was read, which may come to nothing; may raise.
    :ivar streams: how many compressed streams were read to their ends; more than one follow each other in a file.
    """

    def __init__(self, source: Readable, method: str, what: str, *, on_step: Callable[[], None] = lambda: None) -> None:
        self._counted = CountingReader(source, lambda size: on_step())
        self._source: Readable = ZstdBlocks(self._counted, what) if method == "zstd" else self._counted
        self._what = what
        self._method = method
        self._decompressor: _Decompressor | None = None
        self._left = b""  # compressed
        self._more = False  # whether the decompressor had more to say than it was asked for
        self._output = memoryview(b"")
        self.streams = 0

    def read(self, size: int = -1, /) -> bytes:
        """Between one byte and ``size``, as comes at hand; empty at the end. ``size`` must be positive."""
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
            self._decompressor = _decompressor(self._method)
        try:
            output = self._decompressor.decompress(self._left, CHUNK)
        except MemoryError:
            raise
        except Exception as error:  # zlib, isal and zstandard each have their own, with nothing else in common
            raise VerificationFailed(f"{self._what} is corrupt before byte {self._counted.size}: {error}") from error
        if self._decompressor.eof:
            self._left, self._more = self._decompressor.unused_data, False
            self._decompressor = None
            self.streams += 1
        else:
            self._left, self._more = self._decompressor.unconsumed_tail, len(output) >= CHUNK
        return output

    def _end(self) -> bytes:
        if self._decompressor is not None:
            raise VerificationFailed(
                f"{self._what} is truncated after {self._counted.size} bytes: its {self._method} stream does not end"
            )
        return b""


class _Zstd:
    """zstandard's decompressor, without a limit: :class:`ZstdBlocks` feeds it with so little that it needs none."""

    unconsumed_tail = b""

    def __init__(self) -> None:
        import zstandard

        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data

    def decompress(self, data: bytes, _most: int, /) -> bytes:
        return self._decompressor.decompress(data)


def _decompressor(method: str) -> _Decompressor:
    if method in _WBITS:
        return _gzip_decompressor(_WBITS[method])
    if method == "zstd":
        return _Zstd()
    raise NotProven(
        f"a plain dump compressed with {method} cannot be read here",
        hint="dump in custom format, or compress plain dumps with zstd or gzip",
    )


def _gzip_decompressor(wbits: int) -> _Decompressor:
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this processor: zlib does the same, slower
        return zlib.decompressobj(wbits=wbits)
    return isal_zlib.decompressobj(wbits=wbits)
