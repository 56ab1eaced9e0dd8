"""The names in the text of a function or an expression: tables, functions, types, operators, clocks.

A lexer, not a parser: PostgreSQL itself parses such a text only when the function runs. It serves warnings, and omits
what it cannot recognize: dynamic SQL in strings, the types of PL/pgSQL variables, languages other than SQL and
PL/pgSQL. It runs in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_TEXT = 1 << 18
"""Characters of a body that are read; the rest is ignored."""

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|''|\\.)*')
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<name>[^\W\d][\w$]*)
    | (?P<number>\$?\d[\w.]*)
    | (?P<other>::|:=|[-+*/<>=~!@#%^&|`?]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?]+")

# The words that end FROM's list of tables.
_ENDS_FROM = frozenset(
    (
        *("where", "group", "order", "having", "limit", "offset", "fetch", "union", "intersect", "except"),
        *("select", "set", "loop", "then", "window", "returning", "for"),
    )
)
# extract(year FROM day), trim(both FROM name), and similar functions
_FROM_IN_ARGUMENTS = frozenset(("extract", "trim", "substring", "overlay", "position"))
_NO_TABLE = frozenset(("only", "lateral", "select", "values", "unnest", "rows"))

CLOCKS = frozenset(
    (
        *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now"),
        *("clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"),
    )
)
# Other functions whose result changes, so that a row that is valid today may not be valid tomorrow.
_OTHERWISE = frozenset(
    (
        *("random", "gen_random_uuid", "uuidv4", "uuidv7", "current_user", "session_user", "current_role"),
        *("current_setting", "pg_backend_pid", "txid_current", "pg_current_xact_id", "inet_client_addr"),
    )
)


@dataclass(frozen=True)
class Token:
    """A token of SQL.

    :param kind: ``name``, folded to lower case; ``quoted``, a quoted name; ``string``, ``number``, ``other``.
    """

    kind: str
    text: str

    @property
    def is_name(self) -> bool:
        return self.kind in ("name", "quoted")


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of SQL or PL/pgSQL, without white space and comments; stop at a quote or comment without end."""
    position = 0
    while match := _TOKEN.match(text, position):
        kind, position = str(match.lastgroup), match.end()
        if kind == "comment":
            end = _end_of_comment(text, position)
            if end < 0:
                return
            position = end
        elif kind == "dollar":
            end = text.find(match[0], position)
            if end < 0:
                return
            yield Token("string", text[position:end])
            position = end + len(match[0])
        elif kind == "name":
            yield Token(kind, match[0].lower())
        elif kind == "quoted":
            yield Token(kind, match[0][match[0].index('"') + 1 : -1].replace('""', '"'))
        elif kind in ("string", "escaped"):
            yield Token("string", match[0])
        elif kind == "other" and match[0] in "'\"":
            return
        elif kind != "space":
            yield Token(kind, match[0])


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, position):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return -1


Name = tuple[str | None, str]
"""Schema, None for a name that the search path resolves; and name."""


@dataclass
class Mentions:
    """The names in a body.

    :ivar tables: the tables that it reads or writes.
    :ivar functions: the functions that it calls.
    :ivar types: the types that it casts to, or declares variables with.
    :ivar operators: the operators without a schema.
    :ivar sets_path: it contains ``search_path``.
    :ivar changes: a clock or another changing value on which its result depends, see :func:`changing`; or None.
    """

    tables: set[Name] = field(default_factory=set)
    functions: set[Name] = field(default_factory=set)
    types: set[Name] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    sets_path: bool = False
    changes: str | None = None


