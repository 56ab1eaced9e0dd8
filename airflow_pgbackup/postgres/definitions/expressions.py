"""Expressions that PostgreSQL writes in another form after a restore, with the same meaning.

The server writes an expression from its parsed form, and parsing that text again gives another parsed form in three
cases. All later dumps are written alike:

- ``v IN ('a', 'b')`` for a varchar is written as ``ANY ((ARRAY['a'::character varying])::text[])``. The parser gives
  the type of a cast to each element (transformArrayExpr in src/backend/parser/parse_expr.c), so the restored
  constraint is written as ``ANY (ARRAY[('a'::character varying)::text])``.
- ``a IN (b, c, d)`` is written as ``(((a = b) OR (a = c)) OR (a = d))``, and so is a list of rows. The parser joins the
  operands of such an OR or AND (makeOrExpr in src/backend/parser/gram.y), so the restored view is written as
  ``((a = b) OR (a = c) OR (a = d))``.
- ``EXISTS (SELECT 'x')`` is written as ``SELECT 'x'::text``. The parser calls a column after the type of a cast
  (FigureColname in src/backend/parser/parse_target.c), so the restored view is written as ``SELECT 'x'::text AS text``.
  Nothing can refer to the column: of a column that can be referred to, the server always writes the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_TOKEN = re.compile(
    r"""
    [Ee]'(?:[^'\\]|''|\\.)*' | [BbXx]?'(?:[^']|'')*' | "(?:[^"]|"")*"
    | [\w$]+ | :: | \s+ | [-+*/<>=~!@#%^&|`?]+ | .
    """,
    re.DOTALL | re.VERBOSE,
)
# dumpFunc() in src/bin/pg_dump/pg_dump.c writes the body of a function so, unless it is parsed (BEGIN ATOMIC).
_BODY = re.compile(r"\n {4}AS (?:\$|E?').*", re.DOTALL)
_CLOSING = {"(": ")", "[": "]"}
_NAME = re.compile(r'"|[^\W\d]')
_LITERAL = re.compile(r"[EeBbXx]?'|NULL\Z")
_BEGINS_COLUMN = frozenset({",", "SELECT", "RETURNING", "DISTINCT", "ALL"})
_TYPE_TOKENS = 40


def as_restored(text: str) -> str:
    """Return a definition with arrays and conditions as the server writes them after a restore.

    Its meaning is the same. Names of columns are left as they are, see :func:`differ_only_in_hidden_names`.
    """
    arrays = "ARRAY[" in text and "::" in text
    conditions = "((" in text and any(operator in text for operator in (") OR ", ") AND "))
    if not (arrays or conditions):
        return text
    tokens = _tokens(text)
    closing = _closing_positions(tokens)
    edits = _Edits()
    _drop_unneeded_parentheses(edits, tokens, closing)
    for start, pair in enumerate(pairwise(tokens)):
        if pair == ("ARRAY", "["):
            _cast_elements(edits, tokens, closing, start)
    return edits.apply(tokens)


def differ_only_in_hidden_names(dumped: str, restored: str) -> bool:
    """Return whether a restored definition differs only in added names of columns to which nothing can refer.

    These columns have no name in the dump, and their expression is a literal or in parentheses.
    """
    before, after = _tokens(dumped), _tokens(restored)
    closing = _closing_positions(after)
    opening = {end: start for start, end in closing.items()}
    number = 0
    position = 0
    while position < len(after):
        if before[number : number + 1] == after[position : position + 1]:
            number, position = number + 1, position + 1
        elif after[position : position + 3] == [" ", "AS", " "] and _is_constant(position, after, closing, opening):
            position += 4  # with the name
        else:
            return False
    return number == len(before)


def _tokens(text: str) -> list[str]:
    """Return the tokens of a definition, also of white space; the body of a function is one token."""
    body = _BODY.search(text)
    head = text[: body.start()] if body else text
    return [match[0] for match in _TOKEN.finditer(head)] + ([body[0]] if body else [])


def _closing_positions(tokens: list[str]) -> dict[int, int]:
    """Return the position of the closing parenthesis or bracket by that of the opening one."""
    found: dict[int, int] = {}
    waiting: list[int] = []
    for position, token in enumerate(tokens):
        if token in _CLOSING:
            waiting.append(position)
        elif token in (")", "]") and waiting and _CLOSING[tokens[waiting[-1]]] == token:
            found[waiting.pop()] = position
    return found


class _Edits:
    """What to leave out of tokens, and what to write before and after some, by position."""

    def __init__(self) -> None:
        self.dropped: set[int] = set()
        self.before: dict[int, str] = {}
        self.after: dict[int, str] = {}

    def apply(self, tokens: list[str]) -> str:
        return "".join(
            f"{self.before.get(position, '')}{'' if position in self.dropped else token}{self.after.get(position, '')}"
            for position, token in enumerate(tokens)
        )


def _drop_unneeded_parentheses(edits: _Edits, tokens: list[str], closing: dict[int, int]) -> None:
    """Write ``((a OR b) OR c)`` as ``(a OR b OR c)``, and the same for AND."""
    opening = {end: start for start, end in closing.items()}
    operators: dict[int, set[str]] = {}  # by the position of the parenthesis that they are directly in
    open_ones = [-1]
    for position, token in enumerate(tokens):
        if position in closing:
            open_ones.append(position)
        elif token in ("AND", "OR"):
            operators.setdefault(open_ones[-1], set()).add(token)
        elif position in opening:
            start = open_ones.pop()
            first = start > 0 and tokens[start - 1] == "("
            if first and operators.get(start) == set(tokens[position + 2 : position + 3]):
                edits.dropped |= {start, position}


def _cast_elements(edits: _Edits, tokens: list[str], closing: dict[int, int], start: int) -> None:
    """Write ``(ARRAY[a, b])::t[]`` as ``ARRAY[(a)::t, (b)::t]``.

    In extended statistics, the server writes neither of these parentheses.

    :param start: the position of ``ARRAY``.
    """
    if (end := closing.get(start + 1)) is None:
        return
    around = start - 1 if closing.get(start - 1) == end + 1 else None
    type_start = end + (1 if around is None else 2)
    if tokens[type_start : type_start + 1] != ["::"]:
        return
    type_end = _type_end(tokens, closing, type_start + 1)
    if tokens[type_end : type_end + 2] != ["[", "]"]:
        return
    edits.dropped |= {*range(type_start, type_end + 2), *(() if around is None else (around, end + 1))}
    cast = "".join(tokens[type_start:type_end])
    arrays = [(start + 1, end)]
    while arrays:
        for first, last in _elements(tokens, closing, *arrays.pop()):
            if tokens[first : first + 2] == ["ARRAY", "["] and closing.get(first + 1) == last:
                arrays.append((first + 1, last))  # of several dimensions
            else:
                edits.before[first] = "" if around is None else "("
                edits.after[last] = cast if around is None else f"){cast}"


def _elements(tokens: list[str], closing: dict[int, int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield first and last position of each element between two brackets."""
    first = position = start + 1
    while position <= end:
        if position == end or tokens[position] == ",":
            if first < position:
                yield first, position - 1
            first = position + 1
        elif position == first and tokens[position].isspace():
            first += 1
        position = closing.get(position, position) + 1


def _type_end(tokens: list[str], closing: dict[int, int], start: int) -> int:
    """Return the position after the name of a type: ``timestamp(3) without time zone``."""
    position = start
    while position < min(len(tokens), start + _TYPE_TOKENS):
        if tokens[position] == "(":
            position = closing.get(position, len(tokens))
        elif not (_NAME.match(tokens[position]) or tokens[position] in (".", " ")):
            break
        position += 1
    return position


def _is_constant(end: int, tokens: list[str], closing: dict[int, int], opening: dict[int, int]) -> bool:
    """Return whether a literal or an expression in parentheses, perhaps with a cast, is a column before a position."""
    start = end
    while start > 0 and tokens[start - 1] not in _BEGINS_COLUMN and tokens[start - 1] not in _CLOSING:
        start = opening.get(start - 1, start - 1)
    start += tokens[start].isspace()
    if tokens[start - 2 : start + 2] == ["DISTINCT", " ", "ON", " "]:
        start = closing.get(start + 2, start) + 2
    following = closing.get(start, start) + 1
    constant = tokens[start] == "(" or _LITERAL.match(tokens[start]) is not None
    return start < end and constant and (following == end or tokens[following] == "::")
