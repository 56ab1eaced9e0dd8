"""Decompressors of one stream each, all with the interface and the bounds that :class:`.Decompressed` needs.

Each bounds its output by the `most` of a call, and its memory: zstd by its window, xz by a limit of its dictionary;
bzip2 (900 KB) and lz4 (4 MiB) by their formats.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.archive.zstd_blocks import MAX_WINDOW

_WBITS = {"gzip": 31, "zlib": 15}

METHODS = ("gzip", "zstd", "lz4", "bzip2", "xz")
"""The methods in which a complete script may be compressed."""


class Decompressor(Protocol):
    """The interface of ``zlib.decompressobj``: ``unconsumed_tail`` is unread input, ``unused_data`` what follows."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, most: int, /) -> bytes: ...


def decompressor(method: str) -> Decompressor:
    """Return a decompressor of one stream.

    :param method: one of :data:`METHODS`, or ``zlib``.
    :raises NotProven: an unknown method, or the library for it is missing.
    """
    if method in _WBITS:
        return _gzip(_WBITS[method])
    if method == "zstd":
        return _Zstd()
    if method == "bzip2":
        import bz2

        return _KeepsItsInput(bz2.BZ2Decompressor())
    if method == "xz":
        return _Xz()
    if method == "lz4":
        return _KeepsItsInput(_lz4())
    raise NotProven(
        f"unsupported compression of a plain dump: {method}",
        hint=f"Decompress it first. Plain dumps are read as they are, and compressed with {', '.join(METHODS)}.",
    )


class _KeepsItsInput:
    """bz2, lzma and lz4 keep the input that they have not decompressed yet for the next call."""

    unconsumed_tail = b""

    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.eof)

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data or b""

    def decompress(self, data: bytes, most: int, /) -> bytes:
        output: bytes = self._decompressor.decompress(data, most)
        return output


class _Xz(_KeepsItsInput):
    """xz. A dictionary larger than the limit does not mean that the file is damaged."""

    def __init__(self) -> None:
        import lzma

        self._errors = lzma.LZMAError
        super().__init__(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW))

    def decompress(self, data: bytes, most: int, /) -> bytes:
        try:
            return super().decompress(data, most)
        except self._errors as error:
            if "memory" not in str(error).lower():
                raise
            raise NotProven(
                f"decompressing it needs more than the {MAX_WINDOW >> 20} MiB of memory that are allowed for xz",
                hint="Recompress it with xz -9 or less.",
            ) from None


class _Zstd:
    """zstandard's decompressor. It has no limit on its output: :class:`ZstdBlocks` limits its input instead."""

    unconsumed_tail = b""

    def __init__(self) -> None:
        import zstandard

        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data

    def decompress(self, data: bytes, _most: int, /) -> bytes:
        return self._decompressor.decompress(data)


def _lz4() -> Any:
    try:
        import lz4.frame
    except ImportError:
        raise NotProven(
            "this Python lacks the package lz4, which decompresses lz4", hint="Install it: pip install lz4."
        ) from None
    return lz4.frame.LZ4FrameDecompressor()


def _gzip(wbits: int) -> Decompressor:
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this processor: zlib does the same, more slowly
        return zlib.decompressobj(wbits=wbits)
    return isal_zlib.decompressobj(wbits=wbits)
