"""The table of contents of an archive: parse its entries, with their exact names.

``pg_restore --list`` prints the same entries, but replaces newlines in names by spaces and does not quote names with
spaces. So this module parses the table of contents itself: the beginning of a custom archive, or ``toc.dat``. The
layout is that of ``ReadHead`` and ``ReadToc`` in ``src/bin/pg_dump/pg_backup_archiver.c``. It changes only with the
version number of the archive: 1.10 (PostgreSQL 8.0) to 1.16 (17 and 18). pg_restore decodes the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import ArchiveVersionError, VerificationFailed
from airflow_pgbackup.postgres.archive.toc_bytes import INT, TocBytes
from airflow_pgbackup.wording import command

_OLDEST = (1, 10)
_NEWEST = (1, 16)
_NEEDS_CLIENT = {(1, 15): 16, (1, 16): 17}
"""The oldest major version of pg_restore that reads these archives; every supported one reads older archives."""

_FORMATS = {1: "custom", 3: "tar", 5: "directory"}
_COMPRESSIONS = ("none", "gzip", "lz4", "zstd")
VERSION_SIZE = 8
"""The bytes that :func:`unknown_version` needs: ``PGDMP`` and the version."""
_MAX_DUMP_ID = 1 << 27  # more objects than pg_dump could hold in memory; pg_restore allocates an array of that length
MAX_ENTRIES = 1 << 21
_OFFSET_FLAGS = (1, 2, 3)
_OFFSET_SET, _NO_DATA = _OFFSET_FLAGS[1:]  # K_OFFSET_POS_SET, K_OFFSET_NO_DATA; the other is K_OFFSET_POS_NOT_SET
SETTING_KINDS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH"})
"""Kinds of entries that say how to read the archive. Every archive has them, that of an empty database too."""
_OF_DATA = SETTING_KINDS | {"BLOB", "BLOB METADATA", "BLOBS", "MATERIALIZED VIEW DATA", "SEQUENCE SET", "TABLE DATA"}
_ENCODING = re.compile(r"SET client_encoding = '([\w-]+)';\n?", re.ASCII)


def encoding_set_by(definition: str) -> str | None:
    """Return the encoding that an ``ENCODING`` entry sets; None if pg_dump has not written the entry."""
    match = _ENCODING.fullmatch(definition)
    return match[1] if match else None


def is_about(what: str, kind: str, schema: str | None, name: str) -> bool:
    """Return whether an entry has privileges, a comment or a security label of an object outside of schemas.

    Its name begins with the kind of that object. A table may have such a name too.

    :param what: ``DATABASE``, ``LARGE OBJECT`` (also several), ``SUBSCRIPTION``.
    """
    about = kind in ("ACL", "COMMENT", "SECURITY LABEL") and not schema
    return about and name.startswith((f"{what} ", f"{what}S "))


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One object of an archive.

    :param kind: ``TABLE``, ``TABLE DATA``, ``FK CONSTRAINT``, ...
    :param schema: None for an object outside of schemas.
    :param definition: SQL; in a ``BLOB METADATA`` entry the OIDs of the large objects, one per line. May contain
        passwords of user mappings and subscriptions.
    :param copy_statement: of ``TABLE DATA``; None in a dump with ``--inserts``.
    :param depends_on: dump IDs.
    :param file: the member with its data in tar and directory archives, without the suffix of a compression.
    :param has_data: the archive has data of it.
    :param offset: of its data in a custom archive; None if the archive does not have it.
    """

    dump_id: int
    tableoid: int
    oid: int
    kind: str
    schema: str | None
    name: str
    owner: str
    definition: str = field(default="", repr=False)
    drop_statement: str = field(default="", repr=False)
    copy_statement: str | None = field(default=None, repr=False)
    tablespace: str = field(default="", repr=False)
    access_method: str = field(default="", repr=False)
    depends_on: tuple[int, ...] = field(default=(), repr=False)
    file: str | None = field(default=None, repr=False)
    has_data: bool = field(default=False, repr=False)
    offset: int | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The entry in messages: ``TABLE DATA public.film (entry 3456)``."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return f"{self.kind} {name} (entry {self.dump_id})"

    def is_about(self, what: str) -> bool:
        """Return what :func:`is_about` does."""
        return is_about(what, self.kind, self.schema, self.name)


