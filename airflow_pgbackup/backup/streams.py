"""The readers that a dump passes through between pg_dump and the repository.

Each has ``read(n)`` as :class:`~airflow_pgbackup.byte_streams.Readable` describes it; only a
:class:`~airflow_pgbackup.byte_streams.PieceReader` returns ``n`` bytes until the end. Each passes on the error of the
reader below: a failed tool is a read error at the end of its output, so no writer ever sees a clean end of a failed
dump.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from airflow_pgbackup.byte_streams import PIECE, CountingReader, PieceReader, Readable
from airflow_pgbackup.postgres.archive.recompression import Codec, compress_archive
from airflow_pgbackup.processors import usable_processors

KEEP = 4096
"""The bytes of each end that a :class:`Meter` keeps: more than any header or trailer that is checked."""

_FRAME, _LONG_FRAME = 4 << 20, 8 << 20
_DEFAULT_LEVEL = 3
_LONG_LEVEL = 10  # from this level on zstd has a window of that size
_FAST_GZIP = (1, 2, 3)
_MOST_THREADS = 4  # with more, pg_dump is the bottleneck


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Meter(CountingReader):
    """Count and hash what is read from a source, and keep both ends of it.

    :param digest: False if :attr:`sha256` is not needed.
    :ivar head: the first :data:`KEEP` bytes.
    :ivar tail: the last :data:`KEEP` bytes.
    """

    def __init__(self, source: Readable, *, on_bytes: Callable[[int], None] | None = None, digest: bool = True) -> None:
        super().__init__(source, on_bytes)
        self._hash = hashlib.sha256() if digest else None
        self.head = b""
        self.tail = b""

    def read(self, size: int = -1, /) -> bytes:
        data = super().read(size)
        if self._hash:
            self._hash.update(data)
        if len(self.head) < KEEP:
            self.head += data[: KEEP - len(self.head)]
        self.tail = data[-KEEP:] if len(data) >= KEEP else (self.tail + data)[-KEEP:]
        return data

    @property
    def sha256(self) -> str:
        if not self._hash:
            raise RuntimeError("this Meter computes no digest")
        return self._hash.hexdigest()


def compressed(source: Readable, method: str, level: int | None) -> PieceReader:
    """Compress a dump in plain format, which pg_dumpall cannot and pg_dump before 16 does slowly.

    :param method: ``zstd`` (on up to 4 cores) or ``gzip``.
    :param level: None is zstd 3 or gzip 1, the best balance of speed and size measured in
        ``docs/explanation/performance.md``.
    """
    return PieceReader(_compressed(source, _zstd(level) if method == "zstd" else _gzip(level, wbits=31)))


def compressed_inside(source: Readable, method: str, level: int | None) -> PieceReader:
    """Compress an uncompressed archive in custom format as pg_dump does. Parameters as for :func:`compressed`."""
    if method == "gzip":
        codec: Codec = _GzipStream(level)
        return PieceReader(compress_archive(source, codec, method=method, level=1 if level is None else level))
    return PieceReader(_zstd_archive(source, level))


def _zstd_archive(source: Readable, level: int | None) -> Iterator[bytes]:
    threads = _threads()
    with ThreadPoolExecutor(threads, thread_name_prefix="pgbackup-zstd") as pool:
        yield from compress_archive(source, _ZstdFrames(pool, level), method="zstd", level=0, ahead=threads + 1)


class _GzipStream:
    def __init__(self, level: int | None) -> None:
        self._level = level

    def parts(self, pieces: Iterator[bytes], /) -> Iterator[bytes]:
        compressor = _gzip(self._level, wbits=15)
        for piece in pieces:
            yield compressor.compress(piece)
        yield compressor.flush()


class _ZstdFrames:
    """Blocks of a few MiB, each a frame: they allow any number of threads, and less work than one long frame.

    Consecutive frames are a zstd stream (RFC 8878), and pg_restore reads as long as there are chunks. It drops the rest
    of a chunk after the end of a frame, so each chunk must be one frame.
    """

    def __init__(self, pool: ThreadPoolExecutor, level: int | None) -> None:
        self._pool = pool
        self._level = level or _DEFAULT_LEVEL
        self._size = _FRAME if self._level < _LONG_LEVEL else _LONG_FRAME
        self._threads = threading.local()  # a compressor is one thread's

    def parts(self, pieces: Iterator[bytes], /) -> Iterator[bytes | Future[bytes]]:
        held: list[bytes] = []
        size = 0
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= self._size:
                yield self._pool.submit(self._compress, held)
                held, size = [], 0
        if held:
            yield self._pool.submit(self._compress, held)

    def _compress(self, pieces: list[bytes]) -> bytes:
        if not hasattr(self._threads, "compressor"):
            self._threads.compressor = zstd_compressor(self._level)
        data: bytes = self._threads.compressor.compress(b"".join(pieces))
        return data


def has_fast_gzip(level: int | None) -> bool:
    """Return whether a library here does gzip of this level faster than pg_dump's own zlib."""
    return level in _FAST_GZIP and _isal() is not None


def _compressed(source: Readable, compressor: Compressor) -> Iterator[bytes]:
    while data := source.read(PIECE):
        yield compressor.compress(data)
    yield compressor.flush()


def _zstd(level: int | None) -> Compressor:
    compressor: Compressor = zstd_compressor(level or _DEFAULT_LEVEL, threads=_threads()).compressobj()
    return compressor


def zstd_compressor(level: int, *, threads: int = 0) -> Any:
    """Return a ``zstandard.ZstdCompressor`` whose frames end with a checksum of their content; every reader checks it.

    Level 3 is tuned to rows as COPY writes them: matches of 6 bytes in one hash table, where zstd's own preset searches
    for 5 bytes in two. Most data gets smaller, in a fifth less time: ``benchmarks/bench_compression.py``.

    :param threads: 0 is the calling thread.
    """
    import zstandard

    if level != _DEFAULT_LEVEL:
        return zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, strategy=zstandard.STRATEGY_FAST, hash_log=17, min_match=6, threads=threads, write_checksum=1
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _threads() -> int:
    return min(usable_processors(), _MOST_THREADS)


def _gzip(level: int | None, *, wbits: int) -> Compressor:
    level = 1 if level is None else level
    if (isal := _isal()) and (level == 0 or level in _FAST_GZIP):
        # isal's scale is 0 to 3; its 2 is as small as zlib's 1 to 3 and four times faster.
        compressor: Compressor = isal.compressobj(level=2 if level else 0, wbits=wbits)
        return compressor
    return zlib.compressobj(level=level, wbits=wbits)


def _isal() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this processor: zlib does the same, but slower
        return None
    return isal_zlib
