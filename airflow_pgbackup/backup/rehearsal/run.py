"""The rehearsal behind level ``restore``: restore the artifact into a throwaway server and hold the copy against it.

What it proves: this artifact restores with PostgreSQL's own tools, and every row, definition, sequence value and
large object that comes back is the one that was dumped. The archive is read while the restore runs, so the whole
takes little longer than the restore; how long that took is the measured recovery time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.extensions import installed_versions, version_differences
from airflow_pgbackup.backup.progress import human_seconds
from airflow_pgbackup.backup.rehearsal.compare_definitions import compare_definitions
from airflow_pgbackup.backup.rehearsal.definitions import read_definitions
from airflow_pgbackup.backup.rehearsal.restore_copy import RestoredCopy, restore_copy
from airflow_pgbackup.backup.rehearsal.scratch_server import use_scratch_server
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer, start_throwaway_server
from airflow_pgbackup.backup.rehearsal.session_guard import guarded_sessions
from airflow_pgbackup.errors import DeadlineExceeded, NotProven, ToolError, ToolKilled
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary, RowSet
from airflow_pgbackup.postgres.archive.summary import TableKey
from airflow_pgbackup.postgres.compare.comparison import (
    compare_large_objects,
    compare_materialized_views,
    compare_sequences,
    compare_tables,
)
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Difference, TableResult
from airflow_pgbackup.settings import Settings

_PHASES = 6
"""Deadlines that a rehearsal takes at most: to restore, once more with one job, to read the archive, to compare rows,
once more as sets, and definitions."""


@dataclass
class Rehearsal:
    """What a rehearsal found.

    :ivar restore_seconds: the restore alone, without reading and comparing: the measured recovery time.
    :ivar notes: what was handled by name, and what could not be compared, for the report.
    """

    tables: list[TableResult] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restore_seconds: float = 0.0
    server_version: str = ""


def rehearse(
    artifact: Path,
    manifest: Manifest,
    *,
    reader: Client,
    scratch: ConnectionParams | None = None,
    on_restored: Callable[[ConnectionParams], None] | None = None,
    context: RunContext | None = None,
) -> Rehearsal:
    """Restore and compare.

    :param artifact: a private copy of ours, file or directory: what runs in the sandbox is allowed to read it.
    :param reader: the client whose pg_restore reads the artifact.
    :param scratch: a server to rehearse on, in a temporary database; None makes a throwaway server here.
    :param on_restored: called between restore and comparison with the server's connection; for tests.
    :param context: its deadline limits the restore and each reading, instead of what the settings give for the size.
    :raises NotProven: the rehearsal could not run here; says nothing about the backup.
    :raises VerificationFailed: the artifact cannot be read to its end, or does not restore.
    """
    context = context or RunContext()
    settings, cancel, log = context.settings, context.cancel, context.log
    size = manifest.artifact.size + (manifest.source.size_bytes or 0)
    deadline = context.deadline or settings.read_deadline(size)
    _check_whole(manifest)
    stop = Cancel()
    cancel.on_set(stop.set)

    def reading() -> ArchiveReader:
        return ArchiveReader(
            artifact,
            format=manifest.artifact.format,
            client=reader,
            deadline=deadline,
            compression=manifest.artifact.compressed_around,
            in_process=True,
            cancel=stop,
            within=place.within,
        )

    definitions = read_definitions(artifact, manifest, cancel=stop, deadline=deadline)
    with (
        start_throwaway_server(manifest, settings, extensions=definitions.extensions)
        if scratch is None
        else use_scratch_server(manifest, scratch, settings, cancel=stop, log=log) as place,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="read archive") as pool,
        guarded_sessions(place, cancel, _PHASES * deadline, stop),
        place.kept(),
    ):
        if place.sandbox:
            place.sandbox.lend(artifact)
        log(f"rehearsing on {place.label}" + (f", {place.containment}" if place.containment else ""))
        to_come = pool.submit(lambda: reading().digest())
        try:
            try:
                loaded = restore_copy(
                    artifact, manifest, place, deadline=deadline, cancel=stop, log=log, definitions=definitions
                )
            except NotProven:
                to_come.result()  # an archive that cannot be read to its end fails, whatever the restore said of it
                raise
            contents = to_come.result()
            found = Rehearsal(
                server_version=place.version_text, restore_seconds=round(loaded.seconds, 3), notes=loaded.notes
            )
            found.notes += place.notes
            log(f"restored in {human_seconds(loaded.seconds)}; comparing")
            if on_restored:
                on_restored(loaded.server)
            with _unproven_if_broken(place):
                compare(
                    found,
                    artifact,
                    manifest,
                    contents,
                    loaded,
                    place,
                    settings,
                    reading,
                    deadline=deadline,
                    cancel=stop,
                )
        except BaseException:
            stop.set()  # the pool waits for the reading
            raise
    return found


@contextmanager
def _unproven_if_broken(place: RehearsalServer) -> Iterator[None]:
    """A comparison that cannot be made says nothing about the backup."""
    try:
        yield
    except (ToolKilled, DeadlineExceeded):
        raise
    except (ToolError, psycopg.Error) as error:
        said = error.message if isinstance(error, ToolError) else " ".join(str(error).split())
        raise NotProven(
            f"the copy on {place.label} could not be compared: {said}", hint="look at the reason, and rehearse again"
        ) from error


def compare(
    found: Rehearsal,
    artifact: Path,
    manifest: Manifest,
    contents: ArchiveSummary,
    loaded: RestoredCopy,
    place: RehearsalServer,
    settings: Settings,
    reading: Callable[[], ArchiveReader],
    *,
    deadline: float,
    cancel: Cancel,
) -> None:
    """Hold a restored copy against its archive.

    :param found: gets what is found.
    :param contents: of the archive.
    :param reading: a new pass over the archive, for a second look at some tables.
    """
    quiet = place.quiet(loaded.server)
    databases = contents.databases if loaded.database is None else [loaded.database]
    for database in databases:
        with _live(manifest, quiet.with_database(database), place, cancel, deadline) as live:
            _compare(found, contents, live, database if loaded.database is None else None, reading)
    if loaded.database is not None:
        with quiet.with_database(loaded.database).connect() as session:
            found.notes += version_differences(manifest.source.extensions, installed_versions(session))
    differences, notes = compare_definitions(
        artifact, manifest, loaded, quiet, place, settings, deadline=deadline, cancel=cancel
    )
    found.differences += differences
    found.notes += notes


def _check_whole(manifest: Manifest) -> None:
    """:raises NotProven: a part that cannot stand alone was dumped on purpose."""
    options = manifest.options
    sections = options.get("sections")
    partial = [name for name in ("data_only", "statistics_only", "no_schema") if options.get(name)]
    if isinstance(sections, list) and "pre-data" not in sections:
        partial.append(f"sections={sections}")
    if partial:
        raise NotProven(
            f"a dump by {', '.join(partial)} has no definitions, so there is nothing to restore it into",
            hint="rehearse the whole database; this one is worth level archive",
        )


def _live(
    manifest: Manifest, connection: ConnectionParams, place: RehearsalServer, cancel: Cancel, deadline: float
) -> DatabaseReader:
    """The copy, read in the encoding and with the digits of the dump."""
    digits = manifest.options.get("extra_float_digits")
    return DatabaseReader(
        connection,
        place.folder if place.local else None,
        encoding=str(manifest.options.get("encoding") or manifest.source.encoding or "UTF8"),
        float_digits=digits if isinstance(digits, int) else 3,
        quote_all_identifiers=bool(manifest.options.get("quote_all_identifiers")),
        cancel=cancel,
        deadline=deadline,
    )


def _compare(
    found: Rehearsal,
    contents: ArchiveSummary,
    live: DatabaseReader,
    key: str | None,
    reading: Callable[[], ArchiveReader],
) -> None:
    """One database: tables, sequences, large objects."""
    prefix = f"{key}: " if key else ""

    def row_sets(tables: Collection[TableKey], counted: Collection[TableKey]) -> dict[TableKey, RowSet]:
        return reading().row_sets(tables, counted)

    for compared in compare_tables(live, [t for t in contents.tables if t.database == key], row_sets):
        table = compared.table
        found.tables.append(
            TableResult(
                database=table.database,
                schema=table.schema,
                name=table.name,
                rows=table.rows,
                sha256=table.sha256,
                result=compared.result,
                detail=compared.detail,
            )
        )
        if compared.result == "different":
            found.differences.append(
                Difference("table data", f"{prefix}{table.schema}.{table.name}", compared.detail or "")
            )
        elif compared.detail:
            found.notes.append(f"{prefix}{table.schema}.{table.name}: {compared.detail}")
    for name, detail in compare_sequences(live, contents, key):
        found.differences.append(Difference("sequence value", f"{prefix}{name}", detail))
    for name, detail in compare_materialized_views(live, contents, key):
        found.differences.append(Difference("materialized view data", f"{prefix}{name}", detail))
    for oid, detail in compare_large_objects(live, contents, key):
        found.differences.append(Difference("large object", f"{prefix}{oid}", detail))
