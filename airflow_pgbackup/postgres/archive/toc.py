"""The table of contents of pg_dump's archives: what is in them, by exact names.

``pg_restore --list`` prints the same, but turns line ends in names into spaces and puts nothing around names with
spaces in them, so the entries are read where they are: at the head of a custom archive, in ``toc.dat`` of the others.
The layout is that of ``ReadHead`` and ``ReadToc`` in ``src/bin/pg_dump/pg_backup_archiver.c``, which changes only with
the archive's version number: 1.10 (PostgreSQL 8.0) to 1.16 (17 and 18). Decoding the data is left to pg_restore.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import ClientError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.sql.names import NameDecoder

_OLDEST = (1, 10)
_NEWEST = (1, 16)
_NEEDS_CLIENT = {(1, 15): 16, (1, 16): 17}
"""The oldest major version of pg_restore that reads these archives; older archives are read by all of ours."""

_FORMATS = {1: "custom", 3: "tar", 5: "directory"}
_COMPRESSIONS = ("none", "gzip", "lz4", "zstd")
MOST_BYTES = 1 << 29
"""Of a table of contents: that of 100,000 tables has some 350 MB. What is made of it takes up to six times that."""
MOST_ENTRIES = 1 << 21
_INT, _INT_MAX = 4, 2**31 - 1  # C's int
_READ = 1 << 16
_ENCODING = re.compile(r"SET client_encoding = '([^']*)'")


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One object of an archive.

    :ivar kind: ``TABLE``, ``TABLE DATA``, ``FK CONSTRAINT``, ...
    :ivar schema: None for what is in none.
    :ivar definition: SQL; in a ``BLOB METADATA`` entry the large objects' OIDs, a line each. May hold passwords of
        user mappings and subscriptions.
    :ivar copy_statement: of ``TABLE DATA``; None in a dump by ``--inserts``.
    :ivar depends_on: dump ids.
    :ivar file: the member with its data in tar and directory archives, without a compression's suffix.
    :ivar has_data: whether there is data of it in the archive.
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

    @property
    def label(self) -> str:
        """For messages: ``TABLE DATA public.film (entry 3456)``."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return f"{self.kind} {name} (entry {self.dump_id})"


