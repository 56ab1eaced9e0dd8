"""The rehearsal of level ``restore``: restore a backup into a throwaway server, and compare the copy with the dump.

It proves that the backup can be restored with PostgreSQL's own tools, and that every row, definition, sequence value
and large object comes back as it was dumped. The archive is read while the restore runs, so a rehearsal takes little
longer than the restore, whose duration is the measured recovery time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.rehearsal.adopted_options import with_found_options
from airflow_pgbackup.backup.rehearsal.comparison import Rehearsal, compare_copy
from airflow_pgbackup.backup.rehearsal.definitions import Definitions, read_definitions
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.restore_copy import restore_copy
from airflow_pgbackup.backup.rehearsal.scratch_server import use_scratch_server
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer, start_throwaway_server
from airflow_pgbackup.backup.rehearsal.session_guard import guarded_sessions
from airflow_pgbackup.backup.sql_checks import SqlCheck, run_checks
from airflow_pgbackup.errors import DeadlineExceeded, NotProven, ToolError, ToolKilled
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.archive.toc import Toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.quantities import human_seconds
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.threads import result_of

_PHASES = 7
"""Phases that may each take the deadline: wait for other rehearsals, restore, restore with one job, read the archive,
compare rows, compare rows as sets, compare definitions."""


def rehearse(
    artifact: Path,
    manifest: Manifest,
    *,
    reader: Client,
    scratch: ConnectionParams | None = None,
    on_restored: Callable[[ConnectionParams], None] | None = None,
    checks: Sequence[SqlCheck] = (),
    context: RunContext | None = None,
) -> Rehearsal:
    """Restore a backup and compare the copy with the dump.

    :param artifact: a private copy, a file or directory: programs in the sandbox get read access to it.
    :param reader: the client whose pg_restore reads the artifact.
    :param scratch: rehearse in a temporary database of this server; None starts a throwaway server.
    :param checks: to run in the copy of a database, after the comparison.
    :param on_restored: called between restore and comparison with the server's connection; for tests.
    :param context: its deadline limits the restore and each reading, instead of what the settings give for the size.
    :raises NotProven: the rehearsal was not possible; that says nothing about the backup.
    :raises VerificationFailed: the artifact cannot be read to its end, or cannot be restored.
    """
    context = context or RunContext()
    _require_definitions(manifest)
    size = manifest.artifact.size + (manifest.source.size_bytes or 0)
    dump = RehearsedDump(
        artifact=artifact,
        manifest=manifest,
        deadline=context.deadline or context.settings.read_deadline(size),
        settings=context.settings,
        cancel=Cancel(),
        log=context.log,
        begin=context.step,
    )
    context.cancel.on_set(dump.cancel.set)
    definitions = read_definitions(dump)
    found = with_found_options(manifest, definitions)
    dump = replace(dump, manifest=found, old_strings=definitions.style.old_strings)
    with (
        _open_server(dump, definitions, scratch) as server,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="pgbackup-archive") as pool,
        guarded_sessions(server, context.cancel, _PHASES * dump.deadline, dump.cancel),
        server.not_proven_if_lost(),
    ):
        if server.sandbox:
            server.sandbox.lend(artifact)
        dump.log(f"rehearsing on {server.label}" + (f", {server.containment}" if server.containment else ""))
        open_reader = partial(_open_reader, dump, reader, server, definitions.toc)
        summary = pool.submit(lambda: open_reader().digest())
        try:
            try:
                copy = restore_copy(dump, definitions, server)
            except NotProven:
                result_of(summary)  # an artifact that cannot be read to its end fails, whatever stopped the restore
                raise
            archive = result_of(summary)
            dump.log(f"restored in {human_seconds(copy.seconds)}, comparing")
            if on_restored:
                on_restored(copy.connection)
            with _not_proven_if_unreadable(server):
                result = compare_copy(copy, archive, open_reader)
                if checks:
                    connection = server.without_login_triggers(copy.connection).with_database(copy.database or "")
                    started_at = manifest.started_at
                    result.checks = run_checks(connection, checks, started_at=started_at, cancel=dump.cancel)
                return result
        except BaseException:
            dump.cancel.set()  # leaving the pool waits for the reading
            raise


def _open_server(
    dump: RehearsedDump, definitions: Definitions, scratch: ConnectionParams | None
) -> AbstractContextManager[RehearsalServer]:
    if scratch is None:
        return start_throwaway_server(
            dump.manifest, dump.settings, extensions=definitions.extensions, tables=definitions.tables
        )
    return use_scratch_server(dump, scratch)


def _open_reader(dump: RehearsedDump, client: Client, server: RehearsalServer, toc: Toc | None) -> ArchiveReader:
    return ArchiveReader(
        dump.artifact,
        format=dump.manifest.artifact.format,
        client=client,
        deadline=dump.deadline,
        compression=dump.manifest.artifact.compressed_around,
        toc=toc,
        in_process=True,
        cancel=dump.cancel,
        within=server.sandbox_command,
    )


@contextmanager
def _not_proven_if_unreadable(server: RehearsalServer) -> Iterator[None]:
    """Turn errors of the comparison into NotProven: they say nothing about the backup."""
    try:
        yield
    except (ToolKilled, DeadlineExceeded):
        raise
    except (ToolError, psycopg.Error) as error:
        message = error.message if isinstance(error, ToolError) else server_message(error)
        raise NotProven(
            f"cannot compare the copy on {server.label}: {message}",
            hint="Resolve the cause, then rehearse again.",
        ) from error


def _require_definitions(manifest: Manifest) -> None:
    """Check that the dump contains definitions.

    :raises NotProven: it was made with an option that excludes them, so it cannot be restored alone.
    """
    options = manifest.options
    sections = options.get("sections")
    excluding = [name for name in ("data_only", "statistics_only", "no_schema") if options.get(name)]
    if isinstance(sections, list) and "pre-data" not in sections:
        excluding.append(f"sections={sections}")
    if excluding:
        raise NotProven(
            f"a dump with {', '.join(excluding)} has no definitions, so there is nothing to restore it into",
            hint="Rehearse a dump of the complete database; this one can be verified at level archive.",
        )
