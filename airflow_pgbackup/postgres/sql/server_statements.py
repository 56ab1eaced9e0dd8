"""The statements in a text that the server gets as a whole, cut as the server does it (``scan.l``, ``gram.y``).

psql cuts a script differently: in a function body it takes each word CASE for the beginning of a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_pgbackup.errors import VerificationFailed

_NAME = r"[A-Za-z_\x80-\U0010ffff]"
_LINE_COMMENT = r"--[^\n\r]*"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\n\r\f\v]+|{_LINE_COMMENT})
    | (?P<comment>/\*)
    | (?P<string>[EeBbXx]?')
    | (?P<unicode>[Uu]&')
    | (?P<quoted>")
    | (?P<dollar>\$(?:{_NAME}(?:{_NAME}|[0-9])*)?\$)
    | (?P<word>{_NAME}(?:{_NAME}|[0-9$])*)
    | (?P<other>\$?[0-9]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_BOUND = re.compile(r"/\*|\*/")
_PLAIN = re.compile(r"[^']*'")
_DOUBLED = re.compile(r"[^']*(?:''[^']*)*'")
_ESCAPED = re.compile(r"[^'\\]*(?:(?:\\.|'')[^'\\]*)*'", re.DOTALL)
# A string ends and goes on in another line, with the same rules for backslashes.
_CONTINUED = re.compile(
    rf"(?:[ \t\f\v]|{_LINE_COMMENT}(?=[\n\r]))*[\n\r](?:[ \t\n\r\f\v]|{_LINE_COMMENT}[\n\r])*'", re.DOTALL
)
_FUNCTION = re.compile(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) ")
_BODY = ("BEGIN", "ATOMIC")


@dataclass(slots=True)
class ServerStatement:
    """A statement, or a part of an SQL-standard function body up to a semicolon.

    :param start: of its first token in the text.
    :ivar end: after its last token.
    :ivar first: its first tokens, at most eight: a word in upper case; of anything else its first characters.
    :ivar opens_body: a function body begins in it, and goes on after it.
    :ivar in_body: it is in a function body, or is its END.
    """

    start: int
    end: int = 0
    first: list[str] = field(default_factory=list)
    opens_body: bool = False
    in_body: bool = False


def server_statements(text: str, *, standard_strings: bool) -> Iterator[ServerStatement]:
    """Yield the statements of a text, without empty ones.

    :param standard_strings: ``standard_conforming_strings`` of the session.
    :raises VerificationFailed: a quote or a comment has no end, or there is a backslash outside quotes.
    """
    in_body = False
    depth = 0
    statement: ServerStatement | None = None
    last: tuple[str, ...] = ()
    for piece, start, end in _tokens(text, standard_strings):
        if piece == ";" and depth == 0:
            if statement:
                yield statement
                in_body = statement.opens_body or (in_body and statement.first[0] != "END")
            statement, last = None, ()
            continue
        statement = statement or ServerStatement(start, in_body=in_body)
        statement.end = end
        if len(statement.first) < 8:
            statement.first.append(piece)
        depth += (piece == "(") - (piece == ")")
        if depth == 0:
            if (*last, piece)[-2:] == _BODY:
                statement.opens_body = _FUNCTION.match(" ".join(statement.first)) is not None
            elif last == _BODY and piece == "END":
                statement.opens_body = False  # an empty body
        last = (*last[-1:], piece)
    if statement:
        yield statement


def _tokens(text: str, standard_strings: bool) -> Iterator[tuple[str, int, int]]:
    """Yield each token with its bounds, without white space and comments."""
    position = 0
    while match := _TOKEN.match(text, position):
        kind, piece = str(match.lastgroup), match.group()
        start, position = position, match.end()
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind in ("string", "unicode"):
            position = _end_of_string(text, position, _string_rule(piece, standard_strings))
        elif kind in ("quoted", "dollar"):  # a doubled quote ends one name and begins another: no special case
            position = text.find(piece, position) + len(piece)
            if position < len(piece):
                raise _unfinished(text, start)
        elif piece == "\\":
            raise VerificationFailed(f"contains a backslash outside quotes at {text[start : start + 60]!r}")
        if kind not in ("space", "comment"):
            yield (piece.upper() if kind == "word" and piece.isascii() else piece), start, position


def _string_rule(opening: str, standard_strings: bool) -> re.Pattern[str]:
    if opening[0] in "BbXx":
        return _PLAIN
    if opening[0] in "Ee" or (opening == "'" and not standard_strings):
        return _ESCAPED
    return _DOUBLED


def _end_of_string(text: str, start: int, rule: re.Pattern[str]) -> int:
    position = start
    while match := rule.match(text, position):
        position = match.end()
        continued = _CONTINUED.match(text, position)
        if not continued:
            return position
        position = continued.end()
    raise _unfinished(text, start - 1)


def _end_of_comment(text: str, start: int) -> int:
    depth = 1
    for match in _COMMENT_BOUND.finditer(text, start):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    raise _unfinished(text, start - 2)


def _unfinished(text: str, start: int) -> VerificationFailed:
    return VerificationFailed(f"contains a quote or comment without an end at {text[start : start + 60]!r}")
