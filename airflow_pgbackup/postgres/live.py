"""A live database read as pg_dump would write it, so that it can be held against an archive.

Rows come through psql, which passes COPY's output on in large pieces; psycopg hands over one row at a time, which is
ten times slower in Python. Between the tables psql writes the frame of a dump's COPY, so that the same lexer reads
both sides.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from airflow_pgbackup.postgres.cancel import Cancel
from airflow_pgbackup.postgres.clients import Client
from airflow_pgbackup.postgres.conninfo import ConnectionParams, client_environment
from airflow_pgbackup.postgres.contents import LargeObjects, SequenceValue
from airflow_pgbackup.postgres.process import ToolProcess
from airflow_pgbackup.postgres.sqllexer import CopyData, SqlLexer

# What pg_dump sets before it reads a row (setup_connection in src/bin/pg_dump/pg_dump.c); time zone and bytea_output
# are pinned by client_environment for both sides.
SESSION = (
    "SET client_encoding = {encoding}",
    "SELECT pg_catalog.set_config('search_path', '', false) \\g (tuples_only) /dev/null",
    "SET datestyle = ISO",
    "SET intervalstyle = postgres",
    "SET extra_float_digits = {float_digits}",
    "SET synchronize_seqscans = off",
    "SET row_security = off",
    "SET standard_conforming_strings = on",
    "SET statement_timeout = 0",
    "SET lock_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
)

_RELATIONS = """
select n.nspname, c.relname, c.relkind::text,
       exists (select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'),
       array(select a.attname::text from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
       c.relispopulated
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'f', 'm', 'v', 'S')
"""

_SEQUENCE = "select last_value, is_called from {}"

# Pages of nothing but zeros may be missing, and an empty large object has none at all.
_LARGE_OBJECTS = """
select m.oid, p.pageno, p.data from pg_catalog.pg_largeobject_metadata m
  left join pg_catalog.pg_largeobject p on p.loid = m.oid order by 1, 2
"""


Identifier = Callable[..., sql.Composable]
"""Of the parts of a name."""


@dataclass(frozen=True)
class Relation:
    """:param kind: ``pg_class.relkind``.
    :param of_extension: an extension made it, and may have put rows into it.
    :param populated: False for a materialized view without data."""

    schema: str
    name: str
    kind: str
    of_extension: bool
    columns: frozenset[str]
    populated: bool


@dataclass(frozen=True)
class Rows:
    """Which rows of a table to read: all of them, with these columns in this order."""

    schema: str
    name: str
    columns: tuple[str, ...]
    by_select: bool = False
    """COPY takes no partitioned and no foreign table by name."""

    def statement(self, identifier: Identifier) -> str:
        table = identifier(self.schema, self.name)
        columns = sql.SQL(", ").join(map(identifier, self.columns))
        if self.by_select:
            return sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT;").format(columns, table).as_string(None)
        if not self.columns:
            return sql.SQL("COPY {} TO STDOUT;").format(table).as_string(None)
        return sql.SQL("COPY {} ({}) TO STDOUT;").format(table, columns).as_string(None)


@dataclass(frozen=True)
class Count:
    """How many rows a table has.

    :param only: without its children's."""

    schema: str
    name: str
    only: bool

    def statement(self, identifier: Identifier) -> str:
        only = sql.SQL("ONLY" if self.only else "")
        table = identifier(self.schema, self.name)
        return sql.SQL("COPY (SELECT count(*) FROM {} {}) TO STDOUT;").format(only, table).as_string(None)


def _in_ascii(*names: str) -> sql.Composable:
    """An identifier that is the same in whatever encoding the statement is read."""
    return sql.SQL(".").join(sql.SQL(_quoted(name)) for name in names)


def _quoted(name: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    if name.isascii():
        return quoted
    return "U&" + "".join(c if c.isascii() and c != "\\" else f"\\+{ord(c):06x}" for c in quoted)


class LiveDatabase:
    """One database of a server, for reading. Its user must be allowed to read all of it.

    :param client: whose psql reads.
    :param encoding: of the archive's data, so that both sides are the same bytes.
    :param float_digits: the dump's ``extra_float_digits``.
    :param quote_all_identifiers: the dump's; it shows in the text of ``regclass`` and the like.
    """

    def __init__(
        self,
        connection: ConnectionParams,
        client: Client,
        *,
        encoding: str = "UTF8",
        float_digits: int = 3,
        quote_all_identifiers: bool = False,
        cancel: Cancel | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        # A database in SQL_ASCII has no encoding that psycopg could take from it.
        self.connection = replace(connection, keywords={**connection.keywords, "client_encoding": "UTF8"})
        self._client = client
        self._encoding = encoding
        self._float_digits = float_digits
        self._quote_all = quote_all_identifiers
        self._relations: dict[tuple[str, str], Relation] | None = None
        self._cancel = cancel
        self._on_line = on_line

    def relations(self) -> dict[tuple[str, str], Relation]:
        """Tables, views and sequences by schema and name; the system's too. Asked for once."""
        if self._relations is None:
            with self.connection.connect() as session:
                rows: list[Any] = session.execute(_RELATIONS).fetchall()
            self._relations = {
                (schema, name): Relation(schema, name, kind, extension, frozenset(columns), populated)
                for schema, name, kind, extension, columns, populated in rows
            }
        return self._relations

    def read(self, tables: Sequence[Rows] | Sequence[Count]) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The index of each table in turn, and its rows as COPY's text in pieces that may end anywhere.

        :raises ToolError: psql failed: a table that is not there, no right to read it, the connection lost.
        """
        session = [line.format(encoding=f"'{self._encoding}'", float_digits=self._float_digits) for line in SESSION]
        if self._quote_all:
            session.append("SET quote_all_identifiers = on")
        script = [f"{line};" if "\\g" not in line else line for line in session]
        asked: Sequence[Rows | Count] = tables
        # SQL_ASCII takes bytes for what they are, and knows nothing of Unicode escapes.
        identifier = sql.Identifier if self._encoding in ("UTF8", "SQL_ASCII") else _in_ascii
        for number, rows in enumerate(asked):
            script += [f"\\echo COPY t{number} FROM stdin;", rows.statement(identifier), r"\echo '\\.'"]
        with client_environment(self.connection) as env:
            process = ToolProcess(
                [
                    self._client.tool("psql"),
                    "--no-psqlrc",
                    "--quiet",
                    "--no-password",
                    "--set=ON_ERROR_STOP=1",
                    "--file=-",
                ],
                # psql reads its script in the encoding that PGCLIENTENCODING names; the data's is set in the script.
                env={**env, "PGCLIENTENCODING": "UTF8"},
                cancel=self._cancel,
                on_line=self._on_line,
                stdin=io.BytesIO("\n".join([*script, ""]).encode("utf-8", "surrogateescape")),
            )
            with process:
                for event in SqlLexer(process.stdout):
                    if isinstance(event, CopyData):
                        yield int(event.statement.text.split()[1][1:]), event.chunks()

    def sequences(self, names: Sequence[tuple[str, str]]) -> Iterator[SequenceValue]:
        """Their values as pg_dump would set them."""
        with self.connection.connect() as session:
            for schema, name in names:
                query = sql.SQL(_SEQUENCE).format(sql.Identifier(schema, name))
                row: Any = session.execute(query).fetchone()
                yield SequenceValue(schema, name, row[0], row[1])

    def large_objects(self) -> LargeObjects:
        """All of them. Reads pg_largeobject, which takes a superuser."""
        found = LargeObjects()
        with self.connection.connect(autocommit=False) as session, session.cursor("large_objects", binary=True) as rows:
            (block,) = session.execute("select pg_catalog.current_setting('block_size')::int / 4").fetchone() or (2048,)
            page_size = int(str(block))
            current, size, content = None, 0, hashlib.sha256()
            rows.execute(_LARGE_OBJECTS)
            rows.itersize = 500
            for oid, page, data in _typed(rows):
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


def _typed(rows: Any) -> Iterator[tuple[int, int | None, bytes]]:
    yield from rows
