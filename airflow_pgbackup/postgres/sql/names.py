"""The names in those statements of a dump that are interpreted: of tables, sequences, large objects and databases.

All text is as pg_dump writes it (``fmtId``, ``appendStringLiteral`` in ``src/fe_utils/string_utils.c``); this is not a
general SQL parser.
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
# For an archive by pg_dump before 9.0, pg_restore creates the object there: StartRestoreLO in pg_backup_archiver.c.
_LO_OPEN = re.compile(rb"SELECT (?:pg_catalog\.)?lo_open\((?:(?:pg_catalog\.)?lo_create\()?'?(\d{1,10})'?\)?, ")
_LO_WRITE = re.compile(rb"SELECT (?:pg_catalog\.)?lowrite\(0, ")
_ESCAPED_BYTEA = re.compile(rb"[^\\]*(?:\\(?:\\|[0-3][0-7]{2})[^\\]*)*")
_SET_NAME = re.compile(rb"SET (?:SESSION )?search_path (?:=|TO) ", re.IGNORECASE)
_SET_ENCODING = re.compile(rb"SET client_encoding (?:=|TO) '([^']*)';", re.IGNORECASE)
_CONNECT = re.compile(
    rb"(?P<bare>[a-z_][a-z0-9_]*)"
    # Until 9.6 every name was written like this. A name with these characters could be a connection string.
    rb'|"(?P<quoted>(?:[^"=:/\0\r\n]|"")+)"'
    rb"|-reuse-previous=on \"dbname='(?P<value>(?:[^'\\\"\0\r\n]|\"\"|\\['\\])+)'\""
)
_ASCII = b"azAZ09._"
# PostgreSQL's names of encodings that Python spells differently; codecs.lookup() knows the others.
_CODECS = {
    "SQL_ASCII": "utf-8",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    "UHC": "cp949",
    # Their names in pg_dump before 8.4; pg_restore prints those of today.
    "UNICODE": "utf-8",
    "KOI8": "koi8_r",
    "WIN": "cp1251",
    "ALT": "cp866",
    "TCVN": "cp1258",
}


class NameDecoder:
    """Decodes the bytes of a dump in the encoding that the dump declares.

    Bytes that cannot be decoded, in ``SQL_ASCII`` or an encoding that Python lacks, become lone surrogates, as in
    :mod:`.anybytes`.

    :ivar standard_strings: ``standard_conforming_strings``: a backslash in a plain string is an ordinary character.
    """

    def __init__(self) -> None:
        self._codec = "utf-8"
        self.standard_strings = True

    def use(self, encoding: str) -> None:
        """Decode in this encoding from now on.

        :param encoding: as in ``SET client_encoding``.
        """
        name = _CODECS.get(encoding, encoding)
        if name.startswith("WIN"):
            name = "cp" + name[3:]
        try:
            keeps_ascii = _ASCII.decode(name) == _ASCII.decode("ascii")  # true for all of PostgreSQL's, not for UTF-16
        except (LookupError, ValueError):  # EUC_TW, MULE_INTERNAL; or a codec that is not for text
            keeps_ascii = False
        self._codec = codecs.lookup(name).name if keeps_ascii else "ascii"

    def text(self, data: bytes) -> str:
        return data.decode(self._codec, "surrogateescape")

    def bytes(self, text: str) -> bytes:
        """Return the bytes that :meth:`text` has decoded."""
        return text.encode(self._codec, "surrogateescape")


@dataclass(frozen=True)
class RowsTarget:
    """The table that a COPY or INSERT fills.

    :param schema: None if the search path resolves the name, as in dumps by versions before 11.
    :param columns: ``()`` for a COPY without a column list, None for an INSERT without one.
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
            raise VerificationFailed(f"expected a name in {excerpt(self.text)}")
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
            raise VerificationFailed(f"the column list has no end in {excerpt(self.text)}")
        return tuple(names)

    def literal(self) -> bytes:
        match = self._decoder.standard_strings and _LITERAL.match(self.text, self.position)
        if match:
            self.position = match.end()
            return match.group(1).replace(b"''", b"'")
        match = _ESCAPE_LITERAL.match(self.text, self.position)
        if not match:
            raise VerificationFailed(f"expected a string in {excerpt(self.text)}")
        self.position = match.end()
        return re.sub(rb"\\(.)|''", lambda m: m.group(1) or b"'", match.group(1), flags=re.DOTALL)


