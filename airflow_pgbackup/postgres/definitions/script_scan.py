"""Scan a plain dump before it is restored: prove that it is complete, and find what it contains and requires.

psql restores what is left of a truncated script and succeeds, so the complete script is read first. A script with a
psql command that pg_dump never writes is refused before anything runs. psql may still see more commands than this scan
does; only :mod:`airflow_pgbackup.postgres.psql.guarded` keeps those from running.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.memory_limit import MemoryLimit
from airflow_pgbackup.postgres.archive.script_headers import object_header
from airflow_pgbackup.postgres.archive.script_trailer import ScriptTrailerCheck
from airflow_pgbackup.postgres.definitions.database import (
    DatabaseProperties,
    DatabaseStatement,
    DatabaseStatements,
    is_standard_comment,
)
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.schemas import SchemaUse
from airflow_pgbackup.postgres.definitions.style import DumpStyle
from airflow_pgbackup.postgres.definitions.transaction_control import controls_transaction
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, Event, MetaCommand, SqlLexer, Statement
from airflow_pgbackup.postgres.sql.names import NameDecoder, client_encoding, connected_database
from airflow_pgbackup.postgres.sql.statement import excerpt

_HEAD = b"-- PostgreSQL database dump"
_END = b"-- PostgreSQL database dump complete"
_DUMPED_FROM = re.compile(rb"-- Dumped from database version (\d{1,4})")
_DUMPED_BY = re.compile(rb"-- Dumped by pg_dump version (\d{1,4})")
_SECTION = 2048  # bytes of an empty section in memory
CREATE_PUBLIC = (b"CREATE SCHEMA public;", b'CREATE SCHEMA "public";')
_DROP_PUBLIC = re.compile(rb'DROP SCHEMA (?:IF EXISTS )?"?public"?;')


@dataclass
class ScriptSection:
    """The output of one pg_dump: a plain dump, or one database in a dump of a cluster.

    :ivar database: that the script connects to or creates; '' if it does neither.
    :ivar about: statements about the database itself.
    :ivar objects: number of statements that create or alter objects.
    :ivar tables: number of COPY statements.
    :ivar makes_public: the section has CREATE SCHEMA public.
    :ivar public_owner: the role that does it, with ``--use-set-session-authorization``.
    :ivar drops_public: it has DROP SCHEMA public before.
    :ivar transaction: what is wrong with its first statement that begins or ends a transaction, and that pg_dump never
        writes; '' if it has none.
    :ivar drops: it drops objects in the database without IF EXISTS.
    :ivar event_triggers: it creates event triggers.
    :ivar fires_event_triggers: it fills materialized views after that, which fires them.
    :ivar schemas: those that its objects use.
    """

    database: str = ""
    about: DatabaseStatements = field(default_factory=DatabaseStatements)
    objects: int = 0
    tables: int = 0
    rows: int = 0
    makes_public: bool = False
    public_owner: str | None = None
    drops_public: bool = False
    drops: bool = False
    event_triggers: bool = False
    fires_event_triggers: bool = False
    transaction: str = ""
    schemas: SchemaUse = field(default_factory=SchemaUse)
    requirements: Requirements = field(default_factory=Requirements)

    @property
    def properties(self) -> DatabaseProperties:
        return DatabaseProperties.of_statements(self.about.found, owner=self.about.creator)

    @property
    def creates(self) -> bool:
        """The section has CREATE DATABASE."""
        return any(statement.creates for statement in self.about.found)

    def check_single_transaction(self) -> None:
        """Check that the section can run in a single transaction.

        :raises VerificationFailed: it would end the transaction itself.
        """
        if self.transaction:
            raise VerificationFailed(self.transaction)

    @property
    def empty(self) -> bool:
        """There is nothing to restore."""
        return not self.objects and not self.rows


@dataclass
class ScriptSummary:
    """The contents of a script.

    :ivar cluster: pg_dumpall wrote it.
    :ivar globals: statements before the first database: roles, tablespaces. They may contain password hashes.
    :ivar dumped_from: major version of the dumped server; 0 if the script has none, as with globals only.
    :ivar dumped_by: major version of pg_dump; 0 as with `dumped_from`.
    :ivar style: how it is written.
    :ivar bytes: size of the script.
    """

    cluster: bool = False
    globals: list[str] = field(default_factory=list, repr=False)
    sections: list[ScriptSection] = field(default_factory=list)
    dumped_from: int = 0
    dumped_by: int = 0
    style: DumpStyle = field(default_factory=DumpStyle)
    bytes: int = 0

    @property
    def rows(self) -> int:
        return sum(section.rows for section in self.sections)


class SectionTracker:
    """Find the section of a script that an event belongs to."""

    def __init__(self) -> None:
        self._number = -1
        self._inside = False

    def section_of(self, event: Event) -> int | None:
        """Return the number of the section; None between sections. Call it with every event, in order."""
        if isinstance(event, Comment):
            if event.text == _HEAD:
                self._number += 1
                self._inside = True
            elif event.text == _END:
                self._inside = False
                return self._number
        return self._number if self._inside else None


def scan_script(source: Readable) -> ScriptSummary:
    """Read a script to its end, and return what it contains.

    :raises VerificationFailed: the script is truncated, or contains what pg_dump never writes.
    :raises NotProven: it names more objects than fit into a :class:`.MemoryLimit`.
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
        self._lexer.settings_before(event)  # raises an error here rather than during the restore
        if isinstance(event, Comment):
            if match := _DUMPED_FROM.match(event.text):
                self._found.dumped_from = max(self._found.dumped_from, int(match[1]))
            elif match := _DUMPED_BY.match(event.text):
                self._found.dumped_by = max(self._found.dumped_by, int(match[1]))
            elif section and (header := object_header(self._decoder.text(event.text))):
                self._found.style.add_owner(header[3])
                self._add_names(section, header[2] or "", section.schemas.comment)
        elif isinstance(event, MetaCommand):
            if section:
                section.about.add_other()
            self._meta_command(event, section)
        elif isinstance(event, CopyData):
            if section:
                section.about.add_other()
                section.tables += 1
                section.rows += sum(chunk.count(b"\n") for chunk in event.chunks())
        elif section is None:
            self._note_encoding(event)
            self._memory.take(len(event.text))
            text = self._decoder.text(event.text)
            self._found.style.add(text)
            self._found.globals.append(text)
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
            section.about.add_other()
            section.rows += max(statement.groups, 1)
            return
        text = self._decoder.text(statement.text)
        self._found.style.add(text)
        about = database_statement(text, statement)
        section.about.add(text, about)
        if about:
            self._memory.take(len(text))
            if about.creates:
                section.database = about.database
        elif not is_setup(statement) and not is_standard_comment(text):
            section.objects += 1
        section.transaction = section.transaction or _foreign_transaction(statement)
        if makes_public(statement):
            section.makes_public, section.public_owner = True, section.about.session
        section.drops_public |= drops_public(statement)
        section.event_triggers |= statement.words[:3] == (b"CREATE", b"EVENT", b"TRIGGER")
        section.fires_event_triggers |= section.event_triggers and first == (b"REFRESH",)
        section.drops |= not about and first == (b"DROP",) and b"EXISTS" not in statement.words
        self._add_names(section, text, section.requirements.add, section.schemas.statement)
        section.requirements.add_locks(statement.words)

    def _add_names(self, section: ScriptSection, text: str, *adding: Callable[[str], None]) -> None:
        """Take names from a text, which counts if it has new ones."""
        known = section.requirements.names + section.schemas.names
        for add in adding:
            add(text)
        if section.requirements.names + section.schemas.names > known:
            self._memory.take(len(text))


