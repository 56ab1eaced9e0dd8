"""The few statements of a dump that are looked into: whose rows, which sequence, which large object.

All text is what pg_dump writes (``fmtId``, ``appendStringLiteral`` in ``src/fe_utils/string_utils.c``); nothing here
is a general SQL parser.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.statement import excerpt

_NAME = re.compile(rb'\s*(?:"((?:[^"]|"")*)"|([^\s".,;()]+))')
_ESCAPE_LITERAL = re.compile(rb"\s*E?'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_LITERAL = re.compile(rb"\s*'((?:[^']|'')*)'")
_INSERT = re.compile(rb"INSERT INTO ", re.IGNORECASE)
_SETVAL = re.compile(rb"SELECT (?:pg_catalog\.)?setval\(")
_SETVAL_VALUE = re.compile(rb", (-?\d{1,19}), (true|false)\);")
_SET_CONFIG = re.compile(rb"SELECT pg_catalog\.set_config\('search_path', ")
_MOST_OID = 2**32 - 1
_LO_OPEN = re.compile(rb"SELECT (?:pg_catalog\.)?lo_open\('?(\d{1,10})'?, ")
_LO_WRITE = re.compile(rb"SELECT (?:pg_catalog\.)?lowrite\(0, ")
_SET_NAME = re.compile(rb"SET (?:SESSION )?search_path (?:=|TO) ", re.IGNORECASE)
_SET_ENCODING = re.compile(rb"SET client_encoding (?:=|TO) '([^']*)';", re.IGNORECASE)
_CONNECT = re.compile(
    rb"(?P<bare>[a-z_][a-z0-9_]*)"
    # Until 9.6 any name was written like that; one with these characters is not told from a connection string.
    rb'|"(?P<quoted>(?:[^"=:/\0\r\n]|"")+)"'
    rb"|-reuse-previous=on \"dbname='(?P<value>(?:[^'\\\"\0\r\n]|\"\"|\\['\\])+)'\""
)
_ASCII = b"azAZ09._"
# PostgreSQL's names of encodings that Python spells otherwise; the rest codecs.lookup() knows as they are.
_CODECS = {"SQL_ASCII": "utf-8", "UNICODE": "utf-8", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "UHC": "cp949"}


class NameDecoder:
    """Bytes of a dump to text, by what the dump itself declares.

    Names in ``SQL_ASCII``, or in an encoding that Python lacks, may not decode; the bytes that do not are lone
    surrogates, as in :mod:`.anybytes`.

    :ivar standard_strings: ``standard_conforming_strings``: a backslash in a plain string is just one.
    """

    def __init__(self) -> None:
        self._codec = "utf-8"
        self.standard_strings = True

    def use(self, encoding: str) -> None:
        """:param encoding: as in ``SET client_encoding``."""
        name = _CODECS.get(encoding, encoding)
        if name.startswith("WIN"):
            name = "cp" + name[3:]
        try:
            keeps_ascii = _ASCII.decode(name) == _ASCII.decode("ascii")  # as PostgreSQL's do, and UTF-16 does not
        except (LookupError, ValueError):  # EUC_TW, MULE_INTERNAL; what is not for text
            keeps_ascii = False
        self._codec = codecs.lookup(name).name if keeps_ascii else "ascii"

    def text(self, data: bytes) -> str:
        return data.decode(self._codec, "surrogateescape")


@dataclass(frozen=True)
class RowsTarget:
    """What a COPY or INSERT fills.

    :ivar schema: None where the statement leaves it to the search path, as dumps by versions before 11 do.
    :ivar columns: ``()`` is COPY without a list, None an INSERT without one.
    """

    schema: str | None
    name: str
    columns: tuple[str, ...] | None


class _Cursor:
    def __init__(self, text: bytes, position: int, decoder: NameDecoder) -> None:
        self.text = text
        self.position = position
        self._decoder = decoder

    def name(self) -> str:
        match = _NAME.match(self.text, self.position)
        if not match:
            raise VerificationFailed(f"no name where one belongs in {excerpt(self.text)}")
        self.position = match.end()
        quoted, bare = match.groups()
        return self._decoder.text(bare if quoted is None else quoted.replace(b'""', b'"'))

    def qualified(self) -> tuple[str | None, str]:
        parts = [self.name()]
        while self.skip(b"."):
            parts.append(self.name())
        return (parts[-2] if len(parts) > 1 else None), parts[-1]

    def skip(self, mark: bytes) -> bool:
        if self.text[self.position : self.position + 1] != mark:
            return False
        self.position += 1
        return True

    def space(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1

    def columns(self) -> tuple[str, ...] | None:
        self.space()
        if not self.skip(b"("):
            return None
        names = [self.name()]
        while self.skip(b","):
            names.append(self.name())
        if not self.skip(b")"):
            raise VerificationFailed(f"the list of columns does not end in {excerpt(self.text)}")
        return tuple(names)

    def literal(self) -> bytes:
        match = self._decoder.standard_strings and _LITERAL.match(self.text, self.position)
        if match:
            self.position = match.end()
            return match.group(1).replace(b"''", b"'")
        match = _ESCAPE_LITERAL.match(self.text, self.position)
        if not match:
            raise VerificationFailed(f"no string where one belongs in {excerpt(self.text)}")
        self.position = match.end()
        return re.sub(rb"\\(.)|''", lambda m: m.group(1) or b"'", match.group(1), flags=re.DOTALL)


def copy_target(text: bytes, decoder: NameDecoder) -> RowsTarget:
    """The table of ``COPY schema.name (columns) FROM stdin;``."""
    cursor = _Cursor(text, len(b"COPY"), decoder)
    schema, name = cursor.qualified()
    return RowsTarget(schema, name, cursor.columns() or ())


def insert_target(text: bytes, decoder: NameDecoder) -> RowsTarget | None:
    """The table of an INSERT; None if the statement is something else."""
    match = _INSERT.match(text)
    if not match:
        return None
    cursor = _Cursor(text, match.end(), decoder)
    schema, name = cursor.qualified()
    return RowsTarget(schema, name, cursor.columns())


def refreshed(text: bytes, decoder: NameDecoder) -> tuple[str | None, str]:
    """Schema and name of ``REFRESH MATERIALIZED VIEW schema.name;``."""
    return _Cursor(text, len(b"REFRESH MATERIALIZED VIEW"), decoder).qualified()


def setval(text: bytes, decoder: NameDecoder) -> tuple[str | None, str, int, bool] | None:
    """Schema, name, last value and is_called of a ``setval``; None if the statement is something else."""
    match = _SETVAL.match(text)
    if not match:
        return None
    cursor = _Cursor(text, match.end(), decoder)
    name = cursor.literal()
    value = _SETVAL_VALUE.match(text, cursor.position)
    if not value:
        raise VerificationFailed(f"no value in {excerpt(text)}")
    schema, sequence = _Cursor(name, 0, decoder).qualified()
    return schema, sequence, int(value.group(1)), value.group(2) == b"true"


def search_path(text: bytes, decoder: NameDecoder) -> str | None:
    """The first schema of a statement that sets the search path, ``""`` for an empty path; None if it is another."""
    if _SET_CONFIG.match(text):
        return ""
    match = _SET_NAME.match(text)
    return _Cursor(text, match.end(), decoder).name() if match else None


def client_encoding(text: bytes) -> str | None:
    """The encoding that the statement declares; None if it is another."""
    match = _SET_ENCODING.match(text)
    return match.group(1).decode("ascii", "replace") if match else None


def large_object_opened(text: bytes) -> int | None:
    """The OID of ``lo_open``; None if the statement is something else."""
    match = _LO_OPEN.match(text)
    if match and int(match.group(1)) > _MOST_OID:
        raise VerificationFailed(f"no OID of a large object in {excerpt(text)}")
    return int(match.group(1)) if match else None


def large_object_written(text: bytes, decoder: NameDecoder) -> bytes | None:
    """The bytes of ``lowrite``; None if the statement is something else."""
    match = _LO_WRITE.match(text)
    if not match:
        return None
    literal = _Cursor(text, match.end(), decoder).literal()
    if not literal.startswith(b"\\x"):
        raise VerificationFailed("a large object whose data is not in hexadecimal, as from pg_dump before 9.0")
    try:
        return bytes.fromhex(literal[2:].decode("ascii"))
    except ValueError:
        raise VerificationFailed(f"a large object whose data is no hexadecimal: {excerpt(text)}") from None


def connected_name(argument: bytes) -> bytes:
    """The name of the database of ``\\connect``, byte for byte.

    :param argument: in one of the two forms of ``appendPsqlMetaConnect``: a name, or a quoted ``dbname='...'``.
    :raises VerificationFailed: in another one, such as a connection string.
    """
    match = _CONNECT.fullmatch(argument)
    if not match:
        raise VerificationFailed(f"\\connect with {excerpt(argument)!r}, which pg_dump never writes")
    if match["value"]:
        return re.sub(rb"\\(.)", rb"\1", match["value"].replace(b'""', b'"'))
    return match["bare"] or match["quoted"].replace(b'""', b'"')


def connected_database(argument: bytes, decoder: NameDecoder) -> str:
    """The database of ``\\connect`` as text; errors as :func:`connected_name`."""
    return decoder.text(connected_name(argument))
