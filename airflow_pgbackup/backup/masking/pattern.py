"""The columns that a rule is for: ``schema.table.column``, with wildcards."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_MOST_WILDCARDS = 8
_LONGEST = 63 * 4 * 3 + 20
_PART = re.compile(r'"((?:[^"]|"")*)"|([^".\s]+)')


@dataclass(frozen=True)
class _Part:
    """A name, or one with wildcards.

    :param pieces: of one with wildcards, what is between its ``*``.
    :param specificity: 2 for a name, 1 with wildcards, 0 for ``*``.
    """

    name: str
    pieces: tuple[re.Pattern[str], ...] = ()
    specificity: int = 2

    @classmethod
    def with_wildcards(cls, bare: str) -> _Part:
        """Return an unquoted part.

        :raises ValueError: it has too many wildcards.
        """
        bare = re.sub(r"\*+", "*", bare)
        count = sum(bare.count(each) for each in "*?")
        if count > _MOST_WILDCARDS:
            raise ValueError(f"more than {_MOST_WILDCARDS} wildcards in a name")
        if not count:
            return cls(bare)
        pieces = ("".join("." if c == "?" else re.escape(c) for c in piece) for piece in bare.split("*"))
        return cls(bare, tuple(re.compile(piece, re.DOTALL) for piece in pieces), 0 if bare == "*" else 1)

    def fits(self, name: str) -> bool:
        """Return whether it fits a name.

        Each piece takes the first place where it occurs. Another place would not help the next piece, so nothing is
        tried again, as one regular expression would for each ``*``.
        """
        if not self.pieces:
            return name == self.name
        first, *inner = self.pieces
        if not inner:
            return first.fullmatch(name) is not None
        match, last = first.match(name), inner.pop()
        for piece in inner:
            match = match and piece.search(name, match.end())
        # A piece has one length, as it has no repetition; the last one ends the name.
        return match is not None and any(last.fullmatch(name, start) for start in range(match.end(), len(name) + 1))


@dataclass(frozen=True)
class ColumnPattern:
    """``public.customer.email``: three names, as psql writes them.

    Outside of double quotes, letters are folded to lower case, ``*`` stands for any characters and ``?`` for one.

    :param text: as the user wrote it.
    :param names: schema, table and column of one without wildcards; empty for others.
    :param specificity: of its three parts, see :class:`_Part`.
    """

    text: str
    specificity: tuple[int, ...] = field(compare=False, repr=False, default=())
    names: tuple[str, ...] = field(compare=False, repr=False, default=())
    _parts: tuple[_Part, ...] = field(compare=False, repr=False, default=())

    @classmethod
    def parse(cls, text: str) -> ColumnPattern:
        """Return the pattern.

        :raises ValueError: it does not have three parts, or too many wildcards; the message says so.
        """
        parts: list[_Part] = []
        names: list[str] = []
        at = 0
        while at <= len(text) and len(text) <= _LONGEST:
            match = _PART.match(text, at)
            if not match:
                break
            quoted, bare = match.groups()
            name = _folded(bare) if quoted is None else quoted.replace('""', '"')
            part = _Part(name) if quoted is not None else _Part.with_wildcards(name)
            names.append(name)
            parts.append(part)
            at = match.end()
            if at == len(text):
                break
            if text[at] != ".":
                break
            at += 1
        if at != len(text) or len(parts) != 3 or text.endswith("."):
            raise ValueError("not schema.table.column; put a name with dots, spaces or capitals into double quotes")
        specificity = tuple(part.specificity for part in parts)
        return cls(text, specificity, tuple(names) if min(specificity) == 2 else (), tuple(parts))

    @property
    def exact(self) -> bool:
        """Whether it has no wildcard."""
        return bool(self.names)

    def counts_before(self, other: ColumnPattern) -> bool:
        """Return whether it is more exact: it has more plain names, or the same ones and ``*`` in fewer parts."""
        ours, theirs = self.specificity, other.specificity
        if ours.count(2) != theirs.count(2):
            return ours.count(2) > theirs.count(2)
        return ours != theirs and all(one >= another for one, another in zip(ours, theirs, strict=True))

    def matches(self, schema: str, table: str, column: str) -> bool:
        """Return whether it fits a column."""
        return all(part.fits(name) for part, name in zip(self._parts, (schema, table, column), strict=True))

    def matches_table(self, schema: str, table: str) -> bool:
        """Return whether its first two parts fit a table."""
        return self._parts[0].fits(schema) and self._parts[1].fits(table)


def _folded(bare: str) -> str:
    """Return an unquoted part as the server folds names."""
    return "".join(c.lower() if c.isascii() else c for c in bare)
