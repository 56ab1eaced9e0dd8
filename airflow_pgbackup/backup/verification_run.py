"""Carry out one verification at a level, for ``verify``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from airflow_pgbackup.backup.artifact import choose_reader, open_checked, table_result
from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.rehearsal import rehearse
from airflow_pgbackup.backup.rounded_floats import are_floats_rounded
from airflow_pgbackup.backup.source_comparison import compare_with_source
from airflow_pgbackup.backup.sql_checks import SQL_CHECK, CheckOutcome, SqlCheck
from airflow_pgbackup.backup.stopwatch import Stopwatch
from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.errors import (
    DiskError,
    NotProven,
    VerificationFailed,
)
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.archive.script_trailer import ScriptContinues
from airflow_pgbackup.postgres.compare.database_reader import BY_DIGITS, BY_LC_MONETARY, BY_SETTINGS
from airflow_pgbackup.postgres.compare.generated_columns import OUTDATED
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.quantities import counted, human_bytes, human_seconds
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.manifest import ClientInfo, Manifest
from airflow_pgbackup.repository.verification import Check, Difference, TableResult, Verification

_HINTS = {
    "integrity": "The bytes changed since the dump. Use another backup, and check the repository's storage for faults.",
    "archive": "Do not rely on this backup; make a new dump.",
    "source": "The archive lacks rows of its source. Make a new dump, and check how this one was made.",
    "checks": "The backup restores, but its data is not what this check expects. Check the source.",
    "differences": "It restores, but differs from the dump. Make a new dump, and compare the objects in the report.",
}
"""Hints for failures that have none."""

_UNPROVEN = {
    BY_SETTINGS: "Dump with this package, which fixes time zone and bytea_output. For another lc_monetary, "
    "rehearse on a server with that of the source (scratch_conn_id, --scratch).",
    BY_LC_MONETARY: "Rehearse on a server with the lc_monetary of the source (scratch_conn_id, --scratch).",
    BY_DIGITS: "Rehearse on a server with the version of the source (scratch_conn_id, --scratch).",
    "may have exchanged fields": "Create that table again with the columns of its parents first, then make a new dump.",
    OUTDATED: "A dump does not contain the values of generated columns. Replace the expression with a trigger in "
    "the source. After a restore, compute the values again by updating a column that the expression uses.",
    "of another version": "Rehearse on a server with the version of the source (scratch_conn_id, --scratch).",
}

_COMPARE = "It restores. Restore it beside the source, and compare what the message names."


@dataclass
class VerificationRun:
    """One verification: its checks, and what they found.

    :ivar not_proven: the error that says why nothing was proven; None otherwise.
    :ivar hint: for a failure; None otherwise.
    """

    repository: Repository
    manifest: Manifest
    level: str
    scratch: ConnectionParams | None
    sql_checks: tuple[SqlCheck, ...]
    context: RunContext
    checks: list[Check] = field(default_factory=list)
    tables: list[TableResult] = field(default_factory=list)
    client: ClientInfo | None = None
    differences: tuple[Difference, ...] = ()
    restore_seconds: float | None = None
    not_proven: NotProven | None = None
    hint: str | None = None

    def run(self) -> Verification:
        watch = Stopwatch()
        try:
            with ExitStack() as stack:
                checked = self._integrity(stack)
                if self.level == "archive":
                    self._archive(checked)
                elif self.level == "restore":
                    self._restore(checked)
            result = "pass"
        except VerificationFailed as error:
            self.hint = error.hint or _HINTS["archive"]
            result = "fail"
        except NotProven as error:
            if not any(check.result == "notproven" for check in self.checks):
                self.checks.append(Check(self.level, "notproven", str(error)))
            self.not_proven = error
            result = "notproven"
        finished, seconds = watch.stop()
        return Verification(
            backup_id=self.manifest.id,
            level=self.level,
            result=result,
            started_at=watch.started_at,
            finished_at=finished,
            duration_seconds=seconds,
            checks=tuple(self.checks),
            tables=tuple(self.tables),
            differences=self.differences,
            restore_seconds=self.restore_seconds,
            client=self.client,
            origin=self.context.origin,
            artifact_sha256=self.manifest.artifact.sha256,
        )

    def _integrity(self, stack: ExitStack) -> CheckedArtifact:
        artifact = self.manifest.artifact
        # A rehearsal reads the artifact several times, and pg_restore opens these two formats by name.
        as_path = self.level == "restore" or (self.level == "archive" and artifact.format in ("tar", "directory"))
        identities, unknown = None, None
        if self.level != "integrity" and artifact.encryption:
            try:
                identities = self.context.require_identities()
            except NotProven as error:  # raised below: changed bytes are a failure all the same
                unknown = error
        opening = open_checked(
            self.repository,
            self.manifest,
            as_path=as_path,
            temp_dir=self.context.settings.temp_dir,
            identities=identities,
            cancel=self.context.cancel,
            progress=self.context.step(f"hashing {artifact.name}", bytes_total=artifact.size),
        )
        try:
            wrong, checked = stack.enter_context(opening)
        except VerificationFailed as error:
            self.checks.append(Check(self.level, "fail", error.message))
            raise
        except DiskError as error:
            if self.level != "restore":
                raise
            raise NotProven(error.message, hint=error.hint) from error
        if wrong:
            self._fail("integrity", wrong, _HINTS["integrity"])
        files = counted(len(artifact.files), "file")
        self.checks.append(Check("integrity", "pass", f"{human_bytes(artifact.size)} in {files} as dumped, by sha256"))
        if unknown is not None:
            raise unknown
        return checked

    def _archive(self, checked: CheckedArtifact) -> None:
        contents = self._read(checked)
        self.tables = [table_result(table, "pass") for table in contents.tables]
        rows = sum(table.rows for table in contents.tables)
        self.checks.append(
            Check(
                "archive",
                "pass",
                f"{counted(len(contents.tables), 'table')} with {counted(rows, 'row')} read to the end",
            )
        )
        self._compare_with_source()

    def _compare_with_source(self) -> None:
        """Compare the rows that were counted in the source with those in the archive."""
        if self.manifest.source_rows is None:
            return
        found = compare_with_source(self.manifest.source_rows, self.tables, self.manifest.options)
        if found.differences:
            self._fail("source", found.differences, _HINTS["source"])
        self.checks.append(Check("source", "pass", str(found)))

    def _restore(self, checked: CheckedArtifact) -> None:
        try:
            found = rehearse(
                checked.private_path,
                self.manifest,
                reader=self._choose_reader(),
                scratch=self.scratch,
                checks=self.sql_checks,
                context=self.context,
            )
        except VerificationFailed as error:
            self._unreadable("restore", error)
        except DiskError as error:
            raise NotProven(error.message, hint=error.hint) from error
        self.tables = found.tables
        self.differences = tuple(found.differences)
        self.restore_seconds = found.restore_seconds
        rows = sum(table.rows for table in found.tables)
        digits = self.manifest.options.get("extra_float_digits")
        rounded = are_floats_rounded(digits)
        self.checks += [Check("note", "pass", note) for note in found.notes]
        self._compare_with_source()
        if found.differences:
            wrong = [f"{each.kind} {each.name} {each.detail}" for each in found.differences]
            self._fail("restore", wrong, _HINTS["differences"])
        if found.unproven:
            hint = next((hint for reason, hint in _UNPROVEN.items() if reason in found.unproven[0]), _COMPARE)
            raise NotProven(found.unproven[0], hint=hint)
        self.checks.append(
            Check(
                "restore",
                "pass",
                f"restored into PostgreSQL {found.server_version} in {human_seconds(found.restore_seconds)}, "
                f"{counted(len(found.tables), 'table')} with {counted(rows, 'row')} and every definition as dumped"
                + (f"; the dump rounded floating-point values (extra_float_digits {digits})" if rounded else ""),
            )
        )
        self._judge(found.checks)

    def _unreadable(self, check: str, error: VerificationFailed) -> NoReturn:
        if isinstance(error, ScriptContinues) and "adopted_from" in self.manifest.origin:
            # Whoever made the dump has appended it, for example ANALYZE.
            hint = "The dump before that is complete. Test the script with psql, or adopt it without the rest."
            raise NotProven(error.message, hint=hint) from error
        self.checks.append(Check(check, "fail", error.message))
        raise error

    def _fail(self, name: str, problems: Sequence[str], hint: str) -> NoReturn:
        """Record a failed check for each problem, and end the run."""
        self.checks += [Check(name, "fail", line) for line in problems]
        raise VerificationFailed(problems[0], hint=hint)

    def _judge(self, outcomes: Iterable[CheckOutcome]) -> None:
        """Record the outcomes of SQL checks; raise for one that is required."""
        unproven: list[str] = []
        failed: list[str] = []
        for outcome in outcomes:
            name, result, detail = f"{SQL_CHECK} {outcome.check.name!r}", outcome.result, outcome.detail
            line = f"{name}: {detail}"
            if result != "pass" and not outcome.check.required:
                self.checks.append(Check("note", "pass", f"{line}; it is not required"))
                continue
            self.checks.append(Check(name, result, detail))
            if result == "fail":
                failed.append(line)
            elif result == "notproven":
                unproven.append(line)
        if failed:
            raise VerificationFailed(failed[0], hint=_HINTS["checks"])
        if unproven:
            raise NotProven(unproven[0], hint="The backup restores. Correct the check, then verify again.")

    def _choose_reader(self) -> Client:
        client = choose_reader(self.manifest, self.context.settings.client_dirs)
        self.client = ClientInfo("pg_restore", client.version_text, str(client.tool("pg_restore")))
        return client

    def _read(self, checked: CheckedArtifact) -> ArchiveSummary:
        artifact, path = self.manifest.artifact, checked.path
        client = self._choose_reader()
        # pg_restore reads a path itself, so that only its output can be counted.
        total = self.manifest.source.size_bytes if path else artifact.size
        with self.context.step(f"reading {artifact.name}", bytes_total=total, estimated=path is not None) as step:
            if path:
                return self._digest(path, client, step.advance)
            with checked.stream() as stream:
                return self._digest(CountingReader(stream, step.advance), client)

    def _digest(
        self, source: Path | Readable, client: Client, progress: Callable[[int], None] | None = None
    ) -> ArchiveSummary:
        artifact = self.manifest.artifact
        try:
            return ArchiveReader(
                source,
                format=artifact.format,
                compression=artifact.compressed_around,
                client=client,
                cancel=self.context.cancel,
                deadline=self.context.deadline or self.context.settings.read_deadline(artifact.size),
                on_line=self.context.log,
                progress=progress,
            ).digest()
        except VerificationFailed as error:
            self._unreadable("archive", error)
