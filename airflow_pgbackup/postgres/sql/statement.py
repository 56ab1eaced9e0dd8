"""The end of an SQL statement: the semicolon outside strings, names, comments, parentheses and function bodies.

It is found as psql does it (``src/fe_utils/psqlscan.l``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NoReturn

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.encodings import ESCAPES
from airflow_pgbackup.postgres.sql.window import Window

TEXT_LIMIT = 1 << 20
"""Bytes of a statement that are kept. The longest that is interpreted is a COPY of 1,600 columns with 63-byte names,
about 200 KiB; of an INSERT or a function body only the beginning is used."""

_BODY_LIMIT = 1 << 20  # bytes of a statement with an SQL-standard function body, which is read a second time
_WORD_LIMIT = 1 << 16  # bytes; PostgreSQL writes no longer word outside quotes
_WORDS_KEPT = 8

_TOKEN = re.compile(rb"([A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)|[0-9][A-Za-z0-9_.]*|['\"$;()\\]|--|/\*")
_DOLLAR_TAG = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")
_DOLLAR_TAG_BEGUN = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]{0,255})?\Z")
_COMMENT_BOUND = re.compile(rb"/\*|\*/")
_IDENTIFIER_END = re.compile(rb"[A-Za-z0-9_$\x80-\xff]\Z")
_ESCAPE_STRING = re.compile(rb"(?:\A|[^A-Za-z0-9_$\x80-\xff])[Ee]\Z")
_BIT_STRING = re.compile(rb"(?:\A|[^A-Za-z0-9_$\x80-\xff])[BbXx]\Z")
_LINE_END = re.compile(rb"[\n\r]")
_STRING_SPACE = re.compile(rb"(?:[ \t\n\r\f\v]|--[^\n\r]*(?=[\n\r]))*")
_GAP = 1 << 12  # bytes after a string
_AFTER_DOLLAR_QUOTE = re.compile(rb"[A-Za-z0-9_$'\x80-\xff]")
_FUNCTION = re.compile(rb"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) ")

_EXCERPT = 100  # characters
_LONGEST = 4  # bytes: a backslash and a character

# Nearly every list of values, in one step: a row of an --inserts dump takes one match instead of one for each field.
# Anything unusual (escape strings, dollar quotes, nesting) ends the match and is read token by token.
_VALUES = rb"[^'\"$\\;()/-]*(?:(?:(?<![Ee])'[^'\\]*'|-(?!-)|/(?!\*))[^'\"$\\;()/-]*){0,2000}"
_PLAIN_VALUES = re.compile(_VALUES)
_PLAIN_ROW = re.compile(rb",?\s*\(" + _VALUES + rb"\)")
_PLAIN_INSERT_REST = rb" \(" + _VALUES + rb"\)(?: ON CONFLICT DO NOTHING)?;\n"


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement, or the first of several INSERTs in a row that differ only in their values.

    :param text: from its first byte to its semicolon, or the first :data:`TEXT_LIMIT` bytes.
    :param words: its first eight unquoted words outside parentheses, in upper case.
    :param copies: whether COPY data follows.
    :param values: the end of the word ``VALUES`` in the text of an INSERT; else 0.
    :param groups: pairs of outer parentheses; after ``VALUES`` in an INSERT: the rows of all the INSERTs.
    :param offset: of its first byte in the stream.
    :param size: bytes, of all the INSERTs.
    :param by_settings: its end depends on settings of the session: it has a string with a backslash before a quote, or
        an escape string with any backslash.
    :param body: it has an SQL-standard function body.
    :param goes_on: psql does not end it here, as it takes a word ``begin`` for the beginning of a function body.
    """

    text: bytes
    words: tuple[bytes, ...]
    copies: bool
    values: int
    groups: int
    offset: int
    size: int
    by_settings: bool
    body: bool
    goes_on: bool


def excerpt(text: bytes) -> str:
    """Return the beginning of a statement on one line, for a message."""
    line = text[: 4 * _EXCERPT].decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return line if len(line) <= _EXCERPT else line[:_EXCERPT] + "..."


def take_statement(window: Window, *, standard_strings: bool, escapes: re.Pattern[bytes] = ESCAPES) -> Statement:
    """Take the statement at the window's position, and with an INSERT the similar ones that are in memory.

    :param standard_strings: ``standard_conforming_strings`` of the server: no backslash escapes in plain strings.
    :param escapes: of :func:`.encodings.escapes_in`.
    :raises VerificationFailed: the input ends within the statement, or it has a backslash outside quotes.
    """
    statement = _Scan(window, standard_strings, escapes).run()
    return _with_likes(window, statement) if statement.values and statement.groups == 1 else statement


