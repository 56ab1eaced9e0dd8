"""The restore of a rehearsal: PostgreSQL's own tools, stopping at the first error, into a server of nobody else's."""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql

from airflow_pgbackup.backup import rehearsal_server
from airflow_pgbackup.backup.rehearsal_head import ClusterHead, FittedScript
from airflow_pgbackup.errors import DeadlineExceeded, NotProven, ToolError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.cancel import Cancel
from airflow_pgbackup.postgres.clients import Client
from airflow_pgbackup.postgres.compressed import Decompressed
from airflow_pgbackup.postgres.conninfo import ConnectionParams, client_environment
from airflow_pgbackup.postgres.needs import Needs
from airflow_pgbackup.postgres.process import ToolProcess
from airflow_pgbackup.postgres.readers import Limits, Watched
from airflow_pgbackup.postgres.script_scan import ScriptContents, scan_script
from airflow_pgbackup.postgres.server import PostgresServer
from airflow_pgbackup.postgres.toc import TocEntry, read_toc
from airflow_pgbackup.postgres.window import Readable
from airflow_pgbackup.repository.manifest import Manifest

_ROLE_MISSING = re.compile(r'role "(.+)" does not exist')
_ROLE_ATTEMPTS = 20

# What says that this server lacks something, not that the dump does.
_NOT_PROVEN = re.compile(
    r"(invalid (?:LC_\w+ )?locale name|locale .* not (?:found|available)|could not create locale|ICU is not supported"
    r"|extension \"[^\"]*\" is not available|could not open extension control file|could not access file \"\$libdir"
    r"|unsupported XML feature|compression method \w+ not supported|No space left on device|could not load library"
    r"|out of (?:shared )?memory)",
    re.IGNORECASE,
)
_ON_LOGIN = re.compile(r' ON "?login"?\s+(?:WHEN|EXECUTE) ')
_BUILT_IN_SCHEMAS = frozenset({None, "", "public", "pg_catalog", "information_schema"})


@dataclass
class Loaded:
    """What was restored.

    :ivar server: the connection to look at the copy with.
    :ivar folder: the server's own.
    :ivar database: its name in the throwaway server; None for a cluster, whose databases have their own names.
    :ivar entries: the archive's table of contents; empty for plain dumps.
    :ivar left_out: dump ids of entries that were handled by name.
    """

    server: ConnectionParams
    folder: Path
    database: str | None
    entries: list[TocEntry] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def load(
    artifact: Path,
    manifest: Manifest,
    server: PostgresServer,
    programs: Client,
    loader: Client,
    *,
    deadline: float,
    cancel: Cancel,
    log: Callable[[str], None],
) -> Loaded:
    """Restore the artifact into the throwaway server.

    :param programs: the server's version of the tools.
    :param loader: whose pg_restore or psql restores.
    :raises NotProven: this server lacks what the database needs.
    :raises VerificationFailed: the artifact does not restore.
    """
    assert server.folder is not None  # noqa: S101  it runs
    run = _Run(artifact, manifest, server.params, server.folder, loader, deadline, cancel, log)
    try:
        return run.plain() if manifest.artifact.format == "plain" else run.archive()
    except (DeadlineExceeded, ToolKilled):
        raise
    except ToolError as error:
        text = "\n".join(error.stderr)
        if match := _NOT_PROVEN.search(text):
            line = next(line for line in error.stderr if match[0] in line)
            raise NotProven(
                f"the throwaway PostgreSQL {programs.version_text} ({programs.bin_dir}) lacks what this database "
                f"needs: {line.strip()}",
                hint="install it on this worker",
            ) from None
        raise VerificationFailed(f"it does not restore: {error.message}", hint=error.hint) from None


