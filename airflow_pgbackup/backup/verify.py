"""verify: verify a backup, and record the result beside it.

``integrity``: every file has the size and SHA-256 of its manifest, read before any tool parses a byte.
``archive``: PostgreSQL's own reader decodes the artifact to its end; rows and a digest are counted for each table.
``restore``: the artifact is restored into a throwaway server, and every table, definition, sequence and large object is
compared.

A dump that airflow-pgbackup compressed is not verified at ``integrity``, but at ``archive`` instead: its digest was
taken after the compression, so only PostgreSQL's own reader proves that its bytes are still a dump. The exception is an
encrypted one where no identity was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.reading_record import write_verification
from airflow_pgbackup.backup.reference import load_manifest, reference_of
from airflow_pgbackup.backup.sql_checks import SQL_CHECK, SqlCheck, parse_checks
from airflow_pgbackup.backup.stored_details import stored_details
from airflow_pgbackup.backup.verification_run import VerificationRun
from airflow_pgbackup.errors import (
    BackupNotFound,
    ConfigurationError,
    DiskError,
    NotProven,
    PgBackupError,
    RepositoryError,
    VerificationFailed,
)
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.quantities import human_seconds, human_time
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.manifest import US, Manifest
from airflow_pgbackup.repository.state import standing_failure
from airflow_pgbackup.repository.verification import Check, Verification


def verify(
    *,
    reference: Mapping[str, object],
    repository: Repository,
    level: str = "archive",
    scratch: ConnectionParams | None = None,
    checks: Iterable[SqlCheck | Mapping[str, Any] | str] = (),
    context: RunContext | None = None,
) -> dict[str, object]:
    """Verify a backup at a level, and record the result beside it.

    :param reference: from a dump or upload; see :mod:`airflow_pgbackup.backup.reference`.
    :param level: ``integrity``, ``archive`` or ``restore``.
    :param scratch: for level ``restore``: rehearse in a temporary database on this server, as its superuser, instead of
        in a throwaway server on this machine. Its other databases are not changed.
    :param checks: for level ``restore`` of a database: SQL to run in the copy; see
        :func:`.sql_checks.parse_checks`. One that is false fails the verification, although the backup restores.
    :param context: its deadline limits reading the archive, instead of what the settings give for its size.
    :return: the reference, ``verified`` as the repository has it now.
    :raises VerificationFailed: the backup differs from its manifest, or is incomplete. This result is recorded, too;
        if it cannot be, the message says so. Or it passes, but failed at a higher level before.
    :raises NotProven: the rehearsal could not run here, or no identity decrypts the artifact, which says nothing about
        the backup. Recorded, too. Or it passes, but this does not count, because of a clock for example.
    :raises RepositoryError, ClientError: the backup could not be read, or was removed during the operation. Nothing is
        recorded, because nothing was learned about the backup.
    """
    layout.check_level(level, "level", required=True)
    manifest = load_manifest(repository, reference)
    parsed = parse_checks(checks)
    _check_request(level, manifest, scratch, parsed)
    context = context or RunContext()
    level = _level_to_verify(level, manifest, context)
    sweep_leftovers(context)
    run = VerificationRun(repository, manifest, level, scratch, parsed, context)
    report = run.run()
    context.cancel.check()
    where, unrecorded = _record(repository, manifest, report, context)
    if report.result != "pass":
        failure = _not_passed(repository, manifest, report, run, where, unrecorded)
        if unrecorded is None:
            raise failure
        raise failure from unrecorded
    name = manifest.name
    if unrecorded is not None:
        raise type(unrecorded)(
            f"backup {name} passed verification at level {level}, but that could not be recorded: {unrecorded.message}",
            hint=unrecorded.hint,
            retry=unrecorded.retry,
        ) from unrecorded
    context.log(
        f"backup {name} verified at level {level} in {human_seconds(report.duration_seconds)}: "
        + ", ".join(_named(check) for check in report.checks)
    )
    evidence = read_evidence(repository, manifest.series, manifest.id)
    for line in evidence.ignored:  # perhaps this verification, if the clocks of two workers differ
        context.log(f"warning: ignored {line}")
    _require_verified(evidence, level)
    return reference_of(repository, evidence)


def _check_request(
    level: str, manifest: Manifest, scratch: ConnectionParams | None, checks: tuple[SqlCheck, ...]
) -> None:
    """Check that the arguments can be combined.

    :raises ConfigurationError: they cannot.
    """
    if scratch is not None and level != "restore":
        raise ConfigurationError(
            f"a scratch server cannot be combined with level {level}", hint="Choose level restore, or leave it out."
        )
    if checks and (level != "restore" or manifest.kind != "database"):
        what = f"level {level}" if level != "restore" else "the backup of a cluster"
        raise ConfigurationError(
            f"SQL checks cannot be combined with {what}", hint="Choose level restore of the backup of one database."
        )


def _level_to_verify(level: str, manifest: Manifest, context: RunContext) -> str:
    """Return the level; ``archive`` instead of ``integrity`` for a dump that this package compressed."""
    name = manifest.artifact.name
    if level != "integrity" or not manifest.artifact.rewritten:
        return level
    if why := _not_decrypted(manifest, context):
        context.log(f"verifying the encrypted bytes of {name} only: {why}")
        return level
    context.log(f"verifying at level archive, since {US} compressed {name}")
    return "archive"


def _record(
    repository: Repository, manifest: Manifest, report: Verification, context: RunContext
) -> tuple[str, PgBackupError | None]:
    """Record a verification; return where, and the error if that failed: the verdict must not be lost with its record.

    :raises BackupNotFound: the backup was removed.
    """
    stored = stored_details(report, manifest)
    for check, kept in zip(report.checks, stored.checks, strict=True):
        if check != kept:
            context.log(f"{check.name}: {check.detail} (recorded without values, as the backup is encrypted)")
    try:
        where = repository.location(write_verification(repository, manifest, stored))
        context.on_verification(report)
    except BackupNotFound:
        raise
    except (RepositoryError, DiskError) as error:
        return "", error
    return where, None


def _not_passed(
    repository: Repository,
    manifest: Manifest,
    report: Verification,
    run: VerificationRun,
    where: str,
    unrecorded: PgBackupError | None,
) -> PgBackupError:
    """Return the error for a backup that failed, or was not proven.

    :param where: the location of the record; '' if it could not be written, because of `unrecorded`.
    """
    lost = f"; the result could not be recorded: {unrecorded.message}" if unrecorded else ""
    if (unproven := run.not_proven) is not None:
        return NotProven(f"{unproven.message}{lost}", hint=unproven.hint, retry=unproven.retry) if lost else unproven
    wrong = [f"{check.name}: {check.detail}" for check in report.checks if check.result == "fail"]
    more = f" (and {len(wrong) - 1} more{f', in {where}' if where else ''})" if len(wrong) > 1 else ""
    return VerificationFailed(
        f"backup {manifest.name} in {repository.uri} failed verification at level {report.level}: "
        f"{wrong[0]}{more}{lost}",
        hint=run.hint,
        problems=wrong,
    )


def _require_verified(evidence: Evidence, level: str) -> None:
    """Require that a backup that has just passed at a level counts as verified.

    :raises VerificationFailed: it failed at a higher level before.
    :raises NotProven: this pass does not count, for example because of a clock.
    """
    backup = evidence.backup
    passes = f"backup {backup.name} passes level {level}"
    if backup.state == "failed":
        last = standing_failure(backup.verifications)
        raise VerificationFailed(
            f"{passes}, but still counts as failed, since it failed at level {last.level} on {human_time(last.at)}",
            hint=f"Verify it at level {last.level}, or use another backup.",
        )
    if backup.level is None:
        raise NotProven(
            f"{passes}, but does not count as verified: "
            + (backup.problem or "; ".join(evidence.ignored) or "its files changed during the verification"),
            hint="Check the file that is named, and the clocks of the machines that dump and verify.",
        )


def _not_decrypted(manifest: Manifest, context: RunContext) -> str | None:
    """Return why the artifact cannot be decrypted."""
    try:
        return None if not manifest.artifact.encryption or context.require_identities() else "no identity was given"
    except NotProven as error:
        return error.message


def _named(check: Check) -> str:
    """Return the detail of a check that passed; that of an SQL check says little without its name."""
    if check.name.startswith(SQL_CHECK):
        return f"{check.name}: {check.detail}"
    return check.detail or check.name
