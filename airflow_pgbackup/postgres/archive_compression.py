"""The data of a custom archive compressed on its way, by all cores.

pg_dump compresses in the one thread that also reads from the server, and so that thread sets the pace of the whole
dump. Here it is asked for an archive that is not compressed, and what it would have done is done by us, with the same
libraries. What comes out is an archive as pg_dump writes it; nothing but the compression of its data is changed.

Behind the table of contents such an archive has blocks (``src/bin/pg_dump/pg_backup_custom.c``): a type, a dump id,
then the data in chunks, each an int and so many bytes, up to a chunk of length 0. Large objects share a block, in which
an OID stands before the chunks of each, up to an OID of 0. An int is a sign byte and four bytes, the lowest first.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NoReturn, Protocol

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.toc import Toc, read_toc
from airflow_pgbackup.postgres.window import Readable, Window

METHODS = {"gzip": 1, "zstd": 3}
"""What the data can be compressed with, and its number in the head of an archive."""

OLDEST_CLIENT, NEWEST_CLIENT = 15, 18
"""Major versions of pg_dump. A later one may write another layout."""

_READ = 1 << 16
_INT = 5
_ZERO = bytes(_INT)
_BEFORE_COMPRESSION = len(b"PGDMP") + 3 + 3  # version, sizes of an int and an offset, format
_DATA, _BLOBS = 1, 3
# The int before a chunk of text: a text of PostgreSQL holds no NUL in any encoding, so each one begins an int.
_LENGTH = re.compile(rb"\x00(....)", re.DOTALL)


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
        yield _int(len(data))
        yield data
    else:
        yield part


def _archive(source: Readable, codec: Codec, method: str, level: int) -> Iterator[bytes | Future[bytes]]:
    toc, window = _open(source)
    yield _head(toc, window.buffer[: toc.size], method, level)
    missing = {entry.dump_id: entry for entry in toc.entries if entry.has_data}
    while window.peek(1):
        start = _take(window, 1 + _INT)
        kind, dump_id = start[0], int.from_bytes(start[2:], "little")
        if kind not in (_DATA, _BLOBS) or dump_id not in missing:
            _fail(window, f"a block of type {kind} for entry {dump_id}")
        yield start
        if kind == _DATA:
            yield from _chunks(codec.parts(_text(window)))
        else:
            while (oid := _take(window, _INT)) != _ZERO:
                yield oid
                yield from _chunks(codec.parts(_binary(window)))
            yield oid
        del missing[dump_id]
    if missing:
        _fail(window, f"it ends before {next(iter(missing.values())).label}, one of {len(missing)} without their data")


def _open(source: Readable) -> tuple[Toc, Window]:
    toc, read = read_toc(source, what="pg_dump's output")
    window = Window(source, _READ)
    window.buffer, window.position = read, toc.size
    return toc, window


def _head(toc: Toc, head: bytes, method: str, level: int) -> bytes:
    """The table of contents with another compression."""
    if toc.format != "custom" or toc.compression != "none":
        raise VerificationFailed(f"pg_dump's output is in {toc.format} format, its compression {toc.compression}")
    rest = head[_BEFORE_COMPRESSION:]
    if toc.version >= (1, 15):
        return head[:_BEFORE_COMPRESSION] + bytes([METHODS[method]]) + rest[1:]
    return head[:_BEFORE_COMPRESSION] + _int(level) + rest[_INT:]


def _chunks(parts: Iterator[bytes | Future[bytes]]) -> Iterator[bytes | Future[bytes]]:
    for part in parts:
        if isinstance(part, Future):
            yield part  # its length comes with it
        elif part:
            yield _int(len(part))
            yield part
    yield _ZERO


def _binary(window: Window) -> Iterator[bytes]:
    """The data of a large object."""
    while (length := _take(window, _INT)) != _ZERO:
        yield _take(window, int.from_bytes(length[1:], "little"))


def _text(window: Window) -> Iterator[bytes]:
    """The data of a table. Its chunks are its rows, too many to look at one by one."""
    owed = 0  # bytes still to come of the last chunk
    while True:
        parts = _LENGTH.split(window.buffer[window.position :] if window.position else window.buffer)
        lengths = array("i", b"".join(parts[1::2]))
        if sys.byteorder == "big":
            lengths.byteswap()
        at_end = 0 in lengths
        if at_end:
            del lengths[lengths.index(0) :]
            del parts[2 * len(lengths) + 1 :]
        else:
            parts[-1] = parts[-1].partition(b"\0")[0]  # an int that is not whole yet stays where it is
        data = b"".join(parts[::2])
        owed += sum(lengths) - len(data)
        if owed < 0 or (lengths and owed > lengths[-1]) or (owed and at_end):
            _fail(window, "the lengths of the chunks are not those of their data")
        window.position += len(data) + _INT * (len(lengths) + at_end)
        if data:
            yield data
        if at_end:
            return
        if not window.fill(window.position):
            _fail(window, "it ends inside the data of a table")


def _int(value: int) -> bytes:
    return b"\0" + value.to_bytes(_INT - 1, "little")


def _take(window: Window, count: int) -> bytes:
    data = window.peek(count)
    if len(data) < count:
        _fail(window, "it ends inside its data")
    window.position += count
    return data


def _fail(window: Window, detail: str) -> NoReturn:
    raise VerificationFailed(f"pg_dump's output, near byte {window.offset}: {detail}")
