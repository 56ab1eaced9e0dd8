"""The restore of a rehearsal: PostgreSQL's own tools, stopping at the first error, into a server of nobody else's."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from airflow_pgbackup.backup.databases.extensions import available_versions, version_differences
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.rehearsal import throwaway
from airflow_pgbackup.backup.rehearsal.cluster_globals import ClusterGlobals
from airflow_pgbackup.backup.rehearsal.definitions import Definitions, open_script, read_definitions
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.backup.rehearsal.verdict import judge
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import ConnectError, DeadlineExceeded, NotProven, ToolError, ToolKilled
from airflow_pgbackup.postgres.archive.toc import Toc, TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSummary
from airflow_pgbackup.postgres.psql.guarded import guarded
from airflow_pgbackup.postgres.psql.script_filter import sessions
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.repository.manifest import Manifest

_ROLE_MISSING = re.compile(r'role "(.+)" does not exist')
_ROLE_ATTEMPTS = 20

# Of roles that a scratch server has, with fewer rights than at home: owners of event triggers are superusers.
_ROLE_TOO_WEAK = re.compile(r"must be (?:a )?superuser|permission denied", re.IGNORECASE)
_ON_LOGIN = re.compile(r' ON "?login"?\s+(?:WHEN|EXECUTE) ')
NAME_OF_ITS_OWN = "the copy had a name of its own: settings, privileges and comment of the database were not rehearsed"
_BUILT_IN_SCHEMAS = frozenset({None, "", "public", "pg_catalog", "information_schema"})


@dataclass
class RestoredCopy:
    """What was restored.

    :ivar server: the connection to look at the copy with.
    :ivar database: its name there; None for a cluster, whose databases have their own names.
    :ivar entries: the archive's table of contents; empty for plain dumps.
    :ivar left_out: dump ids of entries that were handled by name.
    """

    server: ConnectionParams
    database: str | None
    entries: list[TocEntry] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def restore_copy(
    artifact: Path,
    manifest: Manifest,
    place: RehearsalServer,
    *,
    deadline: float,
    cancel: Cancel,
    log: Callable[[str], None],
    definitions: Definitions | None = None,
) -> RestoredCopy:
    """Restore the artifact there.

    :param definitions: of the artifact, where somebody has read them.
    :raises NotProven: this server lacks what the database needs, or the restore stopped for another reason that need
        not be the backup's.
    :raises VerificationFailed: the artifact does not restore.
    """
    run = _Run(artifact, manifest, place, place.params, deadline, cancel, log)
    definitions = definitions or read_definitions(artifact, manifest, cancel=cancel, deadline=deadline)
    try:
        if definitions.toc:
            return run.archive(definitions.toc)
        return run.plain(definitions.script or ScriptSummary())
    except (DeadlineExceeded, ToolKilled):
        raise
    except ToolError as error:
        text = "\n".join(error.stderr)
        if not place.own_names and (match := _ROLE_TOO_WEAK.search(text)):
            line = next(line for line in error.stderr if match[0] in line)
            raise NotProven(
                f"{place.label} has a role of the dump that may not own what it owns in it: {line.strip()}",
                hint="make it a superuser there, or drop it, so that a stand-in takes its place",
            ) from None
        raise judge(error, place.label, place.sqlstate, _other_versions(manifest, place, definitions)) from None


def _other_versions(manifest: Manifest, place: RehearsalServer, definitions: Definitions) -> list[str]:
    """A line for each extension of the dump that the server has in another version than the source."""
    try:
        with session(place.params) as connection:
            here = available_versions(connection)
    except (ConnectError, psycopg.Error):  # it is gone, which is found out elsewhere
        return []
    return version_differences(manifest.source.extensions, here, names=definitions.extensions)


@dataclass
class _Run:
    artifact: Path
    manifest: Manifest
    place: RehearsalServer
    server: ConnectionParams
    deadline: float
    cancel: Cancel
    log: Callable[[str], None]

    # -- archives

    def archive(self, toc: Toc) -> RestoredCopy:
        entries = toc.entries
        loaded = RestoredCopy(self.server, toc.database, entries)
        self.place.provide(Requirements.of_entries(entries))
        made = {e.name for e in entries if e.kind == "SCHEMA"}
        schemas = {e.schema for e in entries if e.schema not in _BUILT_IN_SCHEMAS} - made
        for entry in entries:
            if entry.kind == "SCHEMA" and entry.name == "public" and entry.definition.startswith("CREATE SCHEMA"):
                loaded.left_out.add(entry.dump_id)
                loaded.notes.append("schema public is there in every new database: its CREATE SCHEMA was left out")
        makes_it = any(e.kind == "DATABASE" for e in entries)
        create = makes_it and not schemas and self.place.own_names
        if makes_it and not self.place.own_names:
            loaded.notes.append(NAME_OF_ITS_OWN)
        if schemas:
            loaded.notes.append(
                f"schemas that the dump uses and does not make were made empty: {', '.join(sorted(map(str, schemas)))}"
            )
        argv: list[os.PathLike[str] | str] = [self.place.loader.tool("pg_restore"), "--no-password", "--exit-on-error"]
        argv.append("--dbname=")  # and PGDATABASE, which is literal
        if any(e.kind == "EVENT TRIGGER" and _ON_LOGIN.search(e.definition) for e in entries):
            # With more than one it connects once more after the event triggers, which is then one login too many.
            loaded.notes.append("restored by one job only, for the sake of an event trigger on login")
            jobs = 1
        else:
            jobs = 1 if self.manifest.artifact.format == "tar" else self._jobs()
        if create:
            argv.append("--create")

        def attempt(jobs: int) -> None:
            if create:
                where = self.place.cleared(toc.database)
            else:
                properties = DatabaseProperties.of_entries(entries)
                where = self._fresh(toc.database, sorted(map(str, schemas)), properties.create)
                loaded.database = where.dbname
            with self._list_file(loaded) as listed:
                self._tool([*argv, *[f"--jobs={jobs}"] * (jobs > 1), *listed, self.artifact], where, None)

        loaded.seconds = self._serially_if_need_be(attempt, jobs, loaded)
        return loaded

    def _jobs(self) -> int:
        """By the processors that this process may use, and the connections of the server."""
        return max(1, min(len(os.sched_getaffinity(0)), self.place.most_jobs()))

    def _serially_if_need_be(self, attempt: Callable[[int], None], jobs: int, loaded: RestoredCopy) -> float:
        """Restore in parallel; where that fails once more with one job, as most people do, before there is a verdict.

        A CHECK that reads another table, say, or an extension's tables with foreign keys restore in the order of the
        archive only.
        """
        try:
            return self._with_roles(lambda: attempt(jobs))
        except (ToolKilled, DeadlineExceeded):
            raise
        except ToolError as error:
            if jobs == 1:
                raise
            self.log(f"restoring again with one job: {jobs} jobs failed: {error.message}")
            seconds = self._with_roles(lambda: attempt(1))
            loaded.notes.append(f"restores with one job only (without --jobs); with {jobs} jobs: {error.message}")
            return seconds

    @contextmanager
    def _list_file(self, loaded: RestoredCopy) -> Iterator[list[str]]:
        """``--use-list``, only where something is left out: pg_restore takes the numbers and reads no further."""
        if not loaded.left_out:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", suffix=".list", dir=self.place.folder) as file:
            os.fchmod(file.fileno(), 0o644)  # pg_restore may be another user
            file.writelines(f"{e.dump_id}; 0 0\n" for e in loaded.entries if e.dump_id not in loaded.left_out)
            file.flush()
            yield [f"--use-list={file.name}"]

    # -- plain dumps

    def plain(self, contents: ScriptSummary) -> RestoredCopy:
        options, database = self.manifest.options, self.manifest.series.database
        if options.get("clean") and not options.get("if_exists"):
            raise NotProven(
                "the dump drops objects before it makes them, which fails where there are none yet",
                hint="dump with if_exists=True beside clean=True, or without clean",
            )
        self._check_names(contents)
        loaded = RestoredCopy(self.server, database)
        head = ClusterGlobals([])
        if contents.cluster:
            head = ClusterGlobals(contents.globals)
            if head.bootstrap:
                loaded.server = self.server = throwaway.with_bootstrap_superuser(self.server, head.bootstrap)
        else:
            for section in contents.sections:
                self.place.provide(section.requirements)

        def attempt() -> None:
            where = self.server
            if database is not None:
                if options.get("create"):
                    where = self.place.cleared(database)
                else:
                    where = self._fresh(database, [], None)
                    loaded.database = where.dbname
            with open_script(self.artifact, self.manifest) as source:
                for name, part in sessions(source, instead=head.instead):
                    psql = guarded(self.place.loader, part)
                    there = where if name is None else self.server.with_database(os.fsdecode(name))
                    self._tool(psql.argv, there, psql.stdin, may_start_processes=False)

        loaded.seconds = self._with_roles(attempt)
        return loaded

    # -- both

    def _with_roles(self, attempt: Callable[[], None]) -> float:
        """Try; make a role that is missed, and try again. Seconds of the try that went through."""
        for _ in range(_ROLE_ATTEMPTS):
            start = time.monotonic()
            try:
                attempt()
            except ToolError as error:
                missed = {match[1] for match in map(_ROLE_MISSING.search, error.stderr) if match}
                if not missed or self.manifest.series.database is None:
                    raise
                self.log(f"the dump also speaks of role {', '.join(sorted(missed))}: made a stand-in, once more")
                self.place.make_roles(missed)
                continue
            return time.monotonic() - start
        raise NotProven(f"after {_ROLE_ATTEMPTS} attempts the dump still misses roles")

    def _fresh(self, database: str, schemas: list[str], create: DatabaseStatement | None) -> ConnectionParams:
        return self.place.fresh(database, self.manifest.source.encoding or "UTF8", schemas, create)

    def _check_names(self, contents: ScriptSummary) -> None:
        """:raises NotProven: the script goes to a database by name, which here could be anybody's."""
        if self.place.own_names:
            return
        if contents.cluster or any(section.database for section in contents.sections):
            raise NotProven(
                "a plain dump that names its database itself is not for a scratch server",
                hint="dump without create=True, or rehearse it in a throwaway server",
            )

    def _tool(
        self,
        argv: Sequence[os.PathLike[str] | str],
        where: ConnectionParams,
        stdin: Readable | None,
        *,
        may_start_processes: bool = True,
    ) -> None:
        with client_environment(where) as env:
            # The database's own settings are restored before its tables, and are not for its restore.
            pinned = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off "
            pinned += self.place.session_options
            env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} {pinned}".strip()
            with ToolProcess(
                argv,
                env=env,
                cancel=self.cancel,
                deadline=self.deadline,
                stdin=stdin,
                stdout="devnull",
                within=self.place.within(Path(argv[0]).parent, self.artifact),
                may_start_processes=may_start_processes,
            ) as process:
                process.wait()
