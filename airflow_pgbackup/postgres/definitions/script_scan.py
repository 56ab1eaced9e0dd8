"""A plain dump read through before it is restored: is it whole, and what is in it?

psql restores what is left of a truncated script and succeeds, so all of it is read once before. A script with a command
that pg_dump never writes is refused then, before anything runs; but psql may see more commands than this does, and what
keeps those from running is :mod:`airflow_pgbackup.postgres.psql.guarded` alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.memory_limit import MemoryLimit
from airflow_pgbackup.postgres.archive.script_trailer import ScriptTrailerCheck
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement, is_standard_comment
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, Event, MetaCommand, SqlLexer, Statement
from airflow_pgbackup.postgres.sql.names import NameDecoder, client_encoding, connected_database

_HEAD = b"-- PostgreSQL database dump"
_END = b"-- PostgreSQL database dump complete"
_DUMPED_FROM = re.compile(rb"-- Dumped from database version (\d{1,4})")
_SECTION = 2048  # bytes, an empty one
_PUBLIC = (b"CREATE SCHEMA public;", b'CREATE SCHEMA "public";')


@dataclass
class ScriptSection:
    """What one pg_dump wrote: all of a plain dump, or one database of a cluster's.

    :ivar database: as the script connects to it or creates it; '' where it does neither.
    :ivar about: its statements about the database as a whole.
    :ivar objects: statements that make something; of a section with none and no rows there is nothing to restore.
    :ivar makes_public: has CREATE SCHEMA public.
    """

    database: str = ""
    about: list[DatabaseStatement] = field(default_factory=list)
    objects: int = 0
    tables: int = 0
    rows: int = 0
    makes_public: bool = False
    requirements: Requirements = field(default_factory=Requirements)

    @property
    def properties(self) -> DatabaseProperties:
        return DatabaseProperties.of_statements(self.about)

    @property
    def creates(self) -> bool:
        return any(statement.creates for statement in self.about)

    @property
    def empty(self) -> bool:
        return not self.objects and not self.rows


@dataclass
class ScriptSummary:
    """:ivar globals: statements before the first database: roles, tablespaces. They may hold passwords' verifiers.
    :ivar dumped_from: major version of the dumped server; 0 where it does not say, as one with globals only.
    :ivar new_timeout: has ``SET transaction_timeout``, which servers before 17 do not know.
    :ivar transactions: has BEGIN and COMMIT of its own, as around large objects.
    """

    cluster: bool = False
    globals: list[str] = field(default_factory=list, repr=False)
    sections: list[ScriptSection] = field(default_factory=list)
    dumped_from: int = 0
    new_timeout: bool = False
    transactions: bool = False
    bytes: int = 0

    @property
    def rows(self) -> int:
        return sum(section.rows for section in self.sections)


class SectionTracker:
    """Which section of a script an event belongs to."""

    def __init__(self) -> None:
        self._number = -1
        self._inside = False

    def section_of(self, event: Event) -> int | None:
        """Its number; None between sections. To be called with every event."""
        if isinstance(event, Comment):
            if event.text == _HEAD:
                self._number += 1
                self._inside = True
            elif event.text == _END:
                self._inside = False
                return self._number
        return self._number if self._inside else None


def scan_script(source: Readable) -> ScriptSummary:
    """Read a script to its end.

    :raises VerificationFailed: it is not whole, or holds what pg_dump never writes.
    :raises NotProven: what is to be remembered of it does not fit into a :class:`.MemoryLimit`.
    """
    return _Scan(source).run()


class _Scan:
    def __init__(self, source: Readable) -> None:
        self._lexer = SqlLexer(source)
        self._trailer = ScriptTrailerCheck()
        self._tracker = SectionTracker()
        self._decoder = NameDecoder()
        self._found = ScriptSummary()
        self._memory = MemoryLimit("the script")
        self._connected = ""

    def run(self) -> ScriptSummary:
        for event in self._lexer:
            self._trailer.event(event)
            number = self._tracker.section_of(event)
            if number is not None and number == len(self._found.sections):
                self._memory.take(_SECTION)
                self._found.sections.append(ScriptSection(self._connected))
            self._event(event, None if number is None else self._found.sections[number])
        self._trailer.finish(self._lexer.trailing, self._lexer.offset)
        self._found.cluster = self._trailer.cluster
        self._found.bytes = self._lexer.offset
        return self._found

    def _event(self, event: Event, section: ScriptSection | None) -> None:
        if isinstance(event, Comment):
            if match := _DUMPED_FROM.match(event.text):
                self._found.dumped_from = max(self._found.dumped_from, int(match[1]))
        elif isinstance(event, MetaCommand):
            self._meta_command(event, section)
        elif isinstance(event, CopyData):
            if section:
                section.tables += 1
                section.rows += sum(chunk.count(b"\n") for chunk in event.chunks())
        elif section is None:
            self._note_encoding(event)
            self._memory.take(len(event.text))
            self._found.globals.append(self._decoder.text(event.text))
        else:
            self._note_encoding(event)
            self._statement(event, section)

    def _meta_command(self, event: MetaCommand, section: ScriptSection | None) -> None:
        if event.name == b"connect":
            self._connected = connected_database(event.argument, self._decoder)
            if section and not (section.creates and section.database == self._connected):
                raise VerificationFailed(
                    f"\\connect at byte {event.offset} to database {self._connected!r}, which the dump does not create"
                )

    def _note_encoding(self, statement: Statement) -> None:
        if statement.words[:1] == (b"SET",) and (encoding := client_encoding(statement.text)):
            self._decoder.use(encoding)

    def _statement(self, statement: Statement, section: ScriptSection) -> None:
        first = statement.words[:1]
        if first == (b"INSERT",):
            section.rows += max(statement.groups, 1)
            return
        text = self._decoder.text(statement.text)
        if about := database_statement(text, statement):
            self._memory.take(len(text))
            section.about.append(about)
            if about.creates:
                section.database = about.database
        elif not is_setup(statement) and not is_standard_comment(text):
            section.objects += 1
        self._found.new_timeout |= sets_new_timeout(statement)
        self._found.transactions |= is_transaction(statement)
        section.makes_public |= makes_public(statement)
        names = section.requirements.names
        section.requirements.add(text)
        if section.requirements.names > names:
            self._memory.take(len(text))
        section.requirements.add_locks(statement.words)


def database_statement(text: str, statement: Statement) -> DatabaseStatement | None:
    """The statement, if it is about a database as a whole."""
    if b"DATABASE" not in statement.words and statement.words[:1] != (b"UPDATE",):
        return None
    return DatabaseStatement.parse(text)


def makes_public(statement: Statement) -> bool:
    return statement.text in _PUBLIC


def is_setup(statement: Statement) -> bool:
    """It is about the session, not the database."""
    return statement.words[:1] in ((b"SET",), (b"RESET",)) or b"SET_CONFIG" in statement.words


def sets_new_timeout(statement: Statement) -> bool:
    return statement.words[:2] == (b"SET", b"TRANSACTION_TIMEOUT")


def is_transaction(statement: Statement) -> bool:
    return statement.text in (b"BEGIN;", b"COMMIT;")
