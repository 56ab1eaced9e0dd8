"""Read from the lines of a script what it contains, in one pass and without a parser."""

from __future__ import annotations

import itertools
import re
from collections import Counter

from airflow_pgbackup.backup.adopt.partial_dumps import KINDS
from airflow_pgbackup.postgres.archive.script_headers import object_header

_LINE = re.compile(
    rb"\n(?:(?P<object>-- (?:Data for )?Name: [^\n]*)|(?P<statistics>-- Statistics for Name: )"
    rb"|-- PostgreSQL database (?P<cluster>cluster )?dump(?P<end> complete)?\r?(?=\n)"
    rb"|(?P<part>-- Roles|-- Tablespaces)\r?(?=\n)|(?P<connect>\\connect )"
    rb"|(?P<copy>COPY [^\n]* FROM stdin;\r?)(?=\n)|(?P<partitioned>PARTITION BY ))"
)
_ENDS_OF_ROWS = (b"\n\\.\n", b"\n\\.\r\n")
_OF_DATA = ("TABLE DATA", "BLOBS")
_BEFORE_COPY = 1 << 12  # --disable-triggers writes a statement there
_LONGEST = 1 << 16  # no line of interest is longer
_FEW = 50


class ScriptOutline:
    """The lines of a script that are not rows.

    :param cluster: pg_dumpall wrote it.
    :ivar kinds: number of the objects of each of :data:`.KINDS`, as in :attr:`.Dump.kinds`.
    :ivar parts: of a script by pg_dumpall: ``roles``, ``tablespaces``, ``databases``.
    :ivar several: another dump follows the end of this one.
    """

    def __init__(self, cluster: bool) -> None:
        self.kinds: Counter[str] = Counter()
        self.parts: set[str] = set()
        self.several = False
        self._cluster = cluster
        self._ended = False
        self._kind = ""
        self._scan = self._objects
        self._rest = b"\n"

    def add(self, data: bytes) -> None:
        """Read the next piece of the script."""
        text = self._rest + data
        end = text.rfind(b"\n")  # what follows is not a complete line yet
        position = 0
        while 0 <= position < end:
            position = self._scan(text, position, end)
        rest = text[end:] if end >= 0 else text
        self._rest = rest if len(rest) <= _LONGEST else b" "

    # Each returns where to go on, or -1 at the end of the text. Most of a script is rows, so the regular expression,
    # which is slow, only reads what is between them.

    def _objects(self, text: bytes, position: int, end: int) -> int:
        found = _LINE.search(text, position, end + 1)
        return self._line(found) if found else -1

    def _data(self, text: bytes, position: int, end: int) -> int:
        """Scan from the header of data to its COPY, or to where it has INSERTs."""
        last = position + _BEFORE_COPY
        found = _LINE.search(text, position, min(last, end + 1))
        if found and found.end() < last:
            return self._line(found)
        if last > end:
            return -1
        self._scan = self._inserts
        return position

    def _inserts(self, text: bytes, position: int, end: int) -> int:
        position = text.find(b"\n-- ", position, end)
        found = _LINE.match(text, position, end + 1) if position >= 0 else None
        return self._line(found) if found else position + 1 if position >= 0 else -1

    def _rows(self, text: bytes, position: int, end: int) -> int:
        for tries in itertools.count():
            # A search for one byte is fast where few rows have a backslash.
            position = text.find(b"\\", position, end) if tries < _FEW else text.find(b"\n\\.", position - 1, end) + 1
            if position <= 0:
                return -1
            if text.startswith(_ENDS_OF_ROWS, position - 1):
                self._scan = self._objects
                return position + 1
            position += 1
        return -1

    def _line(self, found: re.Match[bytes]) -> int:
        if found["object"]:
            if header := object_header(found["object"].decode("latin-1")):
                self._kind = header[1]
                if self._kind in KINDS:  # a script may name any number of others
                    self.kinds[self._kind] += 1
                self._scan = self._data if self._kind in _OF_DATA else self._objects
        elif found["statistics"]:
            self.kinds["STATISTICS DATA"] += 1
        elif found["copy"]:
            self._scan = self._rows
        elif found["part"]:
            self.parts.add(found["part"][3:].decode().lower())
        elif found["connect"]:
            self.parts.add("databases")
        elif found["partitioned"]:
            if self._kind == "TABLE":  # else it is a line of a function
                self._kind = "PARTITIONED TABLE"
                self.kinds["TABLE"] -= 1
                self.kinds[self._kind] += 1
        elif found["end"]:
            self._ended = self._ended or bool(found["cluster"]) == self._cluster
        else:
            self.several = self.several or self._ended
        return found.end()
