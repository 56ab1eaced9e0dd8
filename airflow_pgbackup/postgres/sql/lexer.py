"""A lexer for dumps in plain format: statements, COPY data, psql's backslash commands and comments, in one pass.

A search for lines such as ``COPY t (a) FROM stdin;`` is fooled by such a line in a table, a comment or a function. This
lexer reads the text of pg_dump as psql does: quoted strings and names, ``E''`` strings,
``standard_conforming_strings``, dollar quotes, nested comments, parentheses and SQL-standard function bodies (``BEGIN
ATOMIC ... END``), and after ``COPY ... FROM stdin;`` raw lines up to a line ``\\.``.

It counts and cuts; it protects nothing, because psql reads some text that pg_dump never writes differently.
:mod:`airflow_pgbackup.postgres.psql.guarded` keeps the commands of a script from running.

It uses the memory of one or two chunks, however long a statement, a row or a table is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.statement import Statement, excerpt, take_statement
from airflow_pgbackup.postgres.sql.string_settings import StringSettings
from airflow_pgbackup.postgres.sql.window import CHUNK, Window

__all__ = ["CHUNK", "Comment", "CopyData", "Event", "MetaCommand", "SqlLexer", "Statement"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Of UTF-8, at the beginning of a script that an editor of Windows has written; psql skips it."""

_LINE_LIMIT = 1 << 16  # bytes of a comment or backslash command; the rest of a longer one is ignored
_TRAILING_LIMIT = 64
_SPACE = re.compile(rb"[ \t\r\n\f\v]*")
_LINE_END = re.compile(rb"\n")
_COMMENT_END = re.compile(rb"\n|\r(?!\n)")  # as for psql and the server; CR LF marks a script as one of Windows
_FEW = 50
_COPY_END = b"\n\\.\n"
_COPY_END_CR = b"\n\\.\r\n"
_COPY_ENDS = re.compile(rb"\n\\\.\r?\n")


@dataclass(frozen=True, slots=True)
class Comment:
    """A ``--`` comment outside statements, without its line end, which may be a carriage return."""

    text: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class MetaCommand:
    """A backslash command of psql: ``\\connect app`` is name ``connect``, argument ``app``."""

    name: bytes
    argument: bytes
    offset: int


class CopyData:
    """A statement ``COPY ... FROM stdin;`` and its data.

    :ivar statement: the COPY statement.
    """

    def __init__(self, statement: Statement, chunks: Iterator[bytes]) -> None:
        self.statement = statement
        self._chunks = chunks

    @property
    def offset(self) -> int:
        return self.statement.offset

    def chunks(self) -> Iterator[bytes]:
        """Return the data with its line ends and without the end marker, in arbitrary pieces; it can be read once.

        :raises VerificationFailed: the input ends before the end marker.
        """
        return self._chunks


Event = Comment | MetaCommand | Statement | CopyData


