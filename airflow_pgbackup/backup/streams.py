"""What a dump passes through on its way from pg_dump to the repository: readers around readers.

Each has ``read(n)`` that returns ``n`` bytes until the end, as :mod:`boto3`'s transfer manager needs (a short read
looks like a small file to it), and each lets the error of the one below pass: a tool that failed is a read error at
the end of its output, so nothing that writes ever sees a clean end of a bad dump.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Protocol

from airflow_pgbackup.errors import OptionError

KEEP = 4096
"""How many bytes of each end a :class:`Meter` keeps: more than any header or trailer that is looked for."""

_CHUNK = 1 << 20


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Meter:
    """Counts, hashes and keeps both ends of what is read through it.

    :ivar size: bytes so far.
    :ivar head: the first :data:`KEEP` bytes.
    :ivar tail: the last :data:`KEEP` bytes.
    """

    def __init__(self, source: Readable, *, on_bytes: Callable[[int], None] | None = None) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""
        self.tail = b""

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        if data:
            self._hash.update(data)
            self.size += len(data)
            if len(self.head) < KEEP:
                self.head += data[: KEEP - len(self.head)]
            self.tail = data[-KEEP:] if len(data) >= KEEP else (self.tail + data)[-KEEP:]
            if self._on_bytes:
                self._on_bytes(self.size)
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class CompressingReader:
    """The compressed form of ``source``, made as it is read; memory stays at a chunk or two."""

    def __init__(self, source: Readable, compressor: _Compressor) -> None:
        self._source = source
        self._compressor: _Compressor | None = compressor
        self._buffer = bytearray()

    def read(self, size: int = -1, /) -> bytes:
        while self._compressor and (size < 0 or len(self._buffer) < size):
            data = self._source.read(_CHUNK)
            if data:
                self._buffer += self._compressor.compress(data)
            else:
                self._buffer += self._compressor.flush()
                self._compressor = None
        if size < 0:
            size = len(self._buffer)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


def compressor(method: str, level: int | None) -> _Compressor:
    """A streaming compressor for dumps in plain format, which pg_dumpall cannot compress and pg_dump < 16 not well.

    :param method: ``zstd`` (on all cores) or ``gzip``.
    :param level: None is zstd 3, gzip 1: measured best of speed and size, see ``docs/performance.md``.
    """
    if method == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=level or 3, threads=min(os.cpu_count() or 1, 4)).compressobj()
    if method == "gzip":
        return _gzip_compressor(1 if level is None else level)
    raise OptionError(f"no {method} compression for plain dumps", hint="use zstd, gzip or none")


def _gzip_compressor(level: int) -> _Compressor:
    if level <= 3:
        try:
            from isal import isal_zlib

            # isal's scale is 0 to 3; its 2 is as small as zlib's 1 to 3 and four times faster.
            return isal_zlib.compressobj(level=2 if level else 0, wbits=31)
        except ImportError:  # no wheel for this processor: zlib does the same, slower
            pass
    import zlib

    return zlib.compressobj(level=level, wbits=31)