def copy_target(text: bytes, decoder: NameDecoder) -> RowsTarget:
    """Return the table of ``COPY schema.name (columns) FROM stdin;``."""
    cursor = _Cursor(text, len(b"COPY"), decoder)
    schema, name = cursor.qualified()
    return RowsTarget(schema, name, cursor.columns() or ())


def insert_target(text: bytes, decoder: NameDecoder) -> RowsTarget | None:
    """Return the table of an INSERT; None for another statement."""
    match = _INSERT.match(text)
    if not match:
        return None
    cursor = _Cursor(text, match.end(), decoder)
    schema, name = cursor.qualified()
    return RowsTarget(schema, name, cursor.columns())


def foreign_table(text: bytes, decoder: NameDecoder) -> tuple[str | None, str]:
    """Return schema and name of ``CREATE FOREIGN TABLE schema.name (...)``."""
    return _Cursor(text, len(b"CREATE FOREIGN TABLE"), decoder).qualified()


def refreshed(text: bytes, decoder: NameDecoder) -> tuple[str | None, str]:
    """Return schema and name of ``REFRESH MATERIALIZED VIEW schema.name;``."""
    return _Cursor(text, len(b"REFRESH MATERIALIZED VIEW"), decoder).qualified()


def setval(text: bytes, decoder: NameDecoder) -> tuple[str | None, str, int, bool] | None:
    """Return schema, name, last value and is_called of a ``setval``; None for another statement."""
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
    """Return the first schema that a statement sets as search path, ``""`` for none; None for another statement."""
    if _SET_CONFIG.match(text):
        return ""
    match = _SET_NAME.match(text)
    return _Cursor(text, match.end(), decoder).name() if match else None


def client_encoding(text: bytes) -> str | None:
    """Return the encoding that the statement sets; None for another statement."""
    match = _SET_ENCODING.match(text)
    return match.group(1).decode("ascii", "replace") if match else None


def large_object_opened(text: bytes) -> int | None:
    """Return the OID of ``lo_open``; None for another statement."""
    match = _LO_OPEN.match(text)
    if match and int(match.group(1)) > _MOST_OID:
        raise VerificationFailed(f"invalid OID of a large object in {excerpt(text)}")
    return int(match.group(1)) if match else None


def large_object_written(text: bytes, decoder: NameDecoder) -> bytes | None:
    """Return the bytes of ``lowrite``; None for another statement."""
    match = _LO_WRITE.match(text)
    if not match:
        return None
    literal = _Cursor(text, match.end(), decoder).literal()
    if not literal.startswith(b"\\x"):
        return _from_escape_format(literal, text)
    try:
        return bytes.fromhex(literal[2:].decode("ascii"))
    except ValueError:
        raise VerificationFailed(f"invalid hexadecimal data of a large object: {excerpt(text)}") from None


def _from_escape_format(literal: bytes, text: bytes) -> bytes:
    """Decode a bytea as pg_dump before 9.0 writes it."""
    if not _ESCAPED_BYTEA.fullmatch(literal):
        raise VerificationFailed(f"invalid data of a large object: {excerpt(text)}")
    return re.sub(rb"\\(\\|...)", lambda match: match[1] if match[1] == b"\\" else bytes([int(match[1], 8)]), literal)


def connected_name(argument: bytes) -> bytes:
    """Return the name of the database in ``\\connect``, byte for byte.

    :param argument: in one of the two forms of ``appendPsqlMetaConnect``: a name, or a quoted ``dbname='...'``.
    :raises VerificationFailed: it has another form, such as a connection string.
    """
    match = _CONNECT.fullmatch(argument)
    if not match:
        raise VerificationFailed(f"\\connect with {excerpt(argument)!r}, which pg_dump never writes")
    if match["value"]:
        return re.sub(rb"\\(.)", rb"\1", match["value"].replace(b'""', b'"'))
    return match["bare"] or match["quoted"].replace(b'""', b'"')


def connected_database(argument: bytes, decoder: NameDecoder) -> str:
    """Return the database of ``\\connect`` as text; errors as for :func:`connected_name`."""
    return decoder.text(connected_name(argument))
