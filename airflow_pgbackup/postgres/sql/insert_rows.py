"""Check rows that pg_dump wrote as INSERT statements: pg_restore runs them as SQL, so they must be nothing else.

The grammar is that of ``dumpTableData_insert`` in ``src/bin/pg_dump/pg_dump.c``: constants only, no expressions. A
statement between the rows, such as COMMIT, or a function that changes how the server reads strings, is refused.
"""

from __future__ import annotations

import re
from typing import NoReturn

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.window import CHUNK, Window

_LIMIT = 1 << 20  # bytes of anything but a string, at least the names of 1,600 columns
_LABEL_LIMIT = 200

# What one match repeats at most, as it needs memory for each repetition. What has more is read part by part.
_MOST_ESCAPES = 1000  # of a string
_MOST_VALUES = 2000  # of a row: a table has at most 1,600 columns

_NAME = rb'(?:[a-z_][a-z0-9_$]*|"[^"]*"(?:"[^"]*")*)'
_HEAD = (
    rb"INSERT INTO " + _NAME + rb"(?:\." + _NAME + rb")? "
    rb"(?:\(" + _NAME + rb"(?:, " + _NAME + rb")*\) )?(?:OVERRIDING SYSTEM VALUE )?"
)
_BARE = rb"NULL|DEFAULT|true|false|-?[0-9.]+(?:[Ee][-+]?[0-9]+)?"
_END = rb"(?: ON CONFLICT DO NOTHING)?;\n"
_BITS = rb"B'[01]*'"
_STANDARD_STRING = rb"'[^']*'(?:'[^']*')*"
_ESCAPED_TEXT = rb"[^'\\]*(?:(?:\\.|'')[^'\\]*){0,%d}" % _MOST_ESCAPES
_ESCAPED_STRING = rb"'" + _ESCAPED_TEXT + rb"'"
_ESCAPES = re.compile(_ESCAPED_TEXT, re.DOTALL)

_DATA = re.compile(rb"(?:[^\n]*\n)*?-- Data for Name: ")
_HEADER = re.compile(rb"-- Data for Name: ([^\r\n]*)\n")
_BETWEEN = re.compile(rb"\n+|--[^\r\n]*\n|SET search_path = (?:[^;'\"\\\r]|\"[^\"]*\")*;\n|\\unrestrict [A-Za-z0-9]+\n")
_BEGIN = re.compile(_HEAD + rb"(?:VALUES|DEFAULT VALUES;\n)")
_FIRST_ROW = re.compile(rb"(?: |\n\t)(?=\()")
_MORE = re.compile(rb",\n\t(?=\()|" + _END)
_OPEN = re.compile(rb"\(")
_VALUE = re.compile(_BARE + rb"|B?'")
_NEXT = re.compile(rb", |\)")


def check_inserts(source: Readable, *, standard_strings: bool) -> None:
    """Read a script of ``pg_restore --file=-`` that has rows as INSERT statements and nothing else.

    :param standard_strings: ``standard_conforming_strings`` of the archive. Without it, strings have escapes, and the
        encoding must be one in which a backslash is never a part of another character.
    :raises VerificationFailed: it has something else, or ends inside a statement.
    """
    _Check(source, standard_strings).run()


class _Check:
    def __init__(self, source: Readable, standard_strings: bool) -> None:
        self._window = Window(source, CHUNK)
        self._label = b""
        self._standard_strings = standard_strings
        string = _STANDARD_STRING if standard_strings else _ESCAPED_STRING
        value = rb"(?:" + _BARE + rb"|" + _BITS + rb"|" + string + rb")"
        row = rb"\(" + value + rb"(?:, " + value + rb"){0,%d}\)" % (_MOST_VALUES - 1)
        self._row = re.compile(row, re.DOTALL)
        self._statement = re.compile(_HEAD + rb"VALUES " + row + _END, re.DOTALL)

    def run(self) -> None:
        window = self._window
        if not self._skip_settings():
            return
        while window.peek(1):
            while match := self._statement.match(window.buffer, window.position):
                window.position = match.end()
            if match := self._take(_HEADER):
                self._label = match[1][:_LABEL_LIMIT]
            elif not self._take(_BETWEEN) and window.peek(1):
                self._insert()

    def _skip_settings(self) -> bool:
        """Skip what pg_restore writes before the first table; return False if there is none."""
        window = self._window
        while not (match := _DATA.match(window.buffer, window.position)):
            if len(window.buffer) > _LIMIT:
                self._fail()
            if not window.fill(window.position):
                return False
        window.position = match.end() - len(b"-- Data for Name: ")
        return True

    def _insert(self) -> None:
        begin = self._require(_BEGIN)
        if begin[0].endswith(b"\n"):
            return
        self._require(_FIRST_ROW)
        while True:
            self._take_row()
            if self._require(_MORE)[0].endswith(b";\n"):
                return

    def _take_row(self) -> None:
        window = self._window
        if match := self._row.match(window.buffer, window.position):
            window.position = match.end()
            return
        self._require(_OPEN)
        while True:
            value = self._require(_VALUE)[0]
            if value.endswith(b"'"):
                if self._standard_strings or value != b"'":
                    self._skip_plain_string()
                else:
                    self._skip_escaped_string()
            if self._require(_NEXT)[0] == b")":
                return

    def _skip_escaped_string(self) -> None:
        """Skip a string behind its opening quote, whatever its length, in which a backslash escapes a character."""
        window = self._window
        while True:
            if match := _ESCAPES.match(window.buffer, window.position):
                window.position = match.end()
            pair = window.peek(2)
            if pair[:1] == b"'" and pair != b"''":
                window.position += 1
                return
            if len(pair) < 2:
                self._fail()

    def _skip_plain_string(self) -> None:
        """Skip a string behind its opening quote, whatever its length, in which a backslash is a character."""
        window = self._window
        while True:
            found = window.buffer.find(b"'", window.position)
            window.position = len(window.buffer) if found < 0 else found
            if found < 0:
                if not window.fill(window.position):
                    self._fail()
            elif window.peek(2) == b"''":
                window.position += 2
            else:
                window.position += 1
                return

    def _require(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        return self._take(pattern) or self._fail()

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Take what the pattern matches. Read more where the match, or the lack of one, may be due to the window."""
        window = self._window
        while True:
            match = pattern.match(window.buffer, window.position)
            if match and match.end() < len(window.buffer):
                break
            if len(window.buffer) - window.position > _LIMIT or not window.fill(window.position):
                break
        if match:
            window.position = match.end()
        return match

    def _fail(self) -> NoReturn:
        label = self._label.decode("utf-8", "backslashreplace")
        raise VerificationFailed(
            f"{f'the data of {label}' if label else 'the archive'} contains something other than INSERT statements "
            f"near byte {self._window.offset} of pg_restore's output",
            hint="pg_dump never writes this, and it could end the single transaction of the restore. Find out who "
            "changed the archive.",
        )
