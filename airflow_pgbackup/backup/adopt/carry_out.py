"""Carry out a plan: copy, link or move each dump into the repository, manifest last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_pgbackup.backup.adopt.manifest import manifest_of
from airflow_pgbackup.backup.adopt.plan import AdoptionPlan, PlannedDump
from airflow_pgbackup.backup.adopt.repository_source import RepositorySource
from airflow_pgbackup.backup.adopt.sources import LocalSource, Seen, reason
from airflow_pgbackup.backup.attempt import attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.byte_streams import PIECE
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    ClientError,
    NotProven,
    PgBackupError,
    VerificationFailed,
)
from airflow_pgbackup.quantities import human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, is_complete, read_evidence
from airflow_pgbackup.repository.layout import reaches
from airflow_pgbackup.repository.local.linking import link_into
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import FileDigest, Manifest

Verify = Callable[[Mapping[str, object]], dict[str, object]]


def carry_out(
    plan: AdoptionPlan,
    *,
    link: bool = False,
    move: bool = False,
    verify: Verify | None = None,
    level: str = "archive",
    context: RunContext | None = None,
) -> dict[str, object]:
    """Adopt the dumps of a plan. A dump that fails does not stop the others.

    :param link: do not copy bytes: make hard links on one file system, or let the store copy; a dump for which neither
        is possible is skipped.
    :param move: remove each source when its backup is complete, was read back, and has the digest of the source; and
        passed `verify`.
    :param verify: takes a reference, verifies the backup, and returns the reference. Called for each new backup, for
        each earlier one that its own files do not show as verified at `level`, and with `move` for all, because their
        sources are then removed.
    :param level: at which `verify` verifies.
    :return: plain JSON, :meth:`.AdoptionPlan.describe` and::

        {"adopted": [reference, …], "present": [reference, …] (adopted before), "failed": [{"path", "series", "id",
         "reason", "status"}] (adopted, but not verified; status "failed" or "not proven"), "removed": [path, …],
         "kept": [{"path", "reason"}] (adopted, but its source could not be removed)}

    :raises RepositoryError: the repository failed; what was adopted before stays.
    """
    context = context or RunContext()
    result: dict[str, Any] = {**plan.describe(), "adopted": [], "present": [], "failed": [], "removed": [], "kept": []}

    def skip(planned: PlannedDump, why: str) -> None:
        result["skipped"].append({"path": planned.dump.name, "source": planned.dump.source.label, "reason": why})
        context.log(f"skipped {planned.dump.name}: {why}")

    for planned in plan.dumps:
        context.cancel.check()
        plan.repository.confirm()
        adoption = _Adoption(plan.repository, planned, plan.server, link, context)
        try:
            is_new, evidence = adoption.run()
        except (AlreadyExists, VerificationFailed, _NoLink) as error:
            skip(planned, str(error))
            continue
        except OSError as error:
            skip(planned, f"not adopted: {reason(error)}")
            continue
        reference = reference_of(plan.repository, evidence)
        failure: PgBackupError | None = None
        if verify is not None and (is_new or move or not reaches(reference["verified"], level)):
            try:
                reference = verify(reference)
                if move:
                    adoption.require_proof(level)
            except (VerificationFailed, NotProven, ClientError) as error:  # the last: no client here can read it
                failure = error
                result["failed"].append(
                    {
                        "path": planned.dump.name,
                        "series": planned.series.path,
                        "id": planned.id,
                        "reason": str(error),
                        "status": "failed" if isinstance(error, VerificationFailed) else "not proven",
                    }
                )
                context.log(f"{planned.dump.name}: {error}")
        result["adopted" if is_new else "present"].append(reference)
        if move and failure is None:
            try:
                adoption.remove_source(evidence.require_manifest())
                result["removed"].append(planned.dump.name)
            except (OSError, VerificationFailed) as error:
                why = reason(error) if isinstance(error, OSError) else str(error)
                result["kept"].append({"path": planned.dump.name, "reason": why})
                context.log(f"warning: {planned.dump.name} was adopted, but not removed: {why}")
    return result


class _NoLink(PgBackupError):
    """A dump that can only be copied."""


@dataclass
class _Adoption:
    """One dump on its way into the repository."""

    repository: Repository
    planned: PlannedDump
    server: str
    link: bool
    context: RunContext

    def run(self) -> tuple[bool, Evidence]:
        """Bring the dump in, manifest last.

        :return: False and the backup, if it was adopted before.
        :raises AlreadyExists: another backup has its id, or the adopted backup is incomplete.
        :raises VerificationFailed: the dump has changed since it was read.
        """
        planned = self.planned
        with suppress(BackupNotFound):
            found = read_evidence(self.repository, planned.series, planned.id)
            if not (is_complete(found) and self._is_in(found)):
                standing = "is another dump" if is_complete(found) else found.backup.standing
                raise AlreadyExists(
                    f"backup {planned.series}/{planned.id} exists already, and {standing}",
                    hint=f"Delete {self.repository.location(found.backup.folder)} and adopt it again.",
                )
            return False, found
        with attempt(self.repository, planned.series, planned.id, self.context.log) as mine:
            manifest = manifest_of(planned, self.repository.uuid, mine.name, self.server)
            for seen, file, named in zip(planned.dump.seen, planned.dump.files, manifest.artifact.files, strict=True):
                key = manifest.key(named)
                mine.written.append(key)
                self._bring_in(key, seen, file)
            self.context.cancel.check()
            found = mine.commit(manifest, self._is_in)
        if not mine.has_made(found):
            return False, found
        self.context.log(
            f"adopted {planned.dump.name} as {planned.series}/{planned.id}, {human_bytes(manifest.artifact.size)}"
        )
        return True, found

    def _is_in(self, other: Evidence) -> bool:
        return other.require_manifest().artifact.sha256 == self.planned.dump.sha256

    def _bring_in(self, key: str, seen: Seen, file: FileDigest) -> None:
        source, cancel = self.planned.dump.source, self.context.cancel
        if isinstance(source, RepositorySource):
            with source.open(seen.name, again=seen):  # its own error, if it was removed or has changed
                pin = source.pin(seen)
            if self.repository.copy_from(source.store, seen.name, key, pin=pin, cancel=cancel) is not None:
                self._compare(key, file)
                return
        elif (
            self.link
            and isinstance(source, LocalSource)
            and isinstance(self.repository, LocalRepository)
            and link_into(self.repository, key, source.root, seen.name, sha256=file.sha256, cancel=cancel)
        ):
            return
        if self.link:
            raise _NoLink(
                "it cannot be linked: another file system or store, or no permission for hard links",
                hint="Adopt it without --link.",
            )
        with self.planned.dump.open(seen) as stream:
            self.repository.write(key, stream, size_hint=file.size, sha256=file.sha256, cancel=cancel)

    def require_proof(self, level: str) -> None:
        """Check that the files of the backup prove its verification.

        :raises NotProven: they do not, for example because a clock is wrong.
        :raises RepositoryNotFound, RepositoryMismatch: the repository is not there any more.
        """
        self.repository.confirm()
        found = read_evidence(self.repository, self.planned.series, self.planned.id)
        if not reaches(found.backup.level, level):
            why = found.ignored[-1] if found.ignored else found.backup.standing
            raise NotProven(
                f"the files of backup {self.planned.series}/{self.planned.id} do not prove that it passed: {why}",
                hint="Check the clocks of this machine and of the store, and adopt it again.",
            )

    def remove_source(self, manifest: Manifest) -> None:
        """Remove the source of a backup that is complete.

        :raises VerificationFailed: the backup does not have the bytes of its source.
        :raises OSError: the source has changed, or cannot be removed.
        :raises RepositoryError: the backup cannot be read, or its repository has disappeared.
        """
        dump = self.planned.dump
        self.repository.confirm()
        for file, named in zip(dump.files, manifest.artifact.files, strict=True):
            self._compare(manifest.key(named), file)
        dump.source.remove(dump.candidate, dump.seen)
        self.context.log(f"removed {dump.name}")

    def _compare(self, key: str, file: FileDigest) -> None:
        """Read a file of the backup, and compare its digest with that of the source."""
        step = self.context.step(f"comparing {file.path}", bytes_total=file.size)
        with step, self.repository.read(key) as stream:
            meter = Meter(stream, on_bytes=step.advance)
            while meter.read(PIECE):
                self.context.cancel.check()
        if (meter.size, meter.sha256) != (file.size, file.sha256):
            raise VerificationFailed(
                f"{self.repository.location(key)}: checksum mismatch: expected {file.sha256}, found {meter.sha256}"
            )
