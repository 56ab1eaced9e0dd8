"""Read a database exactly as pg_dump would write it, to compare it with an archive."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from airflow_pgbackup.postgres.archive.summary import LargeObjects, SequenceValue
from airflow_pgbackup.postgres.compare.catalog_queries import DRAWING, RELATIONS, STEPS, WITH_ROWS_OF
from airflow_pgbackup.postgres.compare.copy_out import copy_out, copy_over, copy_several, named_pipe
from airflow_pgbackup.postgres.compare.generated_columns import OutdatedColumn, outdated_columns
from airflow_pgbackup.postgres.compare.interruptible import interruptible
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.postgres.sql.anybytes import Identifier
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.deadline import Deadline

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# As pg_dump sets it before it reads a row (setup_connection in src/bin/pg_dump/pg_dump.c), and as client_environment
# does for the dumps that are compared.
SESSION: tuple[LiteralString, ...] = (
    "SET timezone = 'UTC'",
    "SET bytea_output = 'hex'",
    "SELECT pg_catalog.set_config('search_path', '', false)",
    "SET datestyle = ISO",
    "SET intervalstyle = postgres",
    "SET synchronize_seqscans = off",
    "SET row_security = off",
)

BY_LC_MONETARY = "another lc_monetary (type money)"
BY_SETTINGS = "another lc_monetary, time zone or bytea_output (types money, timestamptz, timetz and bytea)"
BY_DIGITS = "the digits that PostgreSQL 11 and older write (types real and double precision)"
_BY_XML = "line breaks before a document, which PostgreSQL does not always keep (type xml)"
_BY_NUMBER = "dropped objects, which a dump names by their OID (types such as regclass)"
_UNSTABLE = {
    BY_LC_MONETARY: ["money"],
    BY_SETTINGS: ["money", "timestamptz", "timetz", "bytea"],
    BY_DIGITS: ["float4", "float8", "point", "line", "lseg", "box", "path", "polygon", "circle", "cube"],
    # xml_out() omits the declaration and a line break after it, so one before the document is the first character of
    # the dump, which the next xml_out() omits.
    _BY_XML: ["xml"],
    _BY_NUMBER: [
        *("regclass", "regcollation", "regconfig", "regdatabase", "regdictionary", "regnamespace", "regoper"),
        *("regoperator", "regproc", "regprocedure", "regrole", "regtype"),
    ],
}
"""Types whose values can have a different text in the dump and in the restored server, by the reason."""

_SEQUENCE = "select {}, last_value, is_called from {}"
_SEQUENCES = 100  # in a query

# Pages of zeros may be missing, and an empty large object has no page.
_LARGE_OBJECTS = """
select m.oid, p.pageno, p.data from pg_catalog.pg_largeobject_metadata m
  left join pg_catalog.pg_largeobject p on p.loid = m.oid order by 1, 2
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view or sequence.

    :param kind: ``pg_class.relkind``.
    :param of_extension: an extension created it, and may have inserted rows.
    :param columns: in the order of the table.
    :param populated: False for a materialized view without data.
    :param partition: its OID if it is a partition of another table, else 0.
    :param unstable: why equal values can have a different text in the dump and in the copy, because of their types.
    :param foreign: a partition is a foreign table.
    :param unlogged: not in the write-ahead log, hence without data on a standby.
    """

    schema: str
    name: str
    kind: str
    of_extension: bool
    columns: tuple[str, ...]
    populated: bool
    partition: int = 0
    unstable: tuple[str, ...] = ()
    unlogged: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a table, with some columns in the given order.

    :param by_select: read them with a query, since COPY accepts no partitioned and no foreign table by name.
    :param without: the OIDs of partitions whose rows are left out; only with `by_select`.
    """

    schema: str
    name: str
    columns: tuple[str, ...]
    by_select: bool = False
    without: tuple[int, ...] = ()

    @property
    def source(self) -> sql.Composed:
        """What follows COPY: a table with its columns, or a query."""
        table = Identifier(self.schema, self.name)
        columns = sql.SQL(", ").join(map(Identifier, self.columns))
        if self.by_select:
            return sql.SQL("(SELECT {} FROM {}{})").format(columns, table, _without(self.without))
        return sql.SQL("{} ({})" if self.columns else "{}").format(table, columns)


