"""The bytes of a table of contents: its integers and strings, as ``ReadInt`` and ``ReadStr`` of pg_dump read them."""

from __future__ import annotations

import struct
from typing import NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.sql.names import NameDecoder

MAX_BYTES = 1 << 29
"""A table of contents with 100,000 tables has about 350 MB. Parsed, it takes up to six times as much memory."""
INT, _INT_MAX = 4, 2**31 - 1  # C's int
_INTEGER = struct.Struct("<BI")  # sign and value
_READ = 1 << 16


class TocBytes:
    """Reads the values of a table of contents, one after the other.

    :param source: positioned at the header.
    :param what: names the file in errors.
    :param hold: hold all bytes that were read, for :meth:`taken`.
    :param limited: read at most :data:`MAX_BYTES`.
    """

    def __init__(self, source: Readable, what: str, *, hold: bool, limited: bool) -> None:
        self._source = source
        self._what = what
        self._hold = hold
        self._limited = limited
        self._buffer = bytearray()
        self._base = 0  # offset of the buffer in the source
        self._next = 0  # the position in the buffer
        self._decoder = NameDecoder()
        # Kinds, schemas, owners and names repeat in many entries: one string serves all.
        self._strings: dict[str, str] = {}

    @property
    def position(self) -> int:
        """The bytes that were parsed."""
        return self._base + self._next

    def taken(self) -> bytes:
        """Return all bytes that were read, which may extend beyond the table of contents."""
        return bytes(self._buffer)

    def _take(self, count: int) -> bytes:
        start = self._next
        if len(self._buffer) < start + count:
            self._fill(count)
            start = self._next
        self._next = start + count
        return bytes(self._buffer[start : start + count])

    def _fill(self, count: int) -> None:
        """Read until the buffer has `count` bytes from the position on."""
        if not self._hold:
            del self._buffer[: self._next]
            self._base, self._next = self.position, 0
        while (missing := self._next + count - len(self._buffer)) > 0:
            more = self._source.read(max(_READ, min(missing, 1 << 20)))
            size = self._base + len(self._buffer)
            if not more:
                if not size:
                    raise VerificationFailed(f"{self._what} is empty")
                raise VerificationFailed(f"{self._what} is truncated inside its table of contents, after {size} bytes")
            self._buffer += more
            if self._limited and size + len(more) > MAX_BYTES:
                self._too_large(f"{MAX_BYTES:,} bytes")

    def _int(self) -> int:
        if len(self._buffer) < self._next + _INTEGER.size:
            self._fill(_INTEGER.size)
        sign, value = _INTEGER.unpack_from(self._buffer, self._next)
        self._next += _INTEGER.size
        if value > _INT_MAX:
            self._corrupt(f"integer out of range: {value}")
        return -value if sign else int(value)

    def _string(self) -> str | None:
        length = self._int()
        if length < 0:
            return None
        if not length:
            return ""
        data = self._take(length)
        if b"\0" in data:  # pg_restore would end the string there
            self._corrupt("null byte in a string")
        return self._decoder.text(data)

    def _shared(self) -> str:
        text = self._text()
        return self._strings.setdefault(text, text)

    def _text(self) -> str:
        return self._string() or ""

    def _number(self) -> int:
        return self._parse_number(self._text())

    def _parse_number(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 12):
            self._corrupt(f"expected a number, found {text[:20]!r}")
        return int(text)

    def _too_large(self, most: str) -> NoReturn:
        raise NotProven(
            f"the table of contents of {self._what} has more than {most}, the limit of this reader",
            hint="Restore the dump with pg_restore to prove that it is sound; dump schema by schema from now on.",
        )

    def _corrupt(self, detail: str) -> NoReturn:
        raise VerificationFailed(f"{self._what} has a corrupt table of contents near byte {self.position}: {detail}")
