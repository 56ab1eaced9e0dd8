"""Text between our sessions and a server, any bytes of it: a name that is not UTF-8 arrives, and goes back as it is.

A database in SQL_ASCII holds whatever bytes its clients sent, and roles and databases, which all databases of a cluster
share, may have been named there. Python has such bytes as lone surrogates (PEP 383): ``t\\udce9`` is ``t`` and 0xE9.
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
    """Return the bytes that a server sent as `text`."""
    return text.encode("utf-8", "surrogateescape")


def decoded(data: Buffer) -> str:
    """Return `data` as text; bytes that are not UTF-8 as lone surrogates."""
    return bytes(data).decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Whether a server can have sent `text` as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Identifier(sql.Composable):
    """A name, or a qualified one, in any bytes, quoted for a statement.

    :class:`psycopg.sql.Identifier` encodes as the session's encoding says, and takes SQL_ASCII for ASCII.
    """

    def __init__(self, *names: str) -> None:
        super().__init__(names)
        self._names = names

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return b".".join(b'"' + encoded(name).replace(b'"', b'""') + b'"' for name in self._names)


def accept_any_bytes(session: psycopg.Connection[Any]) -> None:
    """Let a session in UTF-8 take and give any bytes.

    A server whose database is in SQL_ASCII converts nothing, but refuses what is not valid in the client's encoding;
    with SQL_ASCII there, too, it does not. All other servers convert to UTF-8, or have it already and look no closer.
    https://www.postgresql.org/docs/current/multibyte.html#MULTIBYTE-CHARACTER-SET-CONVERSION

    :param session: in autocommit mode, just opened with ``client_encoding=UTF8``. Afterwards queries that are text must
        be ASCII, parameters and names (see :class:`Identifier`) need not be.
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
