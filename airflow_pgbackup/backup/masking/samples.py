"""Values of the source that a masked copy must not contain."""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.masking.columns import column_text
from airflow_pgbackup.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_pgbackup.backup.masking.constraints import Key
    from airflow_pgbackup.backup.masking.masked_column import Masked
    from airflow_pgbackup.backup.masking.masking import Masking
    from airflow_pgbackup.postgres.archive.reader import CopyBlock

Samples = Mapping[str, frozenset[bytes]]
"""Values of the source by masked column, ``public.customer.email``. They are personal data: log none."""

SHORTEST = 6
"""Bytes of a value that is looked for: shorter ones occur everywhere by chance."""
_SHORTEST_NUMBER = 9
"""Digits of a number that is looked for."""
_FULLY_READ = 16 * 1024**2
"""Bytes of each table from which every row is sampled; after them, one row of each chunk is."""
_MOST_FIELD = 64 * 1024
DOCUMENTS = ("json", "jsonb")
"""Types of which each string and number within a value is one sample, and no key is."""
_SAMPLED_METHODS = ("null", "fixed", "hash", "fake", "sql")
"""The methods whose columns are sampled, besides the prefix of a text. Shifted or rounded values are not, as a masked
value may equal the source's value of another row."""

_UNSAMPLED_TYPES = (
    "bool",
    "int2",
    "int4",
    "float4",
    "float8",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
)
_ELEMENT = re.compile(rb'[^{},"]+')
_DOCUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
"""An element of an array of documents."""
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.)", re.DOTALL)
_NUMBER = re.compile(rb"[-+0-9. ]+")


def sample_values(blocks: Iterable[CopyBlock], masking: Masking) -> Samples:
    """Return values of masked columns from the COPY streams of an archive.

    Of each column they are a random choice, the same for the same archive. No value is shorter than 6 bytes, and none
    consists only of words that fakes are made of. Values that are not UTF-8 are left out, except for ASCII ones.

    :param blocks: as :meth:`.ArchiveReader.blocks` yields them; read to its end.
    :param masking: after :meth:`.Masking.check_columns` or :meth:`.Masking.install`.
    """
    chosen = sampled_columns(masking)
    columns = {each.column.key: each for each in chosen}
    most, known = masking.rules.samples, masking.words
    found: dict[Key, _Choice] = {}
    for block in blocks:
        wanted = {
            number: key
            for number, name in enumerate(block.columns)
            if (key := (block.schema, block.name, name)) in columns
        }
        if not wanted:
            continue
        choices = {number: found.setdefault(key, _Choice(most, columns[key], known)) for number, key in wanted.items()}
        for line in _lines(block.chunks()):
            fields = line.split(b"\t")
            for number, choice in choices.items():
                if number < len(fields):
                    choice.offer(fields[number])
    return {column_text(*key): choice.values() for key, choice in found.items() if choice.values()}


def sampled_columns(masking: Masking) -> list[Masked]:
    """Return the masked columns whose values are looked for.

    :param masking: after :meth:`.Masking.check_columns` or :meth:`.Masking.install`.
    """
    if masking.plan is None:
        raise ConfigurationError("masking has no plan", hint="Call check_columns() or install() first.")
    if not masking.rules.samples:
        return []
    return [
        each
        for each in masking.plan.columns.values()
        if (each.rule.method in _SAMPLED_METHODS or (each.rule.method == "generalize" and each.rule.length))
        and not each.column.enum  # its labels are part of the definitions
        and each.column.base not in _UNSAMPLED_TYPES
    ]


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield all rows of the first 16 MiB, and later the first complete one of each chunk."""
    rest, read = b"", 0
    for chunk in chunks:
        read += len(chunk)
        if read <= _FULLY_READ:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        else:
            lines = chunk.split(b"\n", 2)
            if len(lines) == 3:
                yield lines[1]


class _Choice:
    """The values with the smallest digests: a random choice of those that differ, whatever their frequency."""

    def __init__(self, most: int, masked: Masked, known: frozenset[bytes]) -> None:
        self._most = most
        self._array = masked.column.array
        self._document = masked.column.base in DOCUMENTS
        self._binary = masked.column.base == "bytea"
        self._fixed = frozenset(self._parts(masked.rule.text.encode())) if masked.rule.method == "fixed" else ()
        self._prefix = masked.rule.length if masked.rule.method == "generalize" else 0
        self._known = known
        self._heap: list[tuple[int, bytes]] = []
        self._values: set[bytes] = set()

    def offer(self, field: bytes) -> None:
        """Take a field of COPY; of an array each element, of a document each string and number."""
        if field != rb"\N":
            for value in self._parts(unescaped(field)):
                self._offer(value)

    def _parts(self, value: bytes) -> Iterable[bytes]:
        if not self._document:
            return _ELEMENT.findall(value) if self._array else [value]
        elements = [re.sub(rb"\\(.)", rb"\1", each) for each in _DOCUMENT.findall(value)] if self._array else [value]
        return [part for each in elements if len(each) <= _MOST_FIELD for part in _strings(each)]

    def _offer(self, value: bytes) -> None:
        if not SHORTEST <= len(value) <= _MOST_FIELD:
            return
        rank = -int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "big")
        if len(self._heap) == self._most and rank <= self._heap[0][0]:
            return
        if self._binary:
            value = _from_hex(value)
        value = value.strip()
        if value in self._values or not self._suits(value):
            return
        self._values.add(value)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (rank, value))
        else:
            self._values.discard(heapq.heapreplace(self._heap, (rank, value))[1])

    def _suits(self, value: bytes) -> bool:
        if len(value) < (_SHORTEST_NUMBER if _NUMBER.fullmatch(value) else SHORTEST) or value in self._fixed:
            return False
        try:
            text = value.decode().lower()
        except UnicodeDecodeError:
            return False
        # A fake can be the name of somebody else, which has the same two words.
        of_fakes = text.encode() in self._known or all(word.encode() in self._known for word in text.split())
        return (
            any(map(str.isalnum, text)) and not of_fakes and len(text) > self._prefix and text.lstrip("-") != "infinity"
        )

    def values(self) -> frozenset[bytes]:
        return frozenset(self._values)


def _strings(document: bytes) -> Iterator[bytes]:
    """Yield the strings and numbers in a JSON document, without keys; none if it cannot be read."""
    try:
        left = [json.loads(document, parse_int=str, parse_float=str)]
    except (ValueError, RecursionError):
        return
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item.encode(errors="replace")
        elif isinstance(item, (list, dict)):
            left += item.values() if isinstance(item, dict) else item


def _from_hex(value: bytes) -> bytes:
    """Return the bytes of a ``bytea``, which pg_dump writes in hexadecimal; in an array its backslash is doubled."""
    digits = value.lstrip(b"\\")
    try:
        return bytes.fromhex(digits[1:].decode()) if digits[:1] == b"x" else value
    except ValueError:
        return value


def unescaped(field: bytes) -> bytes:
    """Return the value of a field in COPY's text format."""
    return _ESCAPE.sub(_character, field) if b"\\" in field else field


def _character(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] == b"x" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    if code.isdigit() and code < b"8":
        return bytes([int(code, 8) & 255])
    return _ESCAPES.get(code, code)
