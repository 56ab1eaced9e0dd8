"""Read a script of SQL: rows by table, sequence values and large objects, and whether the script is complete."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.memory_limit import MemoryLimit
from airflow_pgbackup.postgres.archive.script_headers import ScriptHeaderCheck
from airflow_pgbackup.postgres.archive.script_trailer import ScriptTrailerCheck
from airflow_pgbackup.postgres.archive.summary import (
    LARGE_OBJECT_SIZE,
    ArchiveSummary,
    LargeObjects,
    SequenceValue,
    TableDigest,
    TableKey,
)
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, MetaCommand, SqlLexer
from airflow_pgbackup.postgres.sql.names import (
    NameDecoder,
    RowsTarget,
    client_encoding,
    connected_database,
    copy_target,
    insert_target,
    large_object_opened,
    large_object_written,
    refreshed,
    search_path,
    setval,
)
from airflow_pgbackup.postgres.sql.statement import TEXT_LIMIT, Statement, excerpt

_SERVER_VERSION = b"-- Dumped from database version "
_DUMP_VERSION = b"-- Dumped by pg_dump version "
_CACHED_TARGETS = 256


@dataclass(frozen=True, slots=True)
class CopyBlock:
    """One ``COPY ... FROM stdin;`` of a script.

    :param columns: as the statement lists them; ``()`` without a list.
    :param chunks: returns the data in pieces that may end anywhere; once, and before the next block is requested.
    """

    database: str | None
    schema: str
    name: str
    columns: tuple[str, ...]
    chunks: Callable[[], Iterator[bytes]]

    @property
    def key(self) -> TableKey:
        return (self.database, self.schema, self.name)


class ScriptReader:
    """Read one script, once.

    :param summary: receives what the script contains.
    :param entries: the table of contents that pg_restore made the script from. Each of its ``TABLE DATA`` entries must
        have its own COPY in the script, in this order: pg_restore joins a member without an end marker to the next one,
        whose COPY statement then becomes rows of the first.
    """

    def __init__(self, source: Readable, summary: ArchiveSummary, entries: Sequence[TocEntry] | None = None) -> None:
        self._lexer = SqlLexer(source)
        self._summary = summary
        self._trailer = ScriptTrailerCheck()
        self._decoder = NameDecoder()
        self._headers = ScriptHeaderCheck(self._decoder)
        self._database: str | None = None
        self._search_path = ""
        self._expected = None if entries is None else _ExpectedData(entries)
        self._inserts: dict[TableKey, TableDigest] = {}
        self._targets: dict[bytes, RowsTarget | None] = {}
        self._memory = MemoryLimit("the dump")
        self._databases: set[str] = set()
        self._large_objects: LargeObjects | None = None
        self._large_object: tuple[int, _SizedHash] | None = None

    def blocks(self) -> Iterator[CopyBlock]:
        """Yield COPY blocks. Everything else goes into the summary, which is complete at the end of the iteration.

        :raises VerificationFailed: the script is truncated, or contains what pg_dump never writes.
        :raises NotProven: it names more objects than fit into a :class:`.MemoryLimit`.
        """
        for event in self._lexer:
            self._trailer.event(event)
            self._headers.event(event)
            if isinstance(event, CopyData):
                yield self._copy(event)
            elif isinstance(event, Statement):
                self._statement(event)
            elif isinstance(event, Comment):
                self._comment(event.text)
            elif event.name == b"connect":
                self._connect(event)
        self._trailer.finish(self._lexer.trailing, self._lexer.offset)
        self._headers.finish()
        self._end_large_object()
        if self._expected:
            self._expected.finish(self._summary, self._inserts)
        self._summary.tables += self._inserts.values()
        self._summary.cluster = self._trailer.cluster
        self._summary.bytes = self._lexer.offset

    def _copy(self, data: CopyData) -> CopyBlock:
        text = data.statement.text
        self._memory.take(len(text))
        entry = self._expected.next(self._decoder.text(text)) if self._expected else None
        target = copy_target(text, self._decoder)
        schema = target.schema or self._search_path or (entry and entry.schema) or ""
        return CopyBlock(self._database, schema, target.name, target.columns or (), data.chunks)

    def _comment(self, text: bytes) -> None:
        # In a cluster's dump the last one counts; all are of the same server.
        if text.startswith(_SERVER_VERSION):
            self._summary.server_version = self._decoder.text(text.removeprefix(_SERVER_VERSION))
        elif text.startswith(_DUMP_VERSION):
            self._summary.dump_version = self._decoder.text(text.removeprefix(_DUMP_VERSION))

    def _connect(self, command: MetaCommand) -> None:
        database = connected_database(command.argument, self._decoder)
        if database not in self._databases:
            self._memory.take(len(command.argument))
            self._databases.add(database)
            self._summary.databases.append(database)
        if self._trailer.cluster:
            self._end_large_object()
            self._database = database
            self._large_objects = None

    def _statement(self, statement: Statement) -> None:
        first = statement.words[:1]
        if first == (b"INSERT",):
            self._insert(statement)
        elif first == (b"SELECT",):
            self._select(statement)
        elif first == (b"SET",):
            self._set(statement.text)
        elif first == (b"REFRESH",):
            self._memory.take(len(statement.text))
            schema, name = refreshed(statement.text, self._decoder)
            self._summary.refreshed.add((self._database, schema or self._search_path, name))

    def _insert(self, statement: Statement) -> None:
        prefix = statement.text[: statement.values or None]
        if prefix not in self._targets:
            if len(self._targets) >= _CACHED_TARGETS:
                self._targets.clear()
            self._targets[prefix] = insert_target(statement.text, self._decoder)
        target = self._targets[prefix]
        if target is None:
            return
        schema = target.schema or self._search_path
        key = (self._database, schema, target.name)
        table = self._inserts.get(key)
        if table is None:
            self._memory.take(len(prefix))
            table = TableDigest(schema, target.name, target.columns, 0, 0, None, 0, "inserts", self._database)
        # INSERT ... DEFAULT VALUES, of a table without columns, has no parentheses.
        rows = table.rows + max(statement.groups, 1)
        self._inserts[key] = replace(table, rows=rows, bytes=table.bytes + statement.size)

    def _select(self, statement: Statement) -> None:
        text = statement.text
        self._decoder.standard_strings = self._lexer.standard_strings
        if (data := large_object_written(text, self._decoder)) is not None:
            if self._large_object is None or statement.size > TEXT_LIMIT:
                raise VerificationFailed(f"data of a large object without its lo_open: {excerpt(text)}")
            self._large_object[1].update(data)
        elif (oid := large_object_opened(text)) is not None:
            self._end_large_object()
            self._large_object = (oid, _SizedHash())
        elif value := setval(text, self._decoder):
            self._memory.take(len(text))
            schema, name, last_value, is_called = value
            self._summary.sequences.append(
                SequenceValue(schema or self._search_path, name, last_value, is_called, self._database)
            )
        else:
            self._set(text)

    def _set(self, text: bytes) -> None:
        if (path := search_path(text, self._decoder)) is not None:
            self._search_path = path
        elif encoding := client_encoding(text):
            self._decoder.use(encoding)
            # pg_dumpall sets that of the next database twice: before CREATE DATABASE and after \connect.
            self._summary.encodings.setdefault(self._database, encoding)

    def _end_large_object(self) -> None:
        if self._large_object is None:
            return
        if self._large_objects is None:
            self._large_objects = LargeObjects(self._database)
            self._summary.large_objects.append(self._large_objects)
        self._memory.take(LARGE_OBJECT_SIZE, overhead=0)
        oid, content = self._large_object
        self._large_objects.add(oid, content.size, content.digest())
        self._large_object = None


class _SizedHash:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> bytes:
        return self._hash.digest()


class _ExpectedData:
    """The data that a table of contents announces, compared with what the script has."""

    def __init__(self, entries: Sequence[TocEntry]) -> None:
        data = [entry for entry in entries if entry.kind == "TABLE DATA"]
        self._copies = [entry for entry in data if entry.copy_statement]
        self._inserts = [entry for entry in data if not entry.copy_statement]
        self._entries = entries
        self._done = 0

    def next(self, statement: str) -> TocEntry:
        """Return the entry of the next COPY statement.

        :raises VerificationFailed: the statement is not that of the next entry.
        """
        entry = self._copies[self._done] if self._done < len(self._copies) else None
        if entry is None or (entry.copy_statement or "").strip() != statement.strip():
            before = f"after the data of {self._copies[self._done - 1].label}" if self._done else "at the first COPY"
            raise VerificationFailed(
                f"data mismatch {before}: expected {entry.label if entry else 'no more data'}, "
                f"found {excerpt(statement.encode())}"
            )
        self._done += 1
        return entry

    def finish(self, summary: ArchiveSummary, inserted: dict[TableKey, TableDigest]) -> None:
        """Check that no data is missing.

        :param inserted: receives the tables dumped as INSERT that are empty.
        :raises VerificationFailed: data of a table or of large objects is missing.
        """
        missing = self._copies[self._done :]
        if missing:
            raise VerificationFailed(
                f"the data of {len(missing)} of {len(self._copies)} tables is missing, first {missing[0].label}; "
                "the data before it may lack its end marker"
            )
        for entry in self._inserts:  # an empty table has no INSERT
            if not entry.definition.startswith("-- load via partition root"):
                schema = entry.schema or ""
                empty = TableDigest(schema, entry.name, None, 0, 0, None, 0, "inserts")
                inserted.setdefault(empty.key, empty)
        check_large_objects(self._entries, summary)


def check_large_objects(entries: Sequence[TocEntry], summary: ArchiveSummary) -> None:
    """Check that the data has as many large objects as the table of contents announces.

    :raises VerificationFailed: it has not.
    """
    promised = _promised_large_objects(entries)
    found = sum(objects.count for objects in summary.large_objects)
    if promised is not None and found != promised:
        raise VerificationFailed(
            f"large objects with data: found {found}, expected {promised} by the table of contents"
        )


def _promised_large_objects(entries: Sequence[TocEntry]) -> int | None:
    """Return the number of large objects that should have data; None if the archive has no data of large objects."""
    if not any(entry.kind == "BLOBS" for entry in entries):
        return None
    count = 0
    for entry in entries:
        if entry.kind == "BLOB":
            count += 1
        elif entry.kind == "BLOB METADATA":
            count += len(entry.definition.split())
    return count or None
