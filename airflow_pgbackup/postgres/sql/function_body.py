"""What the text of a function or an expression mentions: names without a schema, tables, clocks.

A lexer, no parser: PostgreSQL itself parses such a text only when the function runs. It is for warnings, so what it
cannot tell it leaves out: dynamic SQL in strings, the types of PL/pgSQL's variables, languages other than SQL and
PL/pgSQL. Time is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_TEXT = 1 << 18
"""Characters of a body that are looked at."""

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

# What ends the list of tables that FROM begins.
_ENDS_FROM = frozenset(
    (
        *("where", "group", "order", "having", "limit", "offset", "fetch", "union", "intersect", "except"),
        *("select", "set", "loop", "then", "window", "returning", "for"),
    )
)
# extract(year FROM day), trim(both FROM name), and the like
_FROM_IN_ARGUMENTS = frozenset(("extract", "trim", "substring", "overlay", "position"))
_NO_TABLE = frozenset(("only", "lateral", "select", "values", "unnest", "rows"))

CLOCKS = frozenset(
    (
        *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now"),
        *("clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"),
    )
)
# Of which a row cannot be expected to be valid tomorrow because it is today.
_OTHERWISE = frozenset(
    (
        *("random", "gen_random_uuid", "uuidv4", "uuidv7", "current_user", "session_user", "current_role"),
        *("current_setting", "pg_backend_pid", "txid_current", "pg_current_xact_id", "inet_client_addr"),
    )
)


@dataclass(frozen=True)
class Token:
    """:ivar kind: ``name``, folded to lower case; ``quoted``, a name; ``string``, ``number``, ``other``."""

    kind: str
    text: str

    @property
    def is_name(self) -> bool:
        return self.kind in ("name", "quoted")


def tokens(text: str) -> Iterator[Token]:
    """Tokens of SQL or PL/pgSQL, without space and comments; they end where a quote or comment does not."""
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
"""Schema, None where it is left to the search path, and name."""


@dataclass
class Mentions:
    """What a body mentions.

    :ivar tables: it reads, or writes.
    :ivar functions: it calls.
    :ivar types: it casts to.
    :ivar operators: without a schema.
    :ivar sets_path: it speaks of ``search_path`` itself.
    :ivar changes: a clock or the like on which its result hangs, as :func:`changing` finds it; None without one.
    """

    tables: set[Name] = field(default_factory=set)
    functions: set[Name] = field(default_factory=set)
    types: set[Name] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    sets_path: bool = False
    changes: str | None = None


def mentions(text: str) -> Mentions:
    """Read a body."""
    found = list(tokens(text[:MOST_TEXT]))
    result = Mentions(changes=changing(found))
    result.sets_path = any("search_path" in token.text for token in found if token.kind in ("name", "string"))
    own = _own_names(found)
    opened: list[tuple[str, bool]] = []  # of each parenthesis: what stands before it, whether FROM's list goes on in it
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
                result.tables.add(_name(parts[:-1]) if column else name)
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
    """The parts of a name between dots."""
    parts = [found[at].text]
    while at + 2 < len(found) and found[at + 1].text == "." and found[at + 2].is_name:
        at += 2
        parts.append(found[at].text)
    return parts


def _name(parts: list[str]) -> Name:
    """The last two parts are schema and name."""
    return (parts[-2] if len(parts) > 1 else None), parts[-1]


def _is_table(found: list[Token], at: int, in_from: bool) -> bool:
    """Whether a table's name belongs at that place."""
    before, ahead = (found[at - n].text if at >= n else "" for n in (1, 2))
    if before == "join" or (in_from and before in ("from", ",", "only")):
        return True
    if before == "into":
        return ahead in ("insert", "merge")
    return before == "update" and ahead not in ("for", "on", "do", "key")


def _own_names(found: list[Token]) -> set[str]:
    """Names that the body gives itself: ``WITH x AS (``, ``CREATE TEMP TABLE x``."""
    own = set()
    for at, token in enumerate(found):
        following = [one.text for one in found[at + 1 : at + 4]]
        if token.is_name and following[:1] == ["as"] and {"(", "materialized"} & set(following[1:3]):
            own.add(token.text)
        elif token.text == "table" and at and found[at - 1].text in ("temp", "temporary", "unlogged", "create"):
            own.update(one.text for one in found[at + 1 : at + 5] if one.is_name)
    return own


def changing(found: list[Token]) -> str | None:
    """A clock, or something else that changes by itself, on which a condition hangs; None without one.

    A condition that time makes truer is none: with ``born < now()`` a row that was valid once always is.
    """
    for at, token in enumerate(found):
        if token.kind != "name" or (at and found[at - 1].text == "."):
            continue
        if token.text in _OTHERWISE or (token.text in CLOCKS and not _gets_truer(found, at)):
            return token.text
    return None


def _gets_truer(found: list[Token], at: int) -> bool:
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
