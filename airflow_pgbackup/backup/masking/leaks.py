"""Search a masked copy for values of the source that should have been masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from airflow_pgbackup.backup.masking.columns import column_text
from airflow_pgbackup.backup.masking.leak_queries import HIDDEN, RELATIONS, STATISTICS, definitions
from airflow_pgbackup.backup.masking.leak_search import Place, Search, readable
from airflow_pgbackup.backup.masking.samples import DOCUMENTS, Samples
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_of, printable

if TYPE_CHECKING:
    import psycopg

    from airflow_pgbackup.backup.masking.masking import Masking

_BATCH = 1 << 20
_OVERLAP = 4096
_NAMED = 5
_OF_COLUMN = "give it a rule, or name it in leak_check: may_contain"
_OF_STATISTICS = "give its columns a rule, or name them in leak_check: may_contain"
_OF_DEFINITION = "change it in the source, or name {column} in leak_check: may_contain if that is no secret"
_OF_LARGE_OBJECT = "leave them out with large_objects: drop"


@dataclass(frozen=True)
class Leak:
    """A place in the copy with values of the source.

    :param place: ``column public.ticket.body``, ``statistics of public.customer.email``, ``large object 16401``, …
    :param column: the masked column that the values come from.
    :param count: how many of its samples were found there.
    :param advice: what to do about it.
    """

    place: str
    column: str
    count: int
    advice: str = ""

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
    search = Search(samples, check)
    masked = masking.plan.columns if masking.plan else {}
    # What an expression leaves of a document is a decision; what it should not have left can be found elsewhere.
    documents = frozenset(
        column_text(*key) for key, each in masked.items() if each.rule.method == "sql" and each.column.base in DOCUMENTS
    )
    known = frozenset(column_text(*key) for key in masked if _may_contain(masking, *key))
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET LOCAL search_path = ''")
        connection.execute("SET LOCAL bytea_output = hex")
        _require_all_rows(connection)
        for schema, table, columns, types in connection.execute(RELATIONS).fetchall():
            places = {
                column: Place(f"column {name}", _OF_COLUMN, documents if name in documents else frozenset())
                for column in columns
                for name in [column_text(schema, table, column)]
                if not _may_contain(masking, schema, table, column)
            }
            binary = any(kind == "bytea" for column, kind in zip(columns, types, strict=True) if column in places)
            _search_table(connection, search, (schema, table), places, binary=binary)
        for place, schema, table, columns, text in connection.execute(STATISTICS):
            # Statistics are computed from rows, so a leak from one of the other columns was already found in the rows.
            if not any(_may_contain(masking, schema, table, column) for column in columns):
                among = documents.intersection(column_text(schema, table, column) for column in columns)
                left = documents if among else frozenset()
                search.text(readable(encoded(text or "")), Place(place, _OF_STATISTICS, left))
        for place, text in connection.execute(definitions(connection.info.server_version)):
            search.text(readable(encoded(text or "")), Place(place, _OF_DEFINITION, known))
        _search_large_objects(connection, search)
    return [
        Leak(place.text, column, count, place.advice.format(column=column)) for place, column, count in search.found()
    ]


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


def _search_table(
    connection: psycopg.Connection[Any],
    search: Search,
    table: tuple[str, str],
    places: Mapping[str, Place],
    *,
    binary: bool,
) -> None:
    if not places:
        return
    query = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(
        sql.SQL(", ").join(map(Identifier, places)), Identifier(*table)
    )
    with connection.cursor().copy(query) as copy:
        search.table(_batches(bytes(each) for each in copy), list(places.values()), binary=binary)


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


def _search_large_objects(connection: psycopg.Connection[Any], search: Search) -> None:
    # lo_get() needs the right to read each of them; pg_largeobject that of a superuser.
    oids = connection.execute("SELECT oid FROM pg_largeobject_metadata ORDER BY oid").fetchall()
    for (oid,) in oids:
        place, offset, rest = Place(f"large object {oid}", _OF_LARGE_OBJECT), 0, b""
        while data := connection.execute("SELECT lo_get(%s, %s, %s)", [oid, offset, _BATCH]).fetchone()[0]:  # type: ignore[index]
            offset += len(data)
            search.text(rest + data, place)
            rest = data[-_OVERLAP:]