def database_statement(text: str, statement: Statement) -> DatabaseStatement | None:
    """Return the statement if it is about a database itself; otherwise None.

    :param text: of the statement, decoded.
    """
    if b"DATABASE" not in statement.words and statement.words[:1] != (b"UPDATE",):
        return None
    return DatabaseStatement.parse(text)


def makes_public(statement: Statement) -> bool:
    """Return whether a statement is CREATE SCHEMA public."""
    return statement.text in CREATE_PUBLIC


def drops_public(statement: Statement) -> bool:
    """Return whether a statement is DROP SCHEMA public."""
    return _DROP_PUBLIC.match(statement.text) is not None


def is_setup(statement: Statement) -> bool:
    """Return whether a statement changes the session only."""
    return statement.words[:1] in ((b"SET",), (b"RESET",)) or b"SET_CONFIG" in statement.words


def sets_new_timeout(statement: Statement) -> bool:
    """Return whether a statement sets ``transaction_timeout``, which servers before 17 do not know."""
    return statement.words[:2] == (b"SET", b"TRANSACTION_TIMEOUT")


def is_transaction(statement: Statement) -> bool:
    """Return whether a statement is the BEGIN or COMMIT that pg_dump writes around large objects."""
    return statement.text in (b"BEGIN;", b"COMMIT;")


def skipped_transaction(statement: Statement) -> bool:
    """Return whether a script that runs in a single transaction must skip a statement, as :func:`is_transaction`.

    :raises VerificationFailed: another statement that begins or ends a transaction.
    """
    if wrong := _foreign_transaction(statement):
        raise VerificationFailed(wrong)
    return is_transaction(statement)


def _foreign_transaction(statement: Statement) -> str:
    """Return what is wrong with a statement that begins or ends a transaction, unless pg_dump writes it; else ''."""
    if is_transaction(statement) or not controls_transaction(statement):
        return ""
    return f"{excerpt(statement.text)!r} at byte {statement.offset} of the script, which pg_dump never writes"