@dataclass(frozen=True)
class Toc:
    """The header and the entries of an archive.

    :param version: of the layout, ``(1, 16)``.
    :param format: ``custom``, ``tar``, ``directory``.
    :param compression: ``none``, ``gzip``, ``lz4``, ``zstd``.
    :param server_version: of the dumped server, ``18.4 (Debian 18.4-1)``.
    :param dump_version: of the pg_dump that wrote it.
    :param size: of header and table of contents, bytes: the offset of the data in a custom archive.
    """

    version: tuple[int, int]
    format: str
    compression: str
    database: str
    server_version: str
    dump_version: str
    entries: list[TocEntry]
    size: int

    @property
    def needs_client(self) -> int:
        """The oldest major version of pg_restore that can read the archive; 0 for any."""
        return _NEEDS_CLIENT.get(self.version, 0)


Keep = Callable[[TocEntry], bool]
"""Which entries to keep: all of a large schema take hundreds of MiB."""


def concerns_data(entry: TocEntry) -> bool:
    """Return whether an entry is needed to read the data of an archive."""
    return entry.has_data or entry.file is not None or entry.kind in _OF_DATA


def read_toc(source: Readable, *, what: str, keep: Keep | None = None, limited: bool = True) -> tuple[Toc, bytes]:
    """Parse the header and the entries.

    :param source: positioned at the header.
    :param what: names the file in errors, ``toc.dat``.
    :param keep: by default all entries.
    :param limited: False for what a pg_dump writes that this process runs: the limits are for files of others.
    :return: the table of contents, and all bytes that were read, which may extend beyond it.
    :raises VerificationFailed: not a table of contents, or truncated or damaged.
    :raises NotProven: larger than :data:`.toc_bytes.MAX_BYTES`, or more entries than :data:`MAX_ENTRIES`.
    :raises ArchiveVersionError: a version that is not supported.
    """
    reader = _TocReader(source, what, limited=limited)
    toc = reader.head()
    toc.entries.extend(filter(keep, reader.entries()) if keep else reader.entries())
    return replace(toc, size=reader.position), reader.taken()


def parse_toc(source: Readable, *, what: str, keep: Keep | None = None, limited: bool = True) -> Toc:
    """Parse the header and the entries, and hold none of the bytes, whatever is read beyond them.

    :param source, what, keep, limited: as for :func:`read_toc`, whose errors it raises.
    """
    reader = _TocReader(source, what, hold=False, limited=limited)
    toc = reader.head()
    toc.entries.extend(filter(keep, reader.entries()) if keep else reader.entries())
    return replace(toc, size=reader.position)


def iterate_toc(source: Readable) -> Iterator[TocEntry]:
    """Yield the entries of a dump of a restored copy as :func:`parse_toc` parses them, and hold none."""
    reader = _TocReader(source, "the dump of the copy", hold=False)
    reader.head()
    yield from reader.entries()


def unknown_version(head: bytes, what: str) -> ArchiveVersionError | None:
    """Return the error for an archive whose version this module does not know; None for all others.

    :param head: the first 8 bytes of the archive.
    :param what: names it in the error.
    """
    if not head.startswith(b"PGDMP") or len(head) < 8 or _OLDEST <= (head[5], head[6]) <= _NEWEST:
        return None
    return ArchiveVersionError(
        f"{what} has archive version {head[5]}.{head[6]}, supported are {_OLDEST[0]}.{_OLDEST[1]} to "
        f"{_NEWEST[0]}.{_NEWEST[1]}",
        hint=f"Update airflow-pgbackup to read an archive of a newer PostgreSQL. The command that '{command('show')}' "
        "prints needs PostgreSQL's pg_restore only.",
    )


