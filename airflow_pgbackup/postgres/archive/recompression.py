"""The data of a custom archive compressed on its way, by all cores.

pg_dump compresses in the one thread that also reads from the server, and so that thread sets the pace of the whole
dump. Here it is asked for an archive that is not compressed, and what it would have done is done by us, with the same
libraries. What comes out is an archive as pg_dump writes it; nothing but the compression of its data is changed.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.custom_format import BLOBS, DATA, INT, ZERO, CustomArchive, to_int

METHODS = {"gzip": 1, "zstd": 3}
"""What the data can be compressed with, and its number in the head of an archive."""

OLDEST_CLIENT, NEWEST_CLIENT = 15, 18
"""Major versions of pg_dump. A later one may write another layout."""

_MOST = 1 << 17
_BEFORE_COMPRESSION = len(b"PGDMP") + 3 + 3  # version, sizes of an int and an offset, format
_HEAD_OF_CHUNK = struct.Struct("<Bi").unpack_from  # an int, see custom_format


class Codec(Protocol):
    """How the data of one table or large object is compressed."""

    def parts(self, pieces: Iterator[bytes], /) -> Iterator[bytes | Future[bytes]]:
        """The data, compressed; together one stream of the method. A future is waited for when its turn comes."""


def compress_archive(source: Readable, codec: Codec, *, method: str, level: int, ahead: int = 0) -> Iterator[bytes]:
    """The compressed archive, in pieces, of an uncompressed one.

    :param source: the output of a pg_dump of these versions. Its errors come through.
    :param method: one of :data:`METHODS`, the codec's.
    :param level: goes into the head of an archive by pg_dump 15, whose compression is a number.
    :param ahead: how many futures may be on their way.
    :raises VerificationFailed: the source is no such archive, or not whole: the data of an entry is missing.
    """
    waiting: deque[bytes | Future[bytes]] = deque()
    futures = 0
    for part in _archive(source, codec, method, level):
        waiting.append(part)
        futures += isinstance(part, Future)
        while waiting and (futures > ahead or isinstance(waiting[0], bytes)):
            first = waiting.popleft()
            futures -= isinstance(first, Future)
            yield from _ready(first)
    for part in waiting:
        yield from _ready(part)


def _ready(part: bytes | Future[bytes]) -> Iterator[bytes]:
    if isinstance(part, Future):
        data = part.result()
        yield to_int(len(data))
        yield data
    else:
        yield part


def _archive(source: Readable, codec: Codec, method: str, level: int) -> Iterator[bytes | Future[bytes]]:
    archive = CustomArchive(source, what="pg_dump's output", only_data=True)
    yield from _head(archive, method, level)
    missing = {entry.dump_id: entry.label for entry in archive.toc.entries if entry.has_data}
    archive.release()
    while archive.more():
        kind, dump_id, start = archive.block()
        if kind not in (DATA, BLOBS) or dump_id not in missing:
            archive.fail(f"a block of type {kind} for entry {dump_id}")
        yield start
        if kind == DATA:
            yield from _chunks(codec.parts(_text(archive)))
        else:
            while (oid := archive.take(INT)) != ZERO:
                yield oid
                yield from _chunks(codec.parts(archive.chunks()))
            yield oid
        del missing[dump_id]
    if missing:
        archive.fail(f"it ends before {next(iter(missing.values()))}, one of {len(missing)} without their data")


def _head(archive: CustomArchive, method: str, level: int) -> Iterator[bytes]:
    """The table of contents with another compression."""
    if archive.toc.compression != "none":
        raise VerificationFailed(f"{archive.what} is compressed with {archive.toc.compression}")
    new = bytes([METHODS[method]]) if archive.toc.version >= (1, 15) else to_int(level)
    yield archive.head[:_BEFORE_COMPRESSION] + new
    for start in range(_BEFORE_COMPRESSION + len(new), len(archive.head), _MOST):
        yield archive.head[start : start + _MOST]


def _chunks(parts: Iterator[bytes | Future[bytes]]) -> Iterator[bytes | Future[bytes]]:
    for part in parts:
        if isinstance(part, Future):
            yield part  # its length comes with it
        elif part:
            yield to_int(len(part))
            yield part
    yield ZERO


def _text(archive: CustomArchive) -> Iterator[bytes]:
    """The data of a table, in pieces of about what is read at a time. Its chunks are its rows: there are millions."""
    window = archive.window
    owed = 0  # bytes still to come of the last chunk
    while True:
        buffer, start = window.buffer, window.position
        last = len(buffer) - INT
        end = start + owed
        rows = [buffer[start:end]]
        sign, length = 0, 1
        while end <= last:
            sign, length = _HEAD_OF_CHUNK(buffer, end)
            if sign or length <= 0:
                break
            start = end + INT
            end = start + length
            rows.append(buffer[start:end])
        if sign or length < 0:
            archive.fail("a chunk of a length below 0")
        window.position = end + INT if length == 0 else min(end, len(buffer))
        data = b"".join(rows)
        if b"\0" in data:  # a text of PostgreSQL holds none in any encoding: this is the head of a chunk
            archive.fail("the lengths of the chunks are not those of their data")
        if data:
            yield data
        if length == 0:
            return
        owed = end - window.position
        if not window.fill(window.position):
            archive.fail("it ends inside the data of a table")