@dataclass
class _Run:
    artifact: Path
    manifest: Manifest
    server: ConnectionParams
    folder: Path
    loader: Client
    deadline: float
    cancel: Cancel
    log: Callable[[str], None]

    # -- archives

    def archive(self) -> Loaded:
        with _toc_file(self.artifact, self.manifest.artifact.format) as file:
            toc, _ = read_toc(file, what="the archive")
        entries = toc.entries
        loaded = Loaded(self.server, self.folder, toc.database, entries)
        self._provide(Needs.of_entries(entries))
        made = {e.name for e in entries if e.kind == "SCHEMA"}
        schemas = {e.schema for e in entries if e.schema not in _BUILT_IN_SCHEMAS} - made
        for entry in entries:
            if entry.kind == "SCHEMA" and entry.name == "public" and entry.definition.startswith("CREATE SCHEMA"):
                loaded.left_out.add(entry.dump_id)
                loaded.notes.append("schema public is there in every new database: its CREATE SCHEMA was left out")
        create = not schemas and any(e.kind == "DATABASE" for e in entries)
        if schemas:
            loaded.notes.append(
                f"schemas that the dump uses and does not make were made empty: {', '.join(sorted(map(str, schemas)))}"
            )
        argv: list[os.PathLike[str] | str] = [self.loader.tool("pg_restore"), "--no-password", "--exit-on-error"]
        argv.append("--dbname=")  # and PGDATABASE, which is literal
        if any(e.kind == "EVENT TRIGGER" and _ON_LOGIN.search(e.definition) for e in entries):
            # With more than one it connects once more after the event triggers, which is then one login too many.
            loaded.notes.append("restored by one job only, for the sake of an event trigger on login")
        elif self.manifest.artifact.format != "tar":
            argv.append(f"--jobs={os.cpu_count() or 1}")
        if create:
            argv.append("--create")

        def attempt() -> None:
            start = self._drop(toc.database)
            if not create:
                self._create(toc.database, sorted(map(str, schemas)))
            with self._list_file(loaded) as listed:
                where = self.server.with_database(start if create else toc.database)
                self._tool([*argv, *listed, self.artifact], where, None)

        loaded.seconds = self._with_roles(attempt)
        return loaded

    @contextmanager
    def _list_file(self, loaded: Loaded) -> Iterator[list[str]]:
        """``--use-list``, only where something is left out: pg_restore takes the numbers and reads no further."""
        if not loaded.left_out:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", suffix=".list", dir=self.folder) as file:
            file.writelines(f"{e.dump_id}; 0 0\n" for e in loaded.entries if e.dump_id not in loaded.left_out)
            file.flush()
            yield [f"--use-list={file.name}"]

    # -- plain dumps

    def plain(self) -> Loaded:
        options, database = self.manifest.options, self.manifest.series.database
        if options.get("clean") and not options.get("if_exists"):
            raise NotProven(
                "the dump drops objects before it makes them, which fails where there are none yet",
                hint="dump with if_exists=True beside clean=True, or without clean",
            )
        argv: list[os.PathLike[str] | str] = [self.loader.tool("psql"), "--no-psqlrc", "--no-password", "--quiet"]
        argv += ["--set=ON_ERROR_STOP=1", "--file=-", "--output=/dev/null"]
        contents = self._scan()
        loaded = Loaded(self.server, self.folder, database)
        head = ClusterHead([])
        if contents.cluster:
            head = ClusterHead(contents.globals)
            if head.bootstrap:
                loaded.server = self.server = rehearsal_server.with_bootstrap_superuser(self.server, head.bootstrap)
        else:
            for section in contents.sections:
                self._provide(section.needs)

        def attempt() -> None:
            where = self.server
            if database is not None:
                start = self._drop(database)
                if options.get("create"):
                    where = self.server.with_database(start)
                else:
                    self._create(database, [])
                    where = self.server.with_database(database)
            with self._open_script() as source:
                self._tool(argv, where, source if database is not None else FittedScript(source, head))

        loaded.seconds = self._with_roles(attempt)
        return loaded

    @contextmanager
    def _open_script(self) -> Iterator[Readable]:
        compression = self.manifest.artifact.compression.method or "none"
        with self.artifact.open("rb") as file:
            yield file if compression == "none" else Decompressed(file, compression, "the dump")

    def _scan(self) -> ScriptContents:
        """A script says what it needs as it goes; a role that is missed in its last lines would cost the whole run."""
        with self._open_script() as source:
            return scan_script(Watched(source, Limits(self.cancel, self.deadline), None))

    # -- both

    def _provide(self, needs: Needs) -> None:
        """Roles and tablespaces; extensions are there or not."""
        rehearsal_server.check_extensions(self.server, needs.extensions)
        rehearsal_server.make_roles(self.server, needs.roles)
        rehearsal_server.make_tablespaces(self.server, needs.tablespaces)

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
                rehearsal_server.make_roles(self.server, missed)
                continue
            return time.monotonic() - start
        raise NotProven(f"after {_ROLE_ATTEMPTS} attempts the dump still misses roles")

    def _drop(self, database: str) -> str:
        """:return: a database to connect to meanwhile."""
        start = "template1" if database == "postgres" else "postgres"
        with self.server.with_database(start).connect() as session:
            there = session.execute("select from pg_catalog.pg_database where datname = %s", [database]).fetchone()
            if there is not None:
                self._drop_subscriptions(database)
                session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
        return start

    def _drop_subscriptions(self, database: str) -> None:
        """A database with one cannot be dropped."""
        with self.server.with_database(database).connect() as session:
            names: list[Any] = session.execute(
                "select subname from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid"
                " where d.datname = pg_catalog.current_database()"
            ).fetchall()
            for (name,) in names:
                for statement in ("ALTER SUBSCRIPTION {} DISABLE", "ALTER SUBSCRIPTION {} SET (slot_name = NONE)"):
                    session.execute(sql.SQL(statement).format(sql.Identifier(name)))
                session.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))

    def _create(self, database: str, schemas: list[str]) -> None:
        encoding = self.manifest.source.encoding or "UTF8"
        start = "template1" if database == "postgres" else "postgres"
        with self.server.with_database(start).connect() as session:
            session.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
                    sql.Identifier(database), sql.Literal(encoding)
                )
            )
        with self.server.with_database(database).connect() as session:
            for name in schemas:
                session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))

    def _tool(self, argv: list[os.PathLike[str] | str], where: ConnectionParams, stdin: Readable | None) -> None:
        with client_environment(where) as env:
            # The database's own settings are restored before its tables, and are not for its restore.
            pinned = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off"
            env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} {pinned}".strip()
            with ToolProcess(
                argv, env=env, cancel=self.cancel, deadline=self.deadline, stdin=stdin, stdout="devnull"
            ) as process:
                process.wait()


@contextmanager
def _toc_file(artifact: Path, format: str) -> Iterator[Readable]:
    if format == "tar":
        with tarfile.open(artifact) as tar:
            member = tar.extractfile("toc.dat")
            if member is None:
                raise VerificationFailed("the tar file lacks toc.dat, its table of contents")
            yield member
        return
    with (artifact / "toc.dat" if format == "directory" else artifact).open("rb") as file:
        yield file