class DatabaseReader:
    """Read one database, for the length of a ``with``.

    :param connection: of a superuser.
    :param directory: for the pipes that rows are read from, if the server is on this machine and can enter it; with
        None, rows come over the connection.
    :param encoding: of the data in the archive, so that both sides have the same bytes.
    :param float_digits: ``extra_float_digits`` of the dump.
    :param quote_all_identifiers: that of the dump; it changes the text of ``regclass`` and similar types.
    :param other_text: more reasons why equal values can have a different text, beside those that apply to every dump:
        :data:`BY_LC_MONETARY`, or :data:`BY_SETTINGS` for a dump whose session is not known; :data:`BY_DIGITS`.
    :param sessions: how many it may have at the same time.
    :param cancel: makes a running statement raise Canceled when set.
    :param deadline: seconds from now on, after which a running statement raises DeadlineExceeded.
    """

    def __init__(
        self,
        connection: ConnectionParams,
        directory: Path | None,
        *,
        encoding: str = "UTF8",
        float_digits: int = 3,
        quote_all_identifiers: bool = False,
        other_text: Collection[str] = (BY_LC_MONETARY,),
        sessions: int = 20,
        cancel: Cancel | None = None,
        deadline: float = float("inf"),
    ) -> None:
        self.connection = connection
        self.sessions = sessions
        self._unstable = {reason: _UNSTABLE[reason] for reason in (*other_text, _BY_XML, _BY_NUMBER)}
        self._directory = directory
        self._encoding = encoding
        self._setup: list[sql.SQL | sql.Composed] = [
            *map(sql.SQL, SESSION),
            sql.SQL("SET extra_float_digits = {}").format(float_digits),
            sql.SQL("SET quote_all_identifiers = {}").format(quote_all_identifiers),
        ]
        self._deadline = Deadline(deadline, cancel, work="the comparison")
        self._relations: dict[tuple[str, str], Relation] | None = None
        self._idle: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DatabaseReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def stop(self) -> None:
        """Cancel what other threads are reading."""
        self._deadline.cancel.set()

    def relations(self) -> dict[tuple[str, str], Relation]:
        """Return tables, views and sequences by schema and name, system catalogs included. Queried once."""
        if self._relations is None:
            with self._connected() as session, self._interruptible(session, "reading the catalogs"):
                relations: dict[tuple[str, str], Relation] = {}
                shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # thousands of partitions have the same columns
                found: Iterator[Any] = iter(session.execute(RELATIONS, [Jsonb(self._unstable)]))
                for schema, name, kind, extension, names, populated, partition, unstable, *rest in found:
                    columns = shared.setdefault(each := tuple(names), each)
                    key = (sys.intern(schema), name)
                    relations[key] = Relation(
                        *key, kind, extension, columns, populated, partition, tuple(unstable), *rest
                    )
            self._relations = relations
        return self._relations

    def read(self, rows: Rows, take: Callable[[bytes], object]) -> None:
        """Read all rows of a table as COPY text. Several threads may call it at the same time.

        :param take: called with the data, in pieces that may end anywhere.
        :raises ToolError: the table does not exist or cannot be read, or the connection was lost.
        :raises Canceled, DeadlineExceeded: the reading was stopped.
        """
        copy = sql.SQL("COPY {} TO {} (ENCODING {})")
        with self._session() as session, contextlib.ExitStack() as stack:
            if self._directory is None:
                statement = copy.format(rows.source, sql.SQL("STDOUT"), sql.Literal(self._encoding))
                copy_over(session, statement, take, deadline=self._deadline)
                return
            pipe = stack.enter_context(named_pipe(self._directory))
            statement = copy.format(rows.source, sql.Literal(str(pipe)), sql.Literal(self._encoding))
            copy_out(session, statement.as_bytes(session), take, pipe=pipe, deadline=self._deadline)

    def read_together(self, tables: Sequence[tuple[Rows, Callable[[bytes], object]]]) -> None:
        """Read several small tables with a single query. For thousands of them this takes a fraction of the time.

        :param tables: the rows of each, and what takes them, as for :meth:`read`, whose errors it raises.
        """
        copy = sql.SQL("COPY {} TO STDOUT (ENCODING {})")
        with self._session() as session:
            statements = [copy.format(rows.source, sql.Literal(self._encoding)) for rows, _ in tables]
            query = sql.SQL(";").join(statements).as_bytes(session)
            copy_several(session, query, [take for _, take in tables], deadline=self._deadline)

    def count(self, schema: str, name: str, *, only: bool, without: Sequence[int] = ()) -> int:
        """Return the number of rows in a table.

        :param only: without those of its children.
        :param without: as for :class:`Rows`.
        """
        query = sql.SQL("SELECT count(*) FROM {} {}{}").format(
            sql.SQL("ONLY" if only else ""), Identifier(schema, name), _without(without)
        )
        with self._session() as session, self._interruptible(session, f"counting {schema}.{name}"):
            row: Any = session.execute(query).fetchone()
            return int(row[0])

    def _interruptible(self, session: psycopg.Connection[Any], what: str) -> contextlib.AbstractContextManager[None]:
        return interruptible(session, what, self._deadline)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        with contextlib.closing(self.connection.open_session()) as session:
            disable_timeouts(session)
            yield session

    @contextlib.contextmanager
    def _session(self) -> Iterator[psycopg.Connection[Any]]:
        """Take a session that no other thread uses. A session is not used again after an error."""
        try:
            session = self._idle.get_nowait()
        except queue.Empty:
            session = self._stack.enter_context(self._connected())
            for statement in self._setup:
                session.execute(statement)
        yield session
        self._idle.put(session)

    def sequences(self, names: Sequence[tuple[str, str]]) -> Iterator[SequenceValue]:
        """Yield the values of sequences as pg_dump would set them.

        :param names: schema and name of each.
        """
        with self._connected() as session, self._interruptible(session, "reading sequences"):
            for first in range(0, len(names), _SEQUENCES):
                self._deadline.check()  # none of many short statements takes long
                batch = names[first : first + _SEQUENCES]
                each = [sql.SQL(_SEQUENCE).format(number, Identifier(*name)) for number, name in enumerate(batch)]
                rows: list[Any] = session.execute(sql.SQL(" union all ").join(each)).fetchall()
                for number, last_value, is_called in rows:
                    schema, name = batch[number]
                    yield SequenceValue(schema, name, last_value, is_called)

    def with_rows_of(self, tables: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Return the tables with columns that contain whole rows of other tables, each with that other table.

        :param tables: schema and name of those others.
        """
        with self._connected() as session, self._interruptible(session, "reading the catalogs"):
            given = [schema for schema, _ in tables], [name for _, name in tables]
            rows: list[Any] = session.execute(WITH_ROWS_OF, given).fetchall()
            return [((schema, name), (of_schema, of_name)) for schema, name, of_schema, of_name in rows]

    def steps(self) -> dict[tuple[str, str], tuple[int, bool]]:
        """Return the increment of each sequence, and whether it cycles, by schema and name."""
        with self._connected() as session, self._interruptible(session, "reading the catalogs"):
            rows: list[Any] = session.execute(STEPS).fetchall()
            return {(schema, name): (increment, cycles) for schema, name, increment, cycles in rows}

    def drawn_sequences(self) -> tuple[set[str], bool]:
        """Return the sequences that a refresh of the materialized views with data changes, and whether it may others.

        It changes those that one, or a view that it reads, passes to nextval(). It may change any if one calls a
        function of the database, or nextval() with a computed name.
        """
        with self._connected() as session, self._interruptible(session, "reading materialized views"):
            row: Any = session.execute(DRAWING).fetchone()
            return set(row[0]), bool(row[1])

    def outdated_columns(self) -> list[OutdatedColumn]:
        """Return the generated columns with values that their expression does not have now."""
        with self._connected() as session, self._interruptible(session, "reading generated columns"):
            return outdated_columns(session)

    def large_objects(self) -> LargeObjects:
        """Return all large objects. Only a superuser can read pg_largeobject."""
        found = LargeObjects()
        with (
            self._connected() as session,
            session.transaction(),
            self._interruptible(session, "reading large objects"),
            session.cursor("large_objects", binary=True) as rows,
        ):
            (block,) = session.execute("select pg_catalog.current_setting('block_size')::int / 4").fetchone() or (2048,)
            page_size = int(str(block))
            current, size, content = None, 0, hashlib.sha256()
            rows.execute(_LARGE_OBJECTS)
            rows.itersize = 500
            for oid, page, data in _typed(rows):
                self._deadline.check()  # none of many short statements takes long
                if oid != current:
                    if current is not None:
                        found.add(current, size, content.digest())
                    current, size, content = oid, 0, hashlib.sha256()
                if page is None:
                    continue
                content.update(bytes(page * page_size - size))
                content.update(data)
                size = page * page_size + len(data)
            if current is not None:
                found.add(current, size, content.digest())
        return found


def _without(partitions: Sequence[int]) -> sql.Composable:
    """Return a WHERE clause that leaves out the rows of partitions; empty for none."""
    if not partitions:
        return sql.SQL("")
    return sql.SQL(" WHERE tableoid <> ALL ({}::pg_catalog.oid[])").format(sql.Literal(list(partitions)))


def _typed(rows: Any) -> Iterator[tuple[int, int | None, bytes]]:
    yield from rows
