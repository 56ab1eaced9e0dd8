"""Restore a plain dump, of a database or a cluster, in a rehearsal, with psql."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.rehearsal.cluster_globals import ClusterGlobals
from airflow_pgbackup.backup.rehearsal.definitions import open_script
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.provisioning import lacks_locale, with_bootstrap_superuser
from airflow_pgbackup.backup.rehearsal.restore_steps import SKIPPED_FOREIGN, SKIPPED_PUBLIC, CopyRestore, RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import (
    LOCALE_LACKING,
    LOCALE_UNNAMED,
    RehearsalServer,
    create_schemas,
)
from airflow_pgbackup.byte_streams import CountingReader
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.database_locale import in_locale_c, tablespace, without_owner_and_tablespace
from airflow_pgbackup.postgres.definitions.foreign_rows import ForeignRows
from airflow_pgbackup.postgres.definitions.script_scan import CREATE_PUBLIC, ScriptSummary
from airflow_pgbackup.postgres.psql.guarded import guarded
from airflow_pgbackup.postgres.psql.script_filter import sessions
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.sql.lexer import Event
from airflow_pgbackup.wording import parameter


class ScriptRestore(CopyRestore):
    """Restores a plain dump.

    :param summary: of the script.
    """

    def __init__(self, dump: RehearsedDump, server: RehearsalServer, summary: ScriptSummary) -> None:
        sections = [] if summary.cluster else summary.sections
        schemas = {name for section in sections for name in section.schemas.missing()}
        extensions = any(section.requirements.extensions for section in sections)
        fires = any(section.fires_event_triggers for section in summary.sections)
        super().__init__(dump, server, schemas, extensions=extensions, fires_event_triggers=fires)
        self._summary = summary
        # The database of a script that creates it; the options of an adopted dump are not known.
        if created := next((section.database for section in sections if section.creates), None):
            self.copy.script_creates, self.copy.database = True, created
        self._globals = ClusterGlobals(summary.globals if summary.cluster else [])
        self._instead: dict[bytes, bytes] = {}

    def run(self) -> RestoredCopy:
        """Restore.

        :raises ToolError, NotProven: it failed.
        """
        self._check()
        if self._summary.cluster:
            if self._globals.bootstrap:
                self.copy.connection = with_bootstrap_superuser(self.copy.connection, self._globals.bootstrap)
        else:
            for section in self._summary.sections:
                needs, create = section.requirements, section.properties.create
                own = create and tablespace(create)
                self.server.provide(replace(needs, tablespaces=needs.tablespaces | ({own} if own else set())))
        self._replace_locales()
        if self._skips_public:
            self.copy.notes.append(SKIPPED_PUBLIC)
        self.copy.seconds = self.with_missing(self._attempt)
        self.note_schemas()
        return self.copy

    @property
    def _skips_public(self) -> bool:
        """Whether the script creates schema public, which every new database has."""
        return any(section.makes_public and not section.drops_public for section in self._summary.sections)

    def _check(self) -> None:
        """Check that the script can be rehearsed on this server.

        :raises NotProven: it cannot.
        """
        options = self.dump.manifest.options
        dropping = options.get("clean") and not options.get("if_exists")
        if dropping or any(section.drops for section in self._summary.sections):
            raise NotProven(
                "the dump drops objects before it creates them, which fails in an empty database",
                hint=f"Dump with {parameter('if_exists', True)} beside {parameter('clean', True)}, or without it.",
            )
        if self.server.keeps_database_name:
            return
        # The script would connect to a database by its name, which may be another one on a scratch server.
        if self._summary.cluster or any(section.database for section in self._summary.sections):
            raise NotProven(
                "a plain dump that contains the name of its database cannot be rehearsed on a scratch server",
                hint=f"Dump without {parameter('create', True)}, or rehearse in a throwaway server.",
            )

    def _replace_locales(self) -> None:
        """Replace the CREATE DATABASE statements whose locale the server lacks."""
        if not (creations := list(self._creations())):
            return
        checked: dict[str, bool] = {}
        with session(self.copy.connection) as connection:
            for create in creations:
                options = without_owner_and_tablespace(create).rest
                if options not in checked:
                    checked[options] = lacks_locale(connection, create)
                if checked[options]:
                    self.copy.in_locale_c.add(create.database)
                    self.note_locale(create)
                    instead = encoded(in_locale_c(create).about(create.database))
                    self._instead |= {encoded(text): instead for text in create.texts()}

    def _creations(self) -> Iterator[DatabaseStatement]:
        """Yield the CREATE DATABASE statements; pg_dumpall before version 11 writes them among the globals."""
        for section in self._summary.sections:
            yield from (each for each in section.about.found if each.creates)
        for each in map(DatabaseStatement.parse, self._summary.globals):
            if each and each.creates:
                yield each

    def _about_database(self) -> set[bytes]:
        """Return the statements about the database, such as the comment that pg_dump before 11 always writes.

        They name it, and on a scratch server that is a database of somebody else.
        """
        found = (each for section in self._summary.sections for each in section.about.found)
        return {encoded(text) for each in found for text in each.texts()}

    def _attempt(self) -> None:
        params, database = self.copy.connection, self.copy.database
        if database is not None:
            if self.copy.script_creates:
                params = self.server.drop_database(database)
            else:
                params = self.create_database(database, None)
        manifest = self.dump.manifest
        instead = self._globals.replacements | self._instead
        locales = {each.database: "" for each in self._creations()} | dict.fromkeys(
            self.copy.in_locale_c, LOCALE_LACKING
        )
        if self._skips_public:
            instead |= dict.fromkeys(CREATE_PUBLIC, b"")
        if not self.server.keeps_database_name:
            instead |= dict.fromkeys(self._about_database(), b"")
        with (
            open_script(self.dump) as source,
            self.dump.begin(
                f"restoring {manifest.artifact.name}", bytes_total=manifest.source.size_bytes, estimated=True
            ) as step,
        ):
            for name, part in sessions(
                CountingReader(source, step.advance), instead=instead, omits=self._omits(ForeignRows())
            ):
                psql = guarded(self.server.loader, part)
                target = params
                if name is not None:
                    target = self.copy.connection.with_database(os.fsdecode(name))
                    self.server.other_locale = locales.get(target.dbname, LOCALE_UNNAMED)
                    create_schemas(target, sorted(self.copy.schemas))
                self.run_tool(psql.argv, target, psql.stdin, may_start_processes=False)

    def _omits(self, rows: ForeignRows) -> Callable[[Event], bool]:
        def omits(event: Event) -> bool:
            if found := rows.contains(event):
                self.note(SKIPPED_FOREIGN)
            return found

        return omits