class _TocReader(TocBytes):
    """Parses the header, then the entries."""

    def __init__(self, source: Readable, what: str, *, hold: bool = True, limited: bool = True) -> None:
        super().__init__(source, what, hold=hold, limited=limited)
        self._version = (0, 0)
        self._extra: int | None = None
        self._left = 0
        self._seen: dict[int, int] = {}  # 64 dump IDs in an integer, as they are mostly consecutive

    def head(self) -> Toc:
        """Parse the header; return it without entries."""
        if self._take(5) != b"PGDMP":
            raise VerificationFailed(
                f"{self._what} is not an archive of pg_dump: it does not begin with PGDMP"
                if self._buffer
                else f"{self._what} is empty"
            )
        version_bytes = self._take(3)
        if unknown := unknown_version(b"PGDMP" + version_bytes, self._what):
            raise unknown
        version = self._version = (version_bytes[0], version_bytes[1])
        int_size, offset_size, format_code = self._take(3)
        # pg_restore reads an integer of another size differently from us, and so everything after it.
        if int_size != INT or not 1 <= offset_size <= 16 or format_code not in _FORMATS:
            self._corrupt("invalid header")
        if version >= (1, 15):
            code = self._take(1)[0]
            if code >= len(_COMPRESSIONS):
                self._corrupt(f"unknown compression method {code}")
            compression = _COMPRESSIONS[code]
        else:
            compression = "gzip" if self._int() else "none"
        for _ in range(7):  # when pg_dump started, without a time zone
            self._int()
        database, server_version, dump_version = (self._text() for _ in range(3))
        self._left = self._int()
        if self._left < 0:
            self._corrupt(f"invalid number of entries: {self._left}")
        self._extra = offset_size + 1 if format_code == 1 else None
        return Toc(version, _FORMATS[format_code], compression, database, server_version, dump_version, [], 0)

    def entries(self) -> Iterator[TocEntry]:
        """Parse the entries, after the header."""
        for number in range(self._left):
            if self._limited and number >= MAX_ENTRIES:
                self._too_large(f"{MAX_ENTRIES:,} entries")
            yield self._entry()

    def _entry(self) -> TocEntry:
        version = self._version
        dump_id = self._int()
        if not 0 < dump_id <= _MAX_DUMP_ID:
            self._corrupt(f"invalid dump ID: {dump_id}")
        seen, bit = self._seen.get(dump_id >> 6, 0), 1 << (dump_id & 63)
        if seen & bit:  # pg_restore would restore both
            self._corrupt(f"two entries with dump ID {dump_id}")
        self._seen[dump_id >> 6] = seen | bit
        has_data = self._int() != 0
        tableoid, oid = self._number(), self._number()
        name, kind = self._shared(), self._shared()
        if version >= (1, 11):
            self._int()  # section
        definition, drop_statement = self._text(), self._text()
        copy_statement = self._string()
        schema, tablespace = self._shared(), self._shared()
        access_method = self._shared() if version >= (1, 14) else ""
        if version >= (1, 16):
            self._int()  # relkind
        owner = self._shared()
        self._string()  # WITH OIDS
        depends_on = []
        while (dependency := self._string()) is not None:
            depends_on.append(self._parse_number(dependency))
        file, offset = None, None
        if self._extra is None:
            file = self._text() or None
        else:
            # The offset of the data, set only in a file that pg_dump could seek in.
            flag, *stored = self._take(self._extra)
            if flag not in _OFFSET_FLAGS:
                self._corrupt(f"unexpected data offset flag {flag}")
            if has_data and flag == _NO_DATA:  # pg_restore would restore none
                self._corrupt(f"entry {dump_id} both has data and has none")
            if flag == _OFFSET_SET:
                offset = int.from_bytes(stored, "little")
        if kind == "ENCODING" and (encoding := encoding_set_by(definition)):
            self._decoder.use(encoding)
        return TocEntry(
            dump_id,
            tableoid,
            oid,
            kind,
            schema or None,
            name,
            owner,
            definition,
            drop_statement,
            copy_statement or None,
            tablespace,
            access_method,
            tuple(depends_on),
            file,
            has_data,
            offset,
        )
