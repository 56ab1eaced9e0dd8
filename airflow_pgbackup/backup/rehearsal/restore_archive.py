"""Restore an archive in a rehearsal, with pg_restore."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_pgbackup.backup.counters import RestoreCounter, restore_totals
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.provisioning import lacks_locale
from airflow_pgbackup.backup.rehearsal.restore_steps import SKIPPED_FOREIGN, SKIPPED_PUBLIC, CopyRestore, RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.errors import DeadlineExceeded, ToolError, ToolKilled
from airflow_pgbackup.postgres.archive.toc import Toc, TocEntry
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.database_locale import tablespace
from airflow_pgbackup.postgres.definitions.event_triggers import fires_event_triggers
from airflow_pgbackup.postgres.definitions.filling_order import depends_on_order
from airflow_pgbackup.postgres.definitions.foreign_rows import foreign_row_entries
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.schemas import schemas_missing_from
from airflow_pgbackup.processors import usable_processors

NOT_CREATED = "settings, privileges and comment of the database were not rehearsed: the dump did not create the copy"
_ON_LOGIN = re.compile(r' ON "?login"?\s+(?:WHEN|EXECUTE) ')


class ArchiveRestore(CopyRestore):
    """Restores an archive.

    :param toc: its table of contents.
    """

    def __init__(self, dump: RehearsedDump, server: RehearsalServer, toc: Toc) -> None:
        extensions = any(entry.kind == "EXTENSION" for entry in toc.entries)
        super().__init__(
            dump,
            server,
            schemas_missing_from(toc.entries),
            extensions=extensions,
            fires_event_triggers=fires_event_triggers(toc.entries),
        )
        self._database = toc.database
        self._entries = toc.entries
        self.copy.database = toc.database
        self.copy.entries = toc.entries
        self._properties = DatabaseProperties.of_entries(toc.entries)
        self._has_database = any(entry.kind == "DATABASE" for entry in toc.entries)
        self._lacks_locale = False

    def run(self) -> RestoredCopy:
        """Restore, in parallel if possible.

        :raises ToolError, NotProven: it failed.
        """
        needs = Requirements.of_entries(self._entries)
        own = self._properties.create and tablespace(self._properties.create)
        # A scratch server may lack it. But what is in pg_default explicitly is so only where that is not the default.
        if own and (self.server.keeps_database_name or "pg_default" in needs.tablespaces):
            needs.tablespaces.add(own)
        self.server.provide(needs)
        for entry in self._entries:
            if _creates_public(entry):
                self.copy.skipped.add(entry.dump_id)
                self.copy.notes.append(SKIPPED_PUBLIC)
        if foreign := foreign_row_entries(self._entries):
            self.copy.skipped |= {entry.dump_id for entry in foreign}
            self.copy.notes.append(SKIPPED_FOREIGN)
        if self._create and self._properties.create:
            with session(self.server.params) as connection:
                self._lacks_locale = lacks_locale(connection, self._properties.create)
        jobs = self._jobs()
        try:
            self.copy.seconds = self.with_missing(lambda: self._attempt(jobs))
        except (ToolKilled, DeadlineExceeded):
            raise
        except ToolError as error:
            if jobs == 1:
                raise
            # With several jobs the order differs from the archive's. A CHECK constraint that reads another table, or
            # foreign keys of an extension's tables, can then fail, although pg_restore as most people run it succeeds.
            self.dump.log(f"restoring again with one job, because {jobs} jobs failed: {error.message}")
            self.copy.seconds = self.with_missing(lambda: self._attempt(1))
            self.copy.notes.append(
                f"restores with one job only (without --jobs); error with {jobs} jobs: {error.message}"
            )
        self.note_schemas()
        if self._has_database and not self._create:
            self.copy.created_by_dump = False
            self.copy.notes.append(NOT_CREATED)
        return self.copy

    @property
    def _create(self) -> bool:
        """Whether pg_restore creates the database; not if schemas must be created in it before.

        pg_restore has no option for another locale than the dump's.
        """
        possible = self._has_database and not self.copy.schemas and self.server.keeps_database_name
        return possible and not self._lacks_locale

    def _jobs(self) -> int:
        """Return the number of jobs: by the processors of this process, and by the server's connections."""
        if self.server.params.renew_every is not None:
            # With several jobs, pg_restore connects again after the rows, with the password that it has read before.
            self.copy.notes.append("restored with one job, because the password is a token, which may expire meanwhile")
            return 1
        if any(entry.kind == "EVENT TRIGGER" and _ON_LOGIN.search(entry.definition) for entry in self._entries):
            # With several jobs, pg_restore connects again after it has created the event triggers.
            self.copy.notes.append("restored with one job, because of an event trigger on login")
            return 1
        if self.dump.manifest.artifact.format == "tar" or self.copy.fired_event_triggers:
            return 1
        if depends_on_order(self._entries):
            # Several jobs may succeed where one job, and so a restore, always fails.
            self.copy.notes.append(
                "restored with one job, because rows are checked or computed by functions that read tables, which "
                "several jobs may fill too late"
            )
            return 1
        return max(1, min(usable_processors(), self.server.most_jobs()))

    def _attempt(self, jobs: int) -> None:
        if self._create:
            params = self.server.drop_database(self._database)
        else:
            params = self.create_database(self._database, self._properties.create)
        argv: list[os.PathLike[str] | str] = [self.server.loader.tool("pg_restore"), "--no-password", "--exit-on-error"]
        argv.append("--dbname=")  # pg_restore then uses PGDATABASE, and does not parse it as a connection string
        argv += ["--create"] * self._create + [f"--jobs={jobs}"] * (jobs > 1)
        argv.append("--verbose")  # names each entry when it begins
        entries = [entry for entry in self._entries if entry.dump_id not in self.copy.skipped]
        what = f"restoring {self.dump.manifest.artifact.name}"
        with self._list_file() as listed, self.dump.begin(what, **restore_totals(entries)) as step:
            self.run_tool([*argv, *listed, self.dump.artifact], params, on_line=RestoreCounter(step))

    @contextmanager
    def _list_file(self) -> Iterator[list[str]]:
        """Return ``--use-list`` with a file of the entries to restore, [] if that is all of them."""
        if not self.copy.skipped:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", suffix=".list", dir=self.server.directory) as file:
            os.fchmod(file.fileno(), 0o644)  # pg_restore may run as another user
            # pg_restore reads the number before the semicolon and ignores the rest.
            file.writelines(f"{e.dump_id}; 0 0\n" for e in self._entries if e.dump_id not in self.copy.skipped)
            file.flush()
            yield [f"--use-list={file.name}"]


def _creates_public(entry: TocEntry) -> bool:
    return entry.kind == "SCHEMA" and entry.name == "public" and entry.definition.startswith("CREATE SCHEMA")