@dataclass(frozen=True)
class Toc:
    """Head and entries of an archive.

    :ivar version: of the archive's layout, ``(1, 16)``.
    :ivar format: ``custom``, ``tar``, ``directory``.
    :ivar compression: ``none``, ``gzip``, ``lz4``, ``zstd``.
    :ivar server_version: of the dumped server, ``18.4 (Debian 18.4-1)``.
    :ivar dump_version: of the pg_dump that wrote it.
    :ivar size: of the table of contents with its head, bytes: in a custom archive the data begins there.
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
        """The oldest major version of pg_restore that can read the archive, 0 for any."""
        return _NEEDS_CLIENT.get(self.version, 0)


def read_toc(source: Readable, *, what: str, only_data: bool = False) -> tuple[Toc, bytes]:
    """Read head and entries.

    :param what: names the file in messages, ``toc.dat``.
    :param only_data: keep the entries that have data only: of a large schema all of them take hundreds of MiB.
    :return: and all bytes that were read, some of which may lie behind the table of contents.
    :raises VerificationFailed: it ends early, or is none.
    :raises NotProven: it is larger than :data:`MOST_BYTES`, or has more than :data:`MOST_ENTRIES`.
    :raises ClientError: it is of a version unknown here.
    """
    return _TocReader(source, what).read(only_data)


class _TocReader:
    def __init__(self, source: Readable, what: str) -> None:
        self._source = source
        self._what = what
        self._buffer = bytearray()
        self._position = 0
        self._int_size = 4
        self._entries = 0
        self._decoder = NameDecoder()

    def read(self, only_data: bool) -> tuple[Toc, bytes]:
        if self._take(5) != b"PGDMP":
            raise VerificationFailed(
                f"{self._what} is no archive of pg_dump: it does not begin with PGDMP"
                if self._buffer
                else f"{self._what} is empty"
            )
        major, minor, _revision = self._take(3)
        version = (major, minor)
        if not _OLDEST <= version <= _NEWEST:
            raise ClientError(
                f"{self._what} is of archive version {major}.{minor}; {_OLDEST[0]}.{_OLDEST[1]} to "
                f"{_NEWEST[0]}.{_NEWEST[1]} can be read",
                hint="an archive of a later PostgreSQL needs a later airflow-pgbackup",
            )
        self._int_size, offset_size, format_code = self._take(3)
        # pg_restore reads an int of another size differently from us, and then everything behind it.
        if self._int_size != _INT or not 1 <= offset_size <= 16 or format_code not in _FORMATS:
            self._corrupt("its head makes no sense")
        if version >= (1, 15):
            code = self._take(1)[0]
            if code >= len(_COMPRESSIONS):
                self._corrupt(f"its compression is number {code}")
            compression = _COMPRESSIONS[code]
        else:
            compression = "gzip" if self._int() else "none"
        for _ in range(7):  # when it was made, in an unknown time zone
            self._int()
        database, server_version, dump_version = (self._text() for _ in range(3))
        count = self._int()
        if count < 0:
            self._corrupt(f"it claims {count} entries")
        extra = offset_size + 1 if format_code == 1 else None
        every = (self._entry(version, extra) for _ in range(count))
        entries = [entry for entry in every if entry.has_data or not only_data]
        toc = Toc(
            version,
            _FORMATS[format_code],
            compression,
            database,
            server_version,
            dump_version,
            entries,
            self._position,
        )
        return toc, bytes(self._buffer)

    def _entry(self, version: tuple[int, int], extra: int | None) -> TocEntry:
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            self._too_large(f"{MOST_ENTRIES:,} entries")
        dump_id = self._int()
        if dump_id <= 0:
            self._corrupt(f"an entry has the number {dump_id}")
        has_data = self._int() != 0
        tableoid, oid = self._number(), self._number()
        name, kind = self._text(), self._text()
        if version >= (1, 11):
            self._int()  # section
        definition, drop_statement = self._text(), self._text()
        copy_statement = self._string()
        schema, tablespace = self._string(), self._text()
        access_method = self._text() if version >= (1, 14) else ""
        if version >= (1, 16):
            self._int()  # relkind
        owner = self._text()
        self._string()  # WITH OIDS
        depends_on = []
        while (dependency := self._string()) is not None:
            depends_on.append(self._parse_number(dependency))
        if extra is None:
            file = self._text() or None
        else:
            self._take(extra)  # where the data is, which only a file that can seek has
            file = None
        if kind == "ENCODING" and (match := _ENCODING.search(definition)):
            self._decoder.use(match.group(1))
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
        )

    def _take(self, count: int) -> bytes:
        end = self._position + count
        while len(self._buffer) < end:
            more = self._source.read(max(_READ, min(end - len(self._buffer), 1 << 20)))
            if not more:
                if not self._buffer:
                    raise VerificationFailed(f"{self._what} is empty")
                raise VerificationFailed(
                    f"{self._what} ends inside its table of contents, after {len(self._buffer)} bytes"
                )
            self._buffer += more
            if len(self._buffer) > MOST_BYTES:
                self._too_large(f"{MOST_BYTES:,} bytes")
        taken = bytes(self._buffer[self._position : end])
        self._position = end
        return taken

    def _int(self) -> int:
        data = self._take(self._int_size + 1)
        value = int.from_bytes(data[1:], "little")
        if value > _INT_MAX:
            self._corrupt(f"a number of {value}")
        return -value if data[0] else value

    def _string(self) -> str | None:
        length = self._int()
        if length < 0:
            return None
        data = self._take(length)
        if b"\0" in data:  # where the text ends for pg_restore
            self._corrupt("a text with a null byte")
        return self._decoder.text(data)

    def _text(self) -> str:
        return self._string() or ""

    def _number(self) -> int:
        return self._parse_number(self._text())

    def _parse_number(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 12):
            self._corrupt(f"{text[:20]!r} where a number belongs")
        return int(text)

    def _too_large(self, most: str) -> NoReturn:
        raise NotProven(
            f"the table of contents of {self._what} has more than {most}, which are not read here",
            hint="If it is a sound dump, restore it with pg_restore, and dump schema by schema.",
        )

    def _corrupt(self, detail: str) -> NoReturn:
        raise VerificationFailed(f"{self._what} has a corrupt table of contents near byte {self._position}: {detail}")