def _with_likes(window: Window, insert: Statement) -> Statement:
    like = re.compile(re.escape(insert.text[: insert.values]) + _PLAIN_INSERT_REST)
    rows = 1
    if window.peek(1) == b"\n":
        window.position += 1
    while match := like.match(window.buffer, window.position):
        rows += 1
        window.position = match.end()
    return replace(insert, groups=rows, size=window.offset - insert.offset)


class _Scan:
    def __init__(self, window: Window, standard_strings: bool, escapes: re.Pattern[bytes]) -> None:
        self._window = window
        self._standard_strings = standard_strings
        self._escapes = escapes
        self._offset = window.offset
        self._start = window.position  # of the part of the statement that is in memory
        self._head = b""  # its beginning, once it is too long for memory
        self._depth = 0
        self._words: list[bytes] = []
        self._last_word = b""
        self._values = 0
        self._groups = 0
        self._copies = False
        self._blocks = 0  # nesting of BEGIN ATOMIC and CASE, both of which END ends
        self._by_settings = False
        self._body = False
        self._goes_on = False
        self._limit = TEXT_LIMIT

    def run(self) -> Statement:
        window = self._window
        while True:
            match = _TOKEN.search(window.buffer, window.position)
            if match is None:
                # The last byte can be the first one of -- or /*.
                window.position = len(window.buffer) - window.buffer.endswith((b"-", b"/"))
                self._need_more()
                continue
            if match.end() == len(window.buffer) and match.end() - match.start() < _WORD_LIMIT:
                window.position = match.start()
                if self._more():  # the token can continue there
                    continue
            window.position = match.end()
            token = match.group()
            if match.group(1):
                if self._depth == 0:
                    self._word(token.upper())
            elif token == b";":
                if self._depth == 0 and self._blocks == 0:
                    return Statement(
                        text=self._text(),
                        words=tuple(self._words),
                        copies=self._copies,
                        values=self._values,
                        groups=self._groups,
                        offset=self._offset,
                        size=window.offset - self._offset,
                        by_settings=self._by_settings,
                        body=self._body,
                        goes_on=self._goes_on or self._other_begin(b""),
                    )
            else:
                self._punctuation(token)

    def _word(self, word: bytes) -> None:
        if self._last_word == b"BEGIN":
            self._goes_on |= self._other_begin(word)
        if len(self._words) < _WORDS_KEPT:
            self._words.append(word)
        if word == b"VALUES" and self._words[0] == b"INSERT" and not self._head:
            self._values = self._window.position - self._start
            self._groups = 0
            self._plain_rows()
        elif word == b"STDIN" and self._last_word == b"FROM" and self._words[0] == b"COPY":
            # A second FROM is in a condition, perhaps after the words that are kept.
            self._copies = self._words[-2:] == [b"FROM", b"STDIN"] and self._words.count(b"FROM") == 1
        elif self._opens_block(word):
            self._blocks += 1
            if not self._body and not self._head:
                self._limit = _BODY_LIMIT
            self._body = True
        elif self._blocks and word == b"END":
            self._blocks -= 1
        self._last_word = word

    def _opens_block(self, word: bytes) -> bool:
        if word == b"ATOMIC":
            return self._last_word == b"BEGIN" and bool(_FUNCTION.match(b" ".join(self._words)))
        return word == b"CASE" and self._blocks > 0

    def _other_begin(self, word: bytes) -> bool:
        """Return whether the last word is BEGIN of anything but a function body, such as a function of this name."""
        return (
            self._last_word == b"BEGIN" and word != b"ATOMIC" and bool(_FUNCTION.match(b" ".join(self._words) + b" "))
        )

    def _punctuation(self, token: bytes) -> None:
        if token == b"(":
            self._groups += self._depth == 0
            self._depth += 1
        elif token == b")":
            self._depth = max(self._depth - 1, 0)
        elif token == b"'":
            self._string()
        elif token == b'"':
            self._skip_past(b'"')  # a doubled quote ends one name and begins another: no special case
        elif token == b"$":
            self._dollar()
        elif token == b"--":
            self._line_comment()
        elif token == b"/*":
            self._comment()
        elif token == b"\\":
            raise VerificationFailed(
                f"a backslash outside quotes at byte {self._window.offset - 1}, in the statement at byte "
                f"{self._offset}: {excerpt(self._text())}"
            )
        if self._depth:
            self._plain_values()

    def _plain_rows(self) -> None:
        window = self._window
        while match := _PLAIN_ROW.match(window.buffer, window.position):
            self._groups += 1
            window.position = match.end()

    def _plain_values(self) -> None:
        window = self._window
        if match := _PLAIN_VALUES.match(window.buffer, window.position):
            window.position = match.end()
        if window.position == len(window.buffer) and window.buffer.endswith((b"-", b"/")):
            window.position -= 1  # it can be the first half of -- or /*

    # Each of the following is called directly after its opening token.

    def _string(self) -> None:
        self._string_part()
        self._check_string_ends()

    def _check_string_ends(self) -> None:
        """Check that a string does not go on in another line: psql and the server then disagree about its escapes.

        psql reads line by line, so for it the second part is a string of its own, unless a carriage return is between.

        :raises VerificationFailed: it does.
        """
        window = self._window
        while True:
            limit = window.position + _GAP
            end = match.end() if (match := _STRING_SPACE.match(window.buffer, window.position, limit)) else limit
            rest = window.buffer[end : end + 2]
            if end == limit or (rest == b"--" and len(window.buffer) > limit):
                self._refuse(f"more than {_GAP} bytes of white space and comments after a string")
            if rest not in (b"", b"-", b"--"):
                break
            if not self._more():
                return
        if rest[:1] == b"'" and _LINE_END.search(window.buffer, window.position, end):
            self._refuse("a string that goes on in another line")

    def _string_part(self) -> None:
        window = self._window
        before = window.buffer[max(self._start, window.position - 3) : window.position - 1]
        escapes = _ESCAPE_STRING.search(before) or (not self._standard_strings and not _BIT_STRING.search(before))
        if not escapes:
            self._skip_past(b"'")
            self._by_settings |= window.buffer[window.position - 2 : window.position - 1] == b"\\"
            return
        while True:
            begin = window.position
            if match := self._escapes.match(window.buffer, begin):
                window.position = match.end()
            self._by_settings |= window.buffer.find(b"\\", begin, window.position) >= 0
            rest = window.buffer[window.position : window.position + _LONGEST]
            if rest[:1] == b"'" and len(rest) > 1 and rest[1:2] != b"'":
                window.position += 1
                return
            if len(rest) == _LONGEST:
                continue
            moved = window.position > begin
            if not self._more() and not moved:
                self._unfinished()

    def _dollar(self) -> None:
        window = self._window
        if _IDENTIFIER_END.search(window.buffer[max(self._start, window.position - 2) : window.position - 1]):
            self._refuse("a dollar sign directly after a number or a dollar quote")
        window.position -= 1
        while _DOLLAR_TAG_BEGUN.match(window.buffer, window.position) and self._more():
            pass
        match = _DOLLAR_TAG.match(window.buffer, window.position)
        if match:
            window.position = match.end()
            self._skip_past(match.group())
            if window.position == len(window.buffer):
                self._more()
            if _AFTER_DOLLAR_QUOTE.match(window.buffer, window.position):
                self._refuse("text directly after a dollar quote")
        else:  # a parameter, $1
            window.position += 1

    def _comment(self) -> None:
        window = self._window
        depth = 1
        while depth:
            match = _COMMENT_BOUND.search(window.buffer, window.position)
            if match is None:
                window.position = max(window.position, len(window.buffer) - 1)
                self._need_more()
                continue
            depth += 1 if match.group() == b"/*" else -1
            window.position = match.end()

    def _skip_past(self, mark: bytes) -> None:
        window = self._window
        while (found := window.buffer.find(mark, window.position)) < 0:
            window.position = max(window.position, len(window.buffer) - len(mark) + 1)
            self._need_more()
        window.position = found + len(mark)

    def _line_comment(self) -> None:
        # psql and the server end a comment at a carriage return too.
        window = self._window
        while (match := _LINE_END.search(window.buffer, window.position)) is None:
            window.position = len(window.buffer)
            self._need_more()
        window.position = match.end()

    def _need_more(self) -> None:
        if not self._more():
            self._unfinished()

    def _more(self) -> bool:
        """Read more; return False at the end of the input."""
        window = self._window
        keep_from = self._start
        if not self._head and window.position - self._start > self._limit:
            self._head = window.buffer[self._start : self._start + self._limit]
        if self._head:
            keep_from = max(window.position - 4, 0)  # enough to look back at what is before a quote
        if not window.fill(keep_from):
            return False
        self._start = 0
        return True

    def _refuse(self, what: str) -> NoReturn:
        raise VerificationFailed(
            f"{what} before byte {self._window.offset}, which pg_dump never writes, in the statement at byte "
            f"{self._offset}: {excerpt(self._text())}"
        )

    def _unfinished(self) -> None:
        raise VerificationFailed(
            f"the dump ends inside the statement that begins at byte {self._offset}: {excerpt(self._text())}"
        )

    def _text(self) -> bytes:
        end = min(self._window.position, self._start + self._limit)
        return self._head or self._window.buffer[self._start : end]
