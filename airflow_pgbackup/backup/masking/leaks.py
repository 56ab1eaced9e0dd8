"""Search a masked copy for values of the source that should have been masked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from airflow_pgbackup.backup.masking.columns import column_text
from airflow_pgbackup.backup.masking.samples import SHORTEST, Samples
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    import psycopg

    from airflow_pgbackup.backup.masking.masking import Masking

_WORDS = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256)).lower()
"""For ``translate``: words of letters and digits, in lower case; bytes of UTF-8 count as letters."""
_PIECE = re.compile(rb"[^\x00-\x1f\\\"]+")
_SHORTEST_WORD = 4
_COMMON = 10
"""A word of more samples than this, such as *street*, finds none of them."""
_FEW = 8
"""So many samples are searched for one by one in a MiB."""
_BATCH = 1 << 20
_OVERLAP = 4096

_RELATIONS = """
    SELECT n.nspname, c.relname, array_agg(a.attname ORDER BY a.attnum), array_agg(t.typname ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type b ON b.oid = a.atttypid JOIN pg_type t ON t.oid = coalesce(nullif(b.typbasetype, 0), b.oid)
    WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND n.nspname !~ '^pg_'
        AND n.nspname <> 'information_schema'
        AND t.typname NOT IN ('bool', 'int2', 'int4', 'float4', 'float8', 'date', 'time', 'timetz', 'timestamp',
            'timestamptz', 'interval')
    GROUP BY 1, 2 ORDER BY 1, 2
"""
_STATISTICS = """
    SELECT 'statistics of ' || schemaname || '.' || tablename || '.' || attname,
        concat_ws(' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text)
    FROM pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL
    SELECT 'statistics ' || statistics_schemaname || '.' || statistics_name, most_common_vals::text
    FROM pg_stats_ext WHERE most_common_vals IS NOT NULL
    UNION ALL
    SELECT 'statistics ' || statistics_schemaname || '.' || statistics_name,
        concat_ws(' ', most_common_vals::text, histogram_bounds::text)
    FROM pg_stats_ext_exprs
"""
_OWN = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_DEFINITIONS = f"""
    SELECT 'comment on ' || pg_describe_object(classoid, objoid, objsubid), description FROM pg_description
        WHERE objoid >= 16384
    UNION ALL SELECT 'comment on the database', description FROM pg_shdescription
        WHERE classoid = 'pg_database'::regclass AND objoid = (SELECT oid FROM pg_database
            WHERE datname = current_database())
    UNION ALL SELECT 'function ' || p.oid::regprocedure, concat_ws(' ', prosrc, pg_get_function_arguments(p.oid))
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_OWN}
    UNION ALL SELECT 'definition of ' || c.oid::regclass, pg_get_viewdef(c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {_OWN}
    UNION ALL SELECT 'default of a column of ' || d.adrelid::regclass, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_OWN}
    UNION ALL SELECT 'constraint ' || conname, pg_get_constraintdef(o.oid)
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE {_OWN}
    UNION ALL SELECT 'index ' || i.indexrelid::regclass, pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_OWN}
    UNION ALL SELECT 'partition bound of ' || c.oid::regclass, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_class c WHERE c.relpartbound IS NOT NULL
    UNION ALL SELECT 'trigger ' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'rule ' || rulename, pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT 'policy ' || polname,
            concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
    UNION ALL SELECT 'enum ' || enumtypid::regtype, string_agg(enumlabel, ' ') FROM pg_enum GROUP BY enumtypid
    UNION ALL SELECT 'security label', label FROM pg_seclabel
"""  # noqa: S608  constants


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
        values = "1 value" if self.count == 1 else f"{self.count} values"
        return printable(f"{self.place} has {values} of {self.column}")


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
    """
    if not samples:
        return []
    search = _Search(samples, check)
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET LOCAL search_path = ''")
        for schema, table, columns, types in connection.execute(_RELATIONS).fetchall():
            allowed = {
                column
                for column in columns
                if any(pattern.matches(schema, table, column) for pattern in masking.rules.may_contain)
            }
            _search_table(connection, search, (schema, table), dict(zip(columns, types, strict=True)), allowed)
        for query in (_STATISTICS, _DEFINITIONS):
            for place, text in connection.execute(query):
                search.text(encoded(text or ""), place)
        _search_large_objects(connection, search)
    return search.leaks()


class _Search:
    """Each sample is looked for by the word in it that the fewest others have.

    One that has only common words, ``12 Main Street``, is looked for as the complete value of a column.
    """

    def __init__(self, samples: Samples, check: Callable[[], object]) -> None:
        needles: dict[bytes, set[str]] = {}
        for column, values in samples.items():
            for value in values:
                needle = max(_PIECE.findall(value.lower()), key=len, default=b"").strip()
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
        data = data.lower()
        self._note(place, self._contained(data))
        if data.strip() in self._complete:
            self._note(place, [data.strip()])

    def table(self, batches: Iterable[bytes], places: Sequence[str]) -> None:
        """Search rows in COPY's text format.

        :param places: of the columns.
        """
        seen: set[bytes] = set()  # a common value is noted once for each table, with all its columns in that batch
        for rows in batches:
            rows = rows.lower()
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
    shown = [
        sql.SQL("pg_catalog.encode({}, 'escape')" if types[column] == "bytea" else "{}").format(Identifier(column))
        for column in columns
    ]
    query = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(sql.SQL(", ").join(shown), Identifier(*table))
    with connection.cursor().copy(query) as copy:
        search.table(
            _batches(bytes(each) for each in copy), [f"column {column_text(*table, each)}" for each in columns]
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