class SqlLexer:
    """An iterator over the events of a dump.

    The unread rest of a :class:`CopyData` is skipped before the next event.

    :param source: its ``read(n)`` can return fewer than ``n`` bytes; an empty result is the end.
    :raises VerificationFailed: the input ends within an event, or pg_dump never writes such text.
    :ivar trailing: the white space after the last event; set at the end.
    """

    def __init__(self, source: Readable, *, chunk_size: int = CHUNK) -> None:
        self._window = Window(_WithoutNul(source), chunk_size)
        self._settings = StringSettings()
        self.trailing = b""

    @property
    def standard_strings(self) -> bool:
        """``standard_conforming_strings`` as set by the dump so far."""
        return self._settings.standard

    @property
    def offset(self) -> int:
        """Bytes of the input up to the end of the last event."""
        return self._window.offset

    def __iter__(self) -> Iterator[Event]:
        window = self._window
        if window.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            window.position += len(BYTE_ORDER_MARK)
        while self._skip_space():
            begin = window.peek(2)
            if begin[:1] == b"\\":
                line, offset = self._line(_LINE_END)
                name, _, argument = line[1:].partition(b" ")
                yield MetaCommand(name, argument, offset)
            elif begin == b"--":
                yield Comment(*self._line(_COMMENT_END))
            else:
                settings = self._settings
                statement = take_statement(window, standard_strings=settings.standard, escapes=settings.escapes)
                settings.check(statement)
                if statement.copies:
                    yield from self._copy(statement)
                else:
                    settings.note(statement)
                    yield statement
                    settings.end(statement)

    def settings_before(self, event: Event) -> bytes:
        """Return the settings that must come before the event that was just returned, see :class:`.StringSettings`.

        :return: complete lines; empty for nearly every event.
        :raises VerificationFailed: the dump has not set the client's encoding, which pg_dump does first.
        """
        statement = event.statement if isinstance(event, CopyData) else event
        return self._settings.before(statement) if isinstance(statement, Statement) else b""

    def _skip_space(self) -> bool:
        """Skip white space; return False at the end of the input."""
        window = self._window
        trailing = b""
        while True:
            match = _SPACE.match(window.buffer, window.position)
            if match:
                trailing = (trailing + match.group())[-_TRAILING_LIMIT:]
                window.position = match.end()
            if window.position < len(window.buffer):
                return True
            if not window.fill(window.position):
                self.trailing = trailing
                return False

    def _line(self, ends: re.Pattern[bytes]) -> tuple[bytes, int]:
        """Take the rest of the line, up to what `ends` matches; return its text and its offset."""
        window = self._window
        offset = window.offset
        text = b""
        while True:
            match = ends.search(window.buffer, window.position)
            if match is None:
                text = (text + window.buffer[window.position :])[:_LINE_LIMIT]
                window.position = len(window.buffer)
            elif match.group() == b"\n" or match.end() < len(window.buffer):
                break
            if not window.fill(window.position):
                raise VerificationFailed(f"the dump ends inside the line that begins at byte {offset}")
        text = (text + window.buffer[window.position : match.start()])[:_LINE_LIMIT]
        window.position = match.end()
        return text, offset

    def _copy(self, statement: Statement) -> Iterator[CopyData]:
        if self._window.peek(1) != b"\n":
            raise VerificationFailed(
                f"no line end after the COPY statement at byte {statement.offset}: {excerpt(statement.text)}"
            )
        self._window.position += 1
        chunks = self._copy_chunks(statement)
        yield CopyData(statement, chunks)
        for _ in chunks:
            pass

    def _copy_chunks(self, statement: Statement) -> Iterator[bytes]:
        window = self._window
        # The end marker is a line of its own, so the search includes the line end before it: at first COPY's own.
        start = window.position
        search_from = start - 1
        while True:
            end = _find_copy_end(window.buffer, search_from)
            if end >= 0:
                if window.buffer[end + 3 : end + 4] == b"\r":  # psql ends the data there too
                    raise VerificationFailed(
                        f"an end marker with a carriage return in the table data of the statement at byte "
                        f"{statement.offset}, which pg_dump never writes: {excerpt(statement.text)}"
                    )
                window.position = end + len(_COPY_END)
                if end >= start:
                    yield window.buffer[start : end + 1]
                return
            # The last four bytes can be the beginning of the end marker.
            window.position = keep_from = max(start - 1, len(window.buffer) - 4)
            if start < keep_from:
                yield window.buffer[start:keep_from]
            if not window.fill(keep_from):
                raise VerificationFailed(
                    f"the dump ends inside the table data of the statement at byte {statement.offset}: "
                    f"{excerpt(statement.text)}"
                )
            start = max(start - keep_from, 0)
            search_from = 0


class _WithoutNul:
    """Reads a dump, which contains no NUL: psql ignores the rest of a line after one."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._offset = 0

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self._source.read(size)
        if (found := data.find(b"\0")) >= 0:
            raise VerificationFailed(f"a NUL at byte {self._offset + found} of the dump, which pg_dump never writes")
        self._offset += len(data)
        return data


def _find_copy_end(buffer: bytes, start: int) -> int:
    """Return the position of :data:`_COPY_END`, or -1.

    Its first byte is in every row, but a backslash is rare in most tables, and a search for one byte is thirty times
    faster than one for several.
    """
    position = start
    for _ in range(_FEW):
        position = buffer.find(b"\\", position)
        if position < 0:
            return -1
        if position > start and buffer.startswith((_COPY_END, _COPY_END_CR), position - 1):
            return position - 1
        position += 1
    match = _COPY_ENDS.search(buffer, max(position - 2, start))
    return match.start() if match else -1
