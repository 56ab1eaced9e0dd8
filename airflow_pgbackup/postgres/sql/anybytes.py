"""Sessions that receive and send text in any bytes: a name that is not UTF-8 arrives, and can be sent back unchanged.

A database in SQL_ASCII stores whatever bytes its clients sent, and the names of roles and databases, which are shared
by the cluster, can come from there. Python represents such bytes as lone surrogates (PEP 383): ``t\\udce9`` is ``t``
and 0xE9.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.string import StrDumperUnknown

_TEXT_TYPES = ("bpchar", "name", "text", "varchar", '"char"', 0)  # 0: unknown to psycopg, as an enum


def encoded(text: str) -> bytes:
    """Return the bytes from which the server's text was decoded."""
    return text.encode("utf-8", "surrogateescape")


def decoded(data: Buffer) -> str:
    """Return `data` as text, with lone surrogates for bytes that are not UTF-8."""
    return bytes(data).decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Return whether `text` was decoded from valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Identifier(sql.Composable):
    """A name or qualified name in any bytes, quoted for a statement.

    :class:`psycopg.sql.Identifier` encodes in the session's encoding, and treats SQL_ASCII as ASCII.
    """

    def __init__(self, *names: str) -> None:
        super().__init__(names)
        self._names = names

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return b".".join(b'"' + encoded(name).replace(b'"', b'""') + b'"' for name in self._names)


def accept_any_bytes(session: psycopg.Connection[Any]) -> None:
    """Let a session in UTF-8 receive and send any bytes.

    If the database is in SQL_ASCII, the server converts nothing, but refuses bytes that are not valid in the client's
    encoding, unless that is SQL_ASCII too. Every other server converts to UTF-8, or is in UTF-8 and does not check.
    https://www.postgresql.org/docs/current/multibyte.html#MULTIBYTE-CHARACTER-SET-CONVERSION

    :param session: in autocommit mode, just opened with ``client_encoding=UTF8``. From then on, queries given as text
        must be ASCII; parameters and names (see :class:`Identifier`) need not be.
    """
    session.adapters.register_dumper(str, _Dumper)
    for kind in _TEXT_TYPES:
        session.adapters.register_loader(kind, _Loader)
        session.adapters.register_loader(kind, _BinaryLoader)
    if session.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":
        session.execute("SET client_encoding TO 'SQL_ASCII'")


class _Dumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer:
        if "\0" in obj:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return encoded(obj)


class _Loader(Loader):
    def load(self, data: Buffer) -> str:
        return decoded(data)


class _BinaryLoader(_Loader):
    format = Format.BINARY
