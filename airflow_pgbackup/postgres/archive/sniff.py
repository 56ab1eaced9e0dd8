"""Detect what kind of dump a file is, by its content and not by its name.

Archives begin with ``PGDMP``: a custom archive itself, of tar and directory archives ``toc.dat``. Scripts begin with a
comment by pg_dump or pg_dumpall, and may be compressed with gzip, zstd, lz4, bzip2 or xz.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_pgbackup.byte_streams import LimitedReader, PrefixedReader, Readable
from airflow_pgbackup.errors import ClientError, VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.tar_format import BLOCK, is_tar, toc_size
from airflow_pgbackup.postgres.archive.toc import TocEntry, read_toc
from airflow_pgbackup.postgres.sql.lexer import BYTE_ORDER_MARK
from airflow_pgbackup.postgres.sql.names import connected_name

_HEAD = 64 << 10
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_DATABASE = re.compile(rb"--\r?\n-- PostgreSQL database dump\r?\n--\r?\n")
_CLUSTER = re.compile(rb"--\r?\n-- PostgreSQL database cluster dump\r?\n--\r?\n")
_SERVER_VERSION = re.compile(rb"^-- Dumped from database version (\S+)", re.MULTILINE)
_DUMP_VERSION = re.compile(rb"^-- Dumped by pg_dump version (\S+)", re.MULTILINE)
_CONNECT = re.compile(rb"^\\connect ([^\r\n]+?)[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Dump:
    """A dump, as its first bytes describe it.

    :param format: ``custom``, ``tar``, ``directory`` or ``plain``.
    :param compression: of the data in an archive, or of the script; None for none.
    :param cluster: pg_dumpall wrote it.
    :param database: the dumped database; None if the dump does not name it, as a script without ``--create``.
    :param create: a script that creates its database.
    :param server_version: ``18.4``; None if the dump does not have it.
    :param dump_version: of pg_dump; None if the dump does not have it.
    :param created: when pg_dump started, by the clock of its machine and without a time zone. Archives only.
    :param kinds: number of the entries of each kind, with ``PARTITIONED TABLE`` for those tables. Archives only.
    """

    format: str
    compression: str | None
    cluster: bool = False
    database: str | None = None
    create: bool = False
    server_version: str | None = None
    dump_version: str | None = None
    created: datetime | None = None
    kinds: Mapping[str, int] = field(default_factory=dict, compare=False)


def sniff_directory(toc: Readable) -> Dump | None:
    """Return what kind of dump a directory is. :param toc: its ``toc.dat``. As :func:`sniff_file`."""
    head = _exactly(toc, 5)
    return _archive(PrefixedReader(head, toc), "directory", "toc.dat") if head == b"PGDMP" else None


def sniff_file(file: Readable, what: str) -> Dump | None:
    """Return what kind of dump a file is; None if it is not a dump. The file is read forward only, and not to its end.

    :param what: names the file in errors.
    :raises VerificationFailed: the header or the table of contents of a dump is damaged.
    :raises ClientError: a compressed archive, or one of a newer PostgreSQL than is supported.
    :raises NotProven: the library for its compression is missing, or it needs too much memory.
    """
    head = _exactly(file, BLOCK)
    everything = PrefixedReader(head, file)
    if head.startswith(b"PGDMP"):
        return _archive(everything, "custom", what)
    if is_tar(head):
        return _archive(LimitedReader(file, toc_size(head)), "tar", what)
    method = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if method is None:
        return _script(_exactly(everything, _HEAD), None)
    text = _exactly(Decompressed(everything, method, what), _HEAD)
    if text.startswith(b"PGDMP") or is_tar(text[:BLOCK]):
        raise ClientError(
            f"pg_restore cannot read an archive of pg_dump that is compressed with {method}",
            hint="Decompress the file: pg_dump has compressed the data in the archive already.",
        )
    return _script(text, method)


def _archive(file: Readable, format: str, what: str) -> Dump | None:
    toc, head = read_toc(file, what=what)
    # toc.dat of a directory calls itself tar: _CloseArchive() in src/bin/pg_dump/pg_backup_directory.c.
    if (toc.format == "custom") != (format == "custom"):
        raise VerificationFailed(f"{what} has the header of {toc.format} format, expected {format}")
    return Dump(
        format=format,
        compression=None if toc.compression == "none" else toc.compression,
        database=toc.database or None,
        server_version=_version(toc.server_version),
        dump_version=_version(toc.dump_version),
        created=_created(head, toc.version),
        kinds=Counter(map(_kind, toc.entries)),
    )


def _kind(entry: TocEntry) -> str:
    is_partitioned = entry.kind == "TABLE" and "\nPARTITION BY " in entry.definition
    return "PARTITIONED TABLE" if is_partitioned else entry.kind


def _created(head: bytes, version: tuple[int, int]) -> datetime | None:
    """Return the time in the header: integers of a ``struct tm``, see ``WriteHead`` in ``pg_backup_archiver.c``."""
    size = head[8]
    position = 11 + (1 if version >= (1, 15) else size + 1)
    numbers = []
    for _ in range(6):
        value = int.from_bytes(head[position + 1 : position + 1 + size], "little")
        numbers.append(-value if head[position] else value)
        position += size + 1
    second, minute, hour, day, month, year = numbers
    try:
        return datetime(year + 1900, month + 1, day, hour, minute, min(second, 59))  # noqa: DTZ001  the zone is not recorded
    except (ValueError, OverflowError):
        return None


def _script(head: bytes, compression: str | None) -> Dump | None:
    head = head.removeprefix(BYTE_ORDER_MARK)
    cluster = bool(_CLUSTER.match(head))
    if not cluster and not _DATABASE.match(head):
        return None
    name = None if cluster else _connected(head)
    server, dump = _SERVER_VERSION.search(head), _DUMP_VERSION.search(head)
    return Dump(
        format="plain",
        compression=compression,
        cluster=cluster,
        database=name.decode("utf-8", "replace") if name else None,
        create=name is not None,
        server_version=_version(server[1].decode("ascii", "replace")) if server else None,
        dump_version=_version(dump[1].decode("ascii", "replace")) if dump else None,
    )


def _connected(head: bytes) -> bytes | None:
    connect = _CONNECT.search(head)
    try:
        return connected_name(connect[1]) if connect else None
    except VerificationFailed:  # in the text of an object
        return None


def _exactly(source: Readable, size: int) -> bytes:
    text = b""
    while len(text) < size and (data := source.read(size - len(text))):
        text += data
    return text


def _version(text: str) -> str | None:
    """``18.4 (Debian 18.4-1)`` -> ``18.4``, ``19beta1`` -> ``19``."""
    match = re.match(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", text)
    return match[0] if match else None
