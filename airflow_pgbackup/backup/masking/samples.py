"""Values of the source that a masked copy must not contain."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.masking.columns import column_text
from airflow_pgbackup.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_pgbackup.backup.masking.constraints import Key
    from airflow_pgbackup.backup.masking.masked_column import Masked
    from airflow_pgbackup.backup.masking.masking import Masking
    from airflow_pgbackup.backup.masking.rules import Rule
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
_SAMPLED_METHODS = ("null", "fixed", "hash", "fake", "sql")
"""The methods whose columns are sampled. Shifted or rounded values are not: a masked value may equal the source's value
of another row."""

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
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.)", re.DOTALL)
_NUMBER = re.compile(rb"[-+0-9. ]+")


def sample_values(blocks: Iterable[CopyBlock], masking: Masking) -> Samples:
    """Return values of masked columns from the COPY streams of an archive.

    Of each column they are a random choice, the same for the same archive. No value is shorter than 6 bytes, and none
    is a word that fakes are made of. Values that are not UTF-8 are left out, except for ASCII ones.

    :param blocks: as :meth:`.ArchiveReader.blocks` yields them; read to its end.
    :param masking: after :meth:`.Masking.check_columns` or :meth:`.Masking.install`.
    """
    chosen = sampled_columns(masking)
    rules = {each.column.key: each.rule for each in chosen}
    arrays = {each.column.key for each in chosen if each.column.array}
    binary = {each.column.key for each in chosen if each.column.base == "bytea"}
    most, known = masking.rules.samples, masking.words
    found: dict[Key, _Choice] = {}
    for block in blocks:
        wanted = {
            number: key
            for number, name in enumerate(block.columns)
            if (key := (block.schema, block.name, name)) in rules
        }
        if not wanted:
            continue
        choices = {
            number: found.setdefault(key, _Choice(most, rules[key], known, key in arrays, key in binary))
            for number, key in wanted.items()
        }
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
        if each.rule.method in _SAMPLED_METHODS and each.column.base not in _UNSAMPLED_TYPES
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

    def __init__(self, most: int, rule: Rule, known: frozenset[bytes], array: bool, binary: bool = False) -> None:
        self._most = most
        self._array = array
        self._binary = binary
        self._fixed = rule.text.encode() if rule.method == "fixed" else None
        self._known = known
        self._heap: list[tuple[int, bytes]] = []
        self._values: set[bytes] = set()

    def offer(self, field: bytes) -> None:
        """Take a field of COPY; of an array each element."""
        for value in _ELEMENT.findall(field) if self._array else [field]:
            self._offer(value)

    def _offer(self, field: bytes) -> None:
        if field == rb"\N" or not SHORTEST <= len(field) <= _MOST_FIELD:
            return
        rank = -int.from_bytes(hashlib.blake2b(field, digest_size=8).digest(), "big")
        if len(self._heap) == self._most and rank <= self._heap[0][0]:
            return
        value = unescaped(field)
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
        if len(value) < (_SHORTEST_NUMBER if _NUMBER.fullmatch(value) else SHORTEST) or value == self._fixed:
            return False
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return False
        return (
            any(map(str.isalnum, text))
            and value.lower() not in self._known
            and value.lower().lstrip(b"-") != b"infinity"
        )

    def values(self) -> frozenset[bytes]:
        return frozenset(self._values)


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
