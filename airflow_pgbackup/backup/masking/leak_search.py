"""Find sample values in texts and rows: as whole words, in upper or lower case."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.masking.samples import SHORTEST, Samples

_WORDS = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256)).lower()
"""For ``translate``: words of letters and digits, in lower case; bytes of UTF-8 count as letters."""
_SIGNS = re.compile(r"[^\w\x00-\x7f]+")
"""What is neither ASCII nor a letter or digit: quotes, dashes, blanks."""
_UNSPACED = re.compile("[\u0530-\u1dff\u2c00-\U0010ffff]+")
"""Scripts such as Chinese and Thai, which write words without blanks, or may add letters to a name: each letter counts
as a word."""
_PIECE = re.compile(rb"[^\x00-\x1f\\\"]+")
_BYTEA = re.compile(rb"\\+x([0-9A-Fa-f]{12,})")
"""A bytea as the server writes it, in COPY and in arrays with more backslashes. Shorter ones have no sample."""
_ESCAPED_CONTROL = re.compile(rb"(?<!\\)((?:\\\\)*)\\[bfnrtv]")
"""A line end or tab within a value, as COPY writes it: its letter must not become a part of the next word."""
_JSON_CONTROL = re.compile(rb"\\[bfnrt]")
"""A line end or tab in JSON, or a backslash and the first letter of a word."""
_SHORTEST_WORD = 4
_NO_SEPARATORS = bytes.maketrans(b"\t\n", b"  ")
_COMMON = 10
"""A word of more samples than this, such as *street*, finds none of them."""
_FEW = 100
"""So many samples are searched for one by one in a MiB."""


@dataclass(frozen=True)
class Place:
    """Where values can be found.

    :param text: ``column public.ticket.body``.
    :param advice: what to do if one is; ``{column}`` stands for the masked column it comes from.
    :param may_contain: the masked columns whose values may be there.
    """

    text: str
    advice: str
    may_contain: frozenset[str] = frozenset()


class Search:
    """Each sample is looked for by the word in it that the fewest others have.

    One that has only short or common words, such as ``12 Main Street`` or ``192.0.2.1``, is looked for by two words
    that follow one another.
    """

    def __init__(self, samples: Samples, check: Callable[[], object]) -> None:
        self._columns: dict[bytes, set[str]] = {}
        for column, values in samples.items():
            for value in values:
                needle = max(_PIECE.findall(_folded(value)), key=len, default=b"").strip()
                if len(needle) >= SHORTEST:
                    self._columns.setdefault(needle, set()).add(column)
        words = {needle: _words(needle) for needle in self._columns}
        counts = Counter(word for each in words.values() for word in set(each))
        pairs = Counter(pair for each in words.values() for pair in set(_pairs(each)))
        self._by_word: dict[bytes, list[bytes]] = {}
        self._by_pair: dict[tuple[bytes, bytes], list[bytes]] = {}
        for needle, known in words.items():
            rare = [word for word in known if len(word) >= _SHORTEST_WORD and counts[word] <= _COMMON]
            if rare or len(known) == 1:
                word = min(rare or known, key=lambda each: (counts[each], -len(each)))
                self._by_word.setdefault(word, []).append(needle)
            elif known:
                self._by_pair.setdefault(min(_pairs(known), key=pairs.__getitem__), []).append(needle)
        self._keys = frozenset(self._by_word)
        self._pairs = frozenset(self._by_pair)
        self._check = check
        self._found: dict[tuple[Place, str], set[bytes]] = {}

    def text(self, data: bytes, place: Place) -> None:
        """Search one text."""
        self._note(place, self._contained(_folded(data)))

    def table(self, batches: Iterable[bytes], places: Sequence[Place], *, binary: bool = False) -> None:
        """Search rows in COPY's text format.

        :param places: of the columns.
        :param binary: some columns are bytea, in hexadecimal.
        """
        seen: set[bytes] = set()  # a common value is noted once for each table, with all its columns in that batch
        for rows in batches:
            rows = _BYTEA.sub(_plain, rows) if binary else rows
            rows = _folded(_ESCAPED_CONTROL.sub(rb"\1 ", rows) if b"\\" in rows else rows)
            found = [needle for needle in self._contained(rows) if needle not in seen]
            if not found:
                continue
            seen.update(found)
            for row in rows.split(b"\n"):
                present = [needle for needle in found if needle in row]
                if present:
                    for field, place in zip(row.split(b"\t"), places, strict=False):
                        self._note(place, [needle for needle in present if _occurs(needle, field)])

    def found(self) -> Iterator[tuple[Place, str, int]]:
        """Yield the places with the column that values come from, and how many of its values were found there."""
        for (place, column), values in sorted(self._found.items(), key=lambda each: (each[0][0].text, each[0][1])):
            yield place, column, len(values)

    def _contained(self, data: bytes) -> list[bytes]:
        self._check()
        found = self._candidates(data)
        if len(found) <= _FEW:
            return [needle for needle in found if _occurs(needle, data)]
        # Common words: line by line, as no sample goes beyond a line.
        present: set[bytes] = set()
        for line in data.split(b"\n"):
            present.update(needle for needle in self._candidates(line) if _occurs(needle, line))
        return list(present)

    def _candidates(self, data: bytes) -> list[bytes]:
        """Return the samples whose words occur."""
        words = _words(data)
        if (split := _JSON_CONTROL.sub(b" ", data)) != data:
            words += _words(split)
        found = [needle for word in self._keys.intersection(words) for needle in self._by_word[word]]
        if self._pairs:
            found += [needle for pair in self._pairs.intersection(_pairs(words)) for needle in self._by_pair[pair]]
        return found

    def _note(self, place: Place, needles: Iterable[bytes]) -> None:
        for needle in needles:
            for column in self._columns[needle] - place.may_contain:
                self._found.setdefault((place, column), set()).add(needle)


def readable(data: bytes) -> bytes:
    """Return a text, followed by the bytes of each bytea in it."""
    return b"\n".join([data, *(_plain(match) for match in _BYTEA.finditer(data))])


def _folded(data: bytes) -> bytes:
    """Return a text in lower case, of all letters if it is UTF-8."""
    if data.isascii():
        return data.lower()
    return data.decode(errors="surrogateescape").lower().encode(errors="surrogateescape")


def _plain(match: re.Match[bytes]) -> bytes:
    """Return the bytes of a bytea, without those that separate fields and rows."""
    digits = match[1]
    return bytes.fromhex(digits.decode()).translate(_NO_SEPARATORS) if len(digits) % 2 == 0 else match[0]


def _words(data: bytes) -> list[bytes]:
    if data.isascii():
        return data.translate(_WORDS).split()
    text = _SIGNS.sub(" ", data.decode(errors="surrogateescape"))
    text = _UNSPACED.sub(lambda letters: f" {' '.join(letters[0])} ", text)
    return text.encode().translate(_WORDS).split()


def _pairs(words: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return itertools.pairwise(words)


def _occurs(needle: bytes, data: bytes) -> bool:
    """Return whether a text has a value that is not a part of a longer word or number of ASCII letters and digits."""
    start = data.find(needle)
    while start >= 0:
        end = start + len(needle)
        before, after = data[max(start - 2, 0) : start], data[end : end + 1]
        # After a backslash, the letter can be that of a line end in JSON.
        inner = needle[:1].isalnum() and before[-1:].isalnum() and before[:1] != b"\\"
        if not inner and not (needle[-1:].isalnum() and after.isalnum()):
            return True
        start = data.find(needle, start + 1)
    return False