def mentions(text: str) -> Mentions:
    """Return the names in a body."""
    found = list(tokens(text[:MOST_TEXT]))
    result = Mentions(changes=changing(found))
    result.sets_path = any("search_path" in token.text for token in found if token.kind in ("name", "string"))
    own = _own_names(found)
    opened: list[tuple[str, bool]] = []  # for each open parenthesis: the name before it, and in_from before it
    in_from, at = False, 0
    before = Token("other", ";")
    while at < len(found):
        token = found[at]
        step = 1
        if token.text == "(" and token.kind == "other":
            opened.append((before.text if before.is_name else "", in_from))
            in_from = False
        elif token.text == ")" and token.kind == "other":
            in_from = opened.pop()[1] if opened else False
        elif token.text == ";" and token.kind == "other":
            in_from, opened = False, []
        elif token.kind == "name" and token.text == "from":
            in_from = before.text != "distinct" and not (opened and opened[-1][0] in _FROM_IN_ARGUMENTS)
        elif token.kind == "name" and token.text in _ENDS_FROM:
            in_from = False
        elif token.is_name:
            parts = _parts(found, at)
            name, step = _name(parts), 2 * len(parts) - 1
            after = found[at + step] if at + step < len(found) else Token("other", ";")
            called = after.text == "(" and after.kind == "other"
            if before.text == "::" or (before.text == "as" and opened and opened[-1][0] == "cast"):
                result.types.add(name)
            elif after.text == "%" and at + step + 1 < len(found) and found[at + step + 1].text in ("rowtype", "type"):
                column = found[at + step + 1].text == "type" and len(parts) > 1
                result.types.add(_name(parts[:-1]) if column else name)  # the row type of a table has its name
            elif _is_table(found, at, in_from) and token.text not in _NO_TABLE and not (called and in_from):
                if name[0] is not None or name[1] not in own:
                    result.tables.add(name)
            elif called and before.text not in ("into", "table", "as", "."):
                result.functions.add(name)
        elif token.kind == "other" and before.text != "." and _OPERATOR.fullmatch(token.text):
            result.operators.add(token.text)
        before = found[at + step - 1]
        at += step
    return result


def _parts(found: list[Token], at: int) -> list[str]:
    """Return the parts of a name between dots."""
    parts = [found[at].text]
    while at + 2 < len(found) and found[at + 1].text == "." and found[at + 2].is_name:
        at += 2
        parts.append(found[at].text)
    return parts


def _name(parts: list[str]) -> Name:
    """Return schema and name: the last two parts."""
    return (parts[-2] if len(parts) > 1 else None), parts[-1]


def _is_table(found: list[Token], at: int, in_from: bool) -> bool:
    """Return whether the token at that place is the name of a table."""
    before, ahead = (found[at - n].text if at >= n else "" for n in (1, 2))
    if before == "join" or (in_from and before in ("from", ",", "only")):
        return True
    if before == "into":
        return ahead in ("insert", "merge")
    return before == "update" and ahead not in ("for", "on", "do", "key")


def _own_names(found: list[Token]) -> set[str]:
    """Return the names that the body defines: ``WITH x AS (``, ``CREATE TEMP TABLE x``."""
    own = set()
    for at, token in enumerate(found):
        following = [one.text for one in found[at + 1 : at + 4]]
        if token.is_name and following[:1] == ["as"] and {"(", "materialized"} & set(following[1:3]):
            own.add(token.text)
        elif token.text == "table" and at and found[at - 1].text in ("temp", "temporary", "unlogged", "create"):
            own.update(one.text for one in found[at + 1 : at + 5] if one.is_name)
    return own


def changing(found: list[Token]) -> str | None:
    """Return a clock, or another function whose result changes, on which a condition depends; or None.

    A condition that stays true once it is true does not count: with ``born < now()`` a valid row stays valid.
    """
    for at, token in enumerate(found):
        if token.kind != "name" or (at and found[at - 1].text == "."):
            continue
        if token.text in _OTHERWISE or (token.text in CLOCKS and not _stays_true(found, at)):
            return token.text
    return None


def _stays_true(found: list[Token], at: int) -> bool:
    back = at - 1
    while back >= 0 and found[back].text == "(":
        back -= 1
    before = found[back].text if back >= 0 else ""
    if before in ("<", "<="):
        return True
    if before not in ("", "and", "or", "check", "return", "select", ":="):
        return False
    ahead = at + 1
    while ahead < len(found) and found[ahead].text in ("(", ")", "::"):
        ahead += 2 if found[ahead].text == "::" else 1  # and the type's name
    return ahead < len(found) and found[ahead].text in (">", ">=")
