"""Search a masked copy for values of the source that should have been masked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from airflow_pgbackup.backup.masking.columns import column_text
from airflow_pgbackup.backup.masking.leak_queries import HIDDEN, RELATIONS, STATISTICS, definitions
from airflow_pgbackup.backup.masking.samples import SHORTEST, Samples
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_of, printable

if TYPE_CHECKING:
    import psycopg

    from airflow_pgbackup.backup.masking.masking import Masking

_WORDS = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256)).lower()
"""For ``translate``: words of letters and digits, in lower case; bytes of UTF-8 count as letters."""
_PIECE = re.compile(rb"[^\x00-\x1f\\\"]+")
_BYTEA = re.compile(rb"\\+x([0-9A-Fa-f]{12,})")
"""A bytea as the server writes it, in COPY and in arrays with more backslashes. Shorter ones have no sample."""
_SHORTEST_WORD = 4
_NO_SEPARATORS = bytes.maketrans(b"\t\n", b"  ")
_COMMON = 10
"""A word of more samples than this, such as *street*, finds none of them."""
_FEW = 8
"""So many samples are searched for one by one in a MiB."""
_BATCH = 1 << 20
_OVERLAP = 4096
_NAMED = 5


@dataclass(frozen=True)
class Leak:
    """A place in the copy with values of the source.

    :ivar place: ``column public.ticket.body``, ``statistics of public.customer.email``, ``large object 16401``, …
    :ivar column: the masked column that the values come from.
    :ivar count: how many of its samples were found there.
    """

    place: str
    column: str
    count: int

    def __str__(self) -> str:
        """Return one printable line, without the values."""
        return printable(f"{self.place} has {counted(self.count, 'value')} of {self.column}")


def find_leaks(
    connection: psycopg.Connection[Any],
    samples: Samples,
    masking: Masking,
    *,
    check: Callable[[], object] = lambda: None,
) -> list[Leak]:
    """Return the places of a database where samples occur: rows, large objects, statistics, comments, definitions.

    Upper and lower case are the same. The values of numbers are compared as they are written. What is compressed,
    encrypted or encoded inside of a value is not found, except for ``bytea``, which is read as text.

    :param connection: in autocommit mode, to the copy, of a role that may read everything in it.
    :param masking: its rules say in which columns values may be found.
    :param check: called now and then; it may raise, to stop the search.
    :raises ConfigurationError: policies of row-level security hide rows from the role.
    """
    if not samples:
        return []
    search = _Search(samples, check)
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET LOCAL search_path = ''")
        connection.execute("SET LOCAL bytea_output = hex")
        _require_all_rows(connection)
        for schema, table, columns, types in connection.execute(RELATIONS).fetchall():
            allowed = {column for column in columns if _may_contain(masking, schema, table, column)}
            _search_table(connection, search, (schema, table), dict(zip(columns, types, strict=True)), allowed)
        for place, schema, table, columns, text in connection.execute(STATISTICS):
            # Statistics are computed from rows, so a leak from one of the other columns was already found in the rows.
            if not any(_may_contain(masking, schema, table, column) for column in columns):
                search.text(_readable(text), place)
        for place, text in connection.execute(definitions(connection.info.server_version)):
            search.text(_readable(text), place)
        _search_large_objects(connection, search)
    return search.leaks()


def _may_contain(masking: Masking, schema: str, table: str, column: str) -> bool:
    return any(pattern.matches(schema, table, column) for pattern in masking.rules.may_contain)


def _require_all_rows(connection: psycopg.Connection[Any]) -> None:
    """Refuse to search less than all rows: policies filter tables, and hide their statistics, without an error."""
    connection.execute("SET LOCAL row_security = off")
    if tables := [name for (name,) in connection.execute(HIDDEN)]:
        raise ConfigurationError(
            f"policies hide rows of {first_of(tables, _NAMED)} from the search for unmasked values",
            hint=f"Run ALTER ROLE {connection.info.user} BYPASSRLS, or connect as a role that has it.",
        )


class _Search:
    """Each sample is looked for by the word in it that the fewest others have.

    One that has only common words, ``12 Main Street``, is looked for as the complete value of a column.
    """

    def __init__(self, samples: Samples, check: Callable[[], object]) -> None:
        needles: dict[bytes, set[str]] = {}
        for column, values in samples.items():
            for value in values:
                needle = max(_PIECE.findall(_folded(value)), key=len, default=b"").strip()
                if len(needle) >= SHORTEST:
                    needles.setdefault(needle, set()).add(column)
        words = {needle: {word for word in _words(needle) if len(word) >= _SHORTEST_WORD} for needle in needles}
        counts = Counter(word for each in words.values() for word in each)
        self._by_word: dict[bytes, list[bytes]] = {}
        self._complete: set[bytes] = set()
        for needle, known in words.items():
            word = min(known, key=lambda each: (counts[each], -len(each)), default=b"")
            if word and counts[word] <= _COMMON:
                self._by_word.setdefault(word, []).append(needle)
            else:
                self._complete.add(needle)
        self._columns = needles
        self._keys = frozenset(self._by_word)
        self._check = check
        self._found: dict[tuple[str, str], set[bytes]] = {}

    def text(self, data: bytes, place: str) -> None:
        """Search one text."""
        data = _folded(data)
        self._note(place, self._contained(data))
        if data.strip() in self._complete:
            self._note(place, [data.strip()])

    def table(self, batches: Iterable[bytes], places: Sequence[str], *, binary: bool = False) -> None:
        """Search rows in COPY's text format.

        :param places: of the columns.
        :param binary: some columns are bytea, in hexadecimal.
        """
        seen: set[bytes] = set()  # a common value is noted once for each table, with all its columns in that batch
        for rows in batches:
            rows = _folded(_BYTEA.sub(_plain, rows) if binary else rows)
            found = [needle for needle in self._contained(rows) if needle not in seen]
            if self._complete:
                fields = rows.replace(b"\n", b"\t").split(b"\t")
                found += [needle for needle in self._complete.intersection(fields) if needle not in seen]
            if not found:
                continue
            seen.update(found)
            for row in rows.split(b"\n"):
                present = [needle for needle in found if needle in row]
                if present:
                    self._row(row, present, places)

    def leaks(self) -> list[Leak]:
        return [Leak(place, column, len(values)) for (place, column), values in sorted(self._found.items())]

    def _contained(self, data: bytes) -> list[bytes]:
        self._check()
        found = self._candidates(data)
        if len(found) <= _FEW:
            return [needle for needle in found if needle in data]
        # Common words: line by line, as no sample goes beyond a line.
        present: set[bytes] = set()
        for line in data.split(b"\n"):
            present.update(needle for needle in self._candidates(line) if needle in line)
        return list(present)

    def _candidates(self, data: bytes) -> list[bytes]:
        """Return the samples whose words occur."""
        return [needle for word in self._keys.intersection(_words(data)) for needle in self._by_word[word]]

    def _row(self, row: bytes, present: Sequence[bytes], places: Sequence[str]) -> None:
        for field, place in zip(row.split(b"\t"), places, strict=False):
            self._note(
                place, [each for each in present if (field == each if each in self._complete else each in field)]
            )

    def _note(self, place: str, needles: Iterable[bytes]) -> None:
        for needle in needles:
            for column in self._columns[needle]:
                self._found.setdefault((place, column), set()).add(needle)


def _folded(data: bytes) -> bytes:
    """Return a text in lower case, of all letters if it is UTF-8."""
    if data.isascii():
        return data.lower()
    return data.decode(errors="surrogateescape").lower().encode(errors="surrogateescape")


def _plain(match: re.Match[bytes]) -> bytes:
    """Return the bytes of a bytea, without those that separate fields and rows."""
    digits = match[1]
    return bytes.fromhex(digits.decode()).translate(_NO_SEPARATORS) if len(digits) % 2 == 0 else match[0]


def _readable(text: str | None) -> bytes:
    """Return a text, followed by the bytes of each bytea in it."""
    data = encoded(text or "")
    return b"\n".join([data, *(_plain(match) for match in _BYTEA.finditer(data))])


def _words(data: bytes) -> list[bytes]:
    return data.translate(_WORDS).split()


def _search_table(
    connection: psycopg.Connection[Any],
    search: _Search,
    table: tuple[str, str],
    types: Mapping[str, str],
    allowed: set[str],
) -> None:
    columns = [column for column in types if column not in allowed]
    if not columns:
        return
    binary = any(types[column] == "bytea" for column in columns)
    query = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(
        sql.SQL(", ").join(map(Identifier, columns)), Identifier(*table)
    )
    with connection.cursor().copy(query) as copy:
        search.table(
            _batches(bytes(each) for each in copy),
            [f"column {column_text(*table, each)}" for each in columns],
            binary=binary,
        )


def _batches(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Yield complete rows, about a MiB at once."""
    waiting: list[bytes] = []
    size = 0
    for row in rows:
        waiting.append(row)
        size += len(row)
        if size >= _BATCH and row.endswith(b"\n"):
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _search_large_objects(connection: psycopg.Connection[Any], search: _Search) -> None:
    # lo_get() needs the right to read each of them; pg_largeobject that of a superuser.
    oids = connection.execute("SELECT oid FROM pg_largeobject_metadata ORDER BY oid").fetchall()
    for (oid,) in oids:
        place, offset, rest = f"large object {oid}", 0, b""
        while data := connection.execute("SELECT lo_get(%s, %s, %s)", [oid, offset, _BATCH]).fetchone()[0]:  # type: ignore[index]
            offset += len(data)
            search.text(rest + data, place)
            rest = data[-_OVERLAP:]
