"""Write verifications beside a backup, and make that of a dump that was decoded while it was written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_pgbackup.backup.artifact import require_not_removed, table_result
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.reading_along import ReadingAlong
from airflow_pgbackup.backup.source_comparison import compare_with_source
from airflow_pgbackup.backup.stopwatch import Stopwatch
from airflow_pgbackup.errors import BackupNotFound, RepositoryError, ToolError
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository import json_document, layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import find_backup
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.manifest import ClientInfo, Manifest, RowCount
from airflow_pgbackup.repository.verification import UNLISTED, Check, Verification
from airflow_pgbackup.text import first_problem

_LEVEL = "archive"
_MOST = 1000
"""Checks and differences that are recorded if all of them do not fit into a file."""
_TICK = timedelta(microseconds=1)


def write_verification(repository: Repository, manifest: Manifest, report: Verification) -> str:
    """Write a verification beside its backup, and return its key.

    :param report: its ``finished_at`` is moved to after the start of the backup. A failure is later than every pass
        that exists, and a pass than every failure, whatever the clocks say. Details that do not fit into the file are
        left out.
    :raises ManifestError: the verification violates its schema.
    :raises BackupNotFound: the backup was removed during the operation, and the verification with it.
    """
    report = replace(report, finished_at=_time_to_write(repository, manifest, report))
    key = layout.verification_key(
        manifest.series, manifest.id, at=report.finished_at, level=report.level, result=report.result
    )
    data = _fitting(report).to_json()
    Verification.from_json(data)  # only what can be read is written
    repository.write_bytes(key, data)
    try:
        require_not_removed(repository, manifest)
    except BackupNotFound:
        with suppress(RepositoryError):  # where it may not be deleted, prune sweeps it
            repository.delete([key])
        raise
    return key


def _fitting(report: Verification) -> Verification:
    """Leave out what the file cannot hold: a verdict counts without its tables, and without the thousandth problem."""
    if json_document.excess(report.to_json()) is None:
        return report
    note = Check(UNLISTED, "pass", f"the list of {counted(len(report.tables), 'table')} is too long to record")
    without = replace(report, tables=(), checks=(*report.checks, note))
    if json_document.excess(without.to_json()) is None:
        return without
    problems = len(report.checks) + len(report.differences)
    more = Check("note", "pass", f"{problems:,} checks and differences, of which the first are listed")
    return replace(without, checks=(*report.checks[:_MOST], note, more), differences=report.differences[:_MOST])


def _time_to_write(repository: Repository, manifest: Manifest, report: Verification) -> datetime:
    at = max(report.finished_at, manifest.started_at)
    opposite = {"fail": "pass", "pass": "fail"}.get(report.result)
    seen = find_backup(repository, manifest.series, manifest.id).verifications
    newest = max((name.at for name in seen if name.result == opposite), default=None)
    if newest is None or newest < at:
        return at
    with suppress(OverflowError):  # the last microsecond of the year 9999 in a forged name
        return newest + _TICK
    return newest


def require_rows(source: tuple[RowCount, ...], summary: ArchiveSummary, options: DumpOptions | DumpAllOptions) -> None:
    """Compare the rows that were counted in the source with those in the dump.

    :param options: of the dump.
    :raises ToolError: they differ. A retry makes a new dump.
    """
    tables = [table_result(table, "pass") for table in summary.tables]
    if wrong := compare_with_source(source, tables, options.describe()).differences:
        raise ToolError(
            f"{options.tool} ended with exit status 0, but its dump lacks rows of its source: {first_problem(wrong)}",
            tool=options.tool,
            exit_code=0,
            hint="Nothing was kept; run the dump again, and check how this one was made.",
        )


def record_reading(
    repository: Repository, evidence: Evidence, reading: ReadingAlong, *, watch: Stopwatch, context: RunContext
) -> Evidence:
    """Record what was read of a backup that has just been committed.

    :param watch: begun with the dump.
    :return: the backup as the repository has it now; unchanged if its contents are not known, which is logged.
    :raises BackupNotFound: it was removed during the operation.
    :raises RepositoryError: the verification cannot be written.
    """
    manifest = evidence.require_manifest()
    name = manifest.name
    if reading.summary is None or reading.client is None:
        context.log(f"warning: backup {name} was not verified while it was dumped: {reading.problem}")
        return evidence
    tables = tuple(table_result(table, "pass") for table in reading.summary.tables)
    rows = sum(table.rows for table in tables)
    files = counted(len(manifest.artifact.files), "file")
    checks = [
        Check("integrity", "pass", f"{human_bytes(manifest.artifact.size)} in {files}, hashed while they were written"),
        Check(
            _LEVEL,
            "pass",
            f"{counted(len(tables), 'table')} with {counted(rows, 'row')} read to the end while they were dumped",
        ),
    ]
    if manifest.source_rows is not None:
        checks.append(Check("source", "pass", str(compare_with_source(manifest.source_rows, tables, manifest.options))))
    finished, seconds = watch.stop()
    client = reading.client
    report = Verification(
        backup_id=manifest.id,
        level=_LEVEL,
        result="pass",
        started_at=watch.started_at,
        finished_at=finished,
        duration_seconds=seconds,
        checks=tuple(checks),
        tables=tables,
        client=ClientInfo("pg_restore", client.version_text, str(client.tool("pg_restore"))),
        origin=context.origin,
        artifact_sha256=manifest.artifact.sha256,
    )
    write_verification(repository, manifest, report)
    context.on_verification(report)
    context.log(f"backup {name} verified at level {_LEVEL} while it was dumped: {checks[1].detail}")
    return read_evidence(repository, manifest.series, manifest.id)
