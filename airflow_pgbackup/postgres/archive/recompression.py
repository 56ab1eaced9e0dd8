"""Compress the data of a custom archive while pg_dump writes it, on several cores.

pg_dump compresses in the thread that also reads from the server, so compression limits the speed of the dump. Here
pg_dump writes an uncompressed archive to a pipe, and this module compresses the data in the method that was requested.

What changes in pg_dump's output:

* the compression field in the header: the method, or for pg_dump 15 the level;
* the data of each table and large object: the same bytes, compressed and cut into other chunks.

Everything else is copied byte for byte: the rest of the header, the table of contents, and of every block its type, its
dump ID and the OIDs of large objects, in the same order. The table of contents holds no data offsets that would have to
change, since pg_dump sets them only in a file that it can seek in.

What proves that the result is still pg_dump's archive:

* While compressing, every block is checked against the layout and the table of contents. An unknown version, an
  unexpected block, a wrong length or missing data is an error, and there is no backup.
* Level ``archive`` of a verification decodes the stored archive completely, with PostgreSQL's own pg_restore.
* ``tests/integration/postgres/test_recompression.py`` runs pg_restore on the original and on the compressed archive,
  from a file and from a pipe, and compares the SQL. It covers each supported pg_dump version and compression method.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from operator import attrgetter
from typing import Protocol

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.custom_format import (
    DATA,
    INT,
    ZERO,
    CustomArchive,
    ExpectedBlocks,
    head_of_chunk,
    to_int,
)

METHODS = {"gzip": 1, "zstd": 3}
"""The supported methods, and their numbers in the header of an archive."""

OLDEST_CLIENT, NEWEST_CLIENT = 15, 18
"""Major versions of pg_dump. A newer one may write another layout."""

_PIECE = 1 << 17
_BEFORE_COMPRESSION = len(b"PGDMP") + 3 + 3  # version; sizes of an integer and an offset, format


class Codec(Protocol):
    """Compress the data of one table or large object."""

    def parts(self, pieces: Iterator[bytes], /) -> Iterator[bytes | Future[bytes]]:
        """Yield the compressed data, in order; together the parts are one stream of the method."""


def compress_archive(source: Readable, codec: Codec, *, method: str, level: int, ahead: int = 0) -> Iterator[bytes]:
    """Compress an uncompressed archive, and yield the result in pieces.

    :param source: the output of pg_dump, of a version from :data:`OLDEST_CLIENT` to :data:`NEWEST_CLIENT`. Its errors
        are passed on.
    :param codec: compresses the data.
    :param method: one of :data:`METHODS`, that of the codec.
    :param level: for the header of an archive by pg_dump 15, which has the level instead of the method.
    :param ahead: number of futures that may be pending.
    :raises VerificationFailed: the source is not such an archive, or the data of an entry is missing.
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
    archive = CustomArchive(source, what="pg_dump's output", keep=attrgetter("has_data"), limited=False)
    yield from _head(archive, method, level)
    expected = ExpectedBlocks(archive.toc.entries)
    archive.release()
    while block := expected.next(archive):
        kind, _, start = block
        yield start
        if kind == DATA:
            yield from _chunks(codec.parts(_text(archive)))
        else:
            while found := archive.large_object():
                yield found[1]
                yield from _chunks(codec.parts(archive.chunks()))
            yield ZERO
    if archive.window.peek(1):
        archive.fail("data behind the last block")


def _head(archive: CustomArchive, method: str, level: int) -> Iterator[bytes]:
    """Yield header and table of contents, with another compression."""
    if archive.toc.compression != "none":
        raise VerificationFailed(f"{archive.what} is compressed with {archive.toc.compression}, expected none")
    if archive.toc.version < (1, 15) and method != "gzip":  # its header has a level, which is gzip's
        raise VerificationFailed(f"{archive.what} is an archive of pg_dump 15 or older, which has no {method}")
    new = bytes([METHODS[method]]) if archive.toc.version >= (1, 15) else to_int(level)
    yield archive.head[:_BEFORE_COMPRESSION] + new
    for start in range(_BEFORE_COMPRESSION + len(new), len(archive.head), _PIECE):
        yield archive.head[start : start + _PIECE]


def _chunks(parts: Iterator[bytes | Future[bytes]]) -> Iterator[bytes | Future[bytes]]:
    for part in parts:
        if isinstance(part, Future):
            yield part  # the length is added when it is ready
        elif part:
            yield to_int(len(part))
            yield part
    yield ZERO


def _text(archive: CustomArchive) -> Iterator[bytes]:
    """Yield the data of a table in pieces of about the size of a read. A chunk is a row, and there may be millions."""
    window = archive.window
    owed = 0  # bytes of the last chunk that were not read yet
    while True:
        buffer, start = window.buffer, window.position
        last = len(buffer) - INT
        end = start + owed
        rows = [buffer[start:end]]
        sign, length = 0, 1
        while end <= last:
            sign, length = head_of_chunk(buffer, end)
            if sign or length <= 0:
                break
            start = end + INT
            end = start + length
            rows.append(buffer[start:end])
        if sign or length < 0:
            archive.fail("a chunk has a negative length")
        window.position = end + INT if length == 0 else min(end, len(buffer))
        data = b"".join(rows)
        if b"\0" in data:  # no PostgreSQL encoding has it in text: this is the length of a chunk
            archive.fail("a chunk length does not match its data")
        if data:
            yield data
        if length == 0:
            return
        owed = end - window.position
        if not window.fill(window.position):
            archive.fail("the file ends inside the data of a table")
