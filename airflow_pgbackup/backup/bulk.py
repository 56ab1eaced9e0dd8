"""Verify, upload, rewrap or rehearse many backups, one after the other: each yields a result; no failure ends the loop.

Only a request to stop ends the loop. Errors of one backup, and of a repository or disk that may be available again for
the next one, become its result.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.copied import require_no_own_failure
from airflow_pgbackup.backup.drill import choose_drill
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.rewrap import require_recipients, rewrap
from airflow_pgbackup.backup.rewrapped import find_rewrapped, is_wrapped
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import (
    BackupNotFound,
    Canceled,
    ConfigurationError,
    NotProven,
    PgBackupError,
    VerificationFailed,
)
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.layout import Series, check_level, reaches

FAILED, ERROR, NOT_PROVEN, DONE, SKIPPED = "failed", "error", "not proven", "done", "skipped"
OUTCOMES = (FAILED, ERROR, NOT_PROVEN, DONE, SKIPPED)
"""Worst first. ``failed``: the backup is not what was dumped. ``error``: something else failed, and nothing is known
about the backup."""


@dataclass(frozen=True, kw_only=True)
class BackupResult:
    """The result for one backup.

    :param outcome: one of :data:`OUTCOMES`.
    :param reference: of the backup, as the verb returned it; None unless the outcome is ``done``.
    :param reason: why the outcome is another one.
    """

    series: Series
    id: str
    outcome: str
    seconds: float
    reference: Mapping[str, object] | None = None
    reason: str | None = None
    hint: str | None = None

    @property
    def name(self) -> str:
        return f"{self.series}/{self.id}"

    def as_json(self) -> dict[str, object]:
        return {
            "series": self.series.path,
            "id": self.id,
            "outcome": self.outcome,
            "duration_seconds": round(self.seconds, 3),
            "reference": None if self.reference is None else dict(self.reference),
            "reason": self.reason,
            "hint": self.hint,
        }


_Name = tuple[Series, str]
_Work = Callable[[Series, str], Mapping[str, object]]


class _Skip(Exception):
    """Leave out this backup, for the reason given."""


def verify_all(
    *,
    repository: Repository,
    level: str = "archive",
    newest: int | None = None,
    server: str | None = None,
    series: Sequence[Series] | None = None,
    unverified: bool = False,
    scratch: ConnectionParams | None = None,
    context: RunContext | None = None,
) -> Iterator[BackupResult]:
    """Verify the backups of a repository, series by series, the newest first; see :func:`.verify.verify`.

    :param newest: only so many of each series; None: all.
    :param server: only the series of this server.
    :param series: only these series.
    :param unverified: skip backups that are verified at `level` or a higher one already: a second call goes on where
        an interrupted one stopped.
    :raises ConfigurationError: an invalid request.
    :raises RepositoryError: the repository could not be listed.
    :raises Canceled: asked to stop. All are raised by ``next()``.
    """
    check_level(level, "level", required=True)
    if scratch is not None and level != "restore":
        raise ConfigurationError(
            f"a scratch server cannot be combined with level {level}", hint="Rehearse at level restore."
        )
    context = context or RunContext()

    def work(one: Series, id: str) -> Mapping[str, object]:
        evidence = read_evidence(repository, one, id)
        if unverified and _too_little(evidence, level) is None:
            raise _Skip(f"it is verified at level {evidence.backup.level} already")
        reference = reference_of(repository, evidence)
        return verify(reference=reference, repository=repository, level=level, scratch=scratch, context=context)

    yield from _each(_chosen(repository, newest, server, series), work, "verifying", context, repository)


def upload_all(
    *,
    source: Repository,
    destination: Repository,
    minimum_level: str | None = "archive",
    newest: int | None = None,
    server: str | None = None,
    series: Sequence[Series] | None = None,
    context: RunContext | None = None,
) -> Iterator[BackupResult]:
    """Upload the backups of a repository, the newest of each series first; see :func:`.upload.upload`.

    Those that `destination` has already are skipped, after their newer verifications, failures included, were copied;
    those that are not verified at `minimum_level` are skipped too.

    :param newest: only so many of each series, of any state; None: all.
    :param server: only the series of this server.
    :param series: only these series.
    :raises ConfigurationError, RepositoryError, Canceled: as :func:`verify_all`.
    """
    check_level(minimum_level)
    if destination.uuid == source.uuid:
        raise ConfigurationError(
            f"source and destination are the same repository, {destination.uri}", hint="Name another destination."
        )
    context = context or RunContext()
    backups = _chosen(source, newest, server, series)
    there = {one.identity for one in read_catalogue(destination).backups}

    def work(one: Series, id: str) -> Mapping[str, object]:
        evidence = read_evidence(source, one, id)
        reference = reference_of(source, evidence)
        why = _too_little(evidence, minimum_level)
        if why and (one, id) not in there:
            raise _Skip(why)
        try:
            copied = upload(
                reference=reference,
                source=source,
                destination=destination,
                minimum_level=minimum_level,
                context=context,
            )
        except VerificationFailed:
            if not why:
                raise
            copy = read_evidence(destination, one, id)
            require_no_own_failure(destination, copy, read_evidence(source, one, id))
            raise _Skip(why) from None
        if (one, id) in there:
            raise _Skip(f"it is already in {destination.uri}")
        return copied

    yield from _each(backups, work, "uploading", context, source, destination)


def rewrap_all(
    *,
    repository: Repository,
    newest: int | None = None,
    server: str | None = None,
    series: Sequence[Series] | None = None,
    context: RunContext | None = None,
) -> Iterator[BackupResult]:
    """Encrypt the backups of a repository to other recipients, the newest of each series first; see
    :func:`.rewrap.rewrap`.

    Those that are encrypted to these recipients already, or were rewrapped for them, are skipped: a second call goes on
    where an interrupted one stopped.

    :param newest: only so many of each series, those that earlier calls made included.
    :param server: only the series of this server.
    :param series: only these series.
    :raises ConfigurationError, RepositoryError, Canceled: as :func:`verify_all`.
    """
    context = context or RunContext()
    recipients = require_recipients(context)

    def work(one: Series, id: str) -> Mapping[str, object]:
        evidence = read_evidence(repository, one, id)
        manifest = evidence.require_manifest()
        if is_wrapped(manifest, recipients):
            raise _Skip("it is encrypted to these recipients already")
        made = find_rewrapped(repository, manifest, recipients)
        reference = rewrap(reference=reference_of(repository, evidence), repository=repository, context=context)
        if made is not None:
            raise _Skip(f"it is rewrapped already, as {made.backup.id}")
        return reference

    yield from _each(_chosen(repository, newest, server, series), work, "rewrapping", context, repository)


def drill(
    *,
    repository: Repository,
    max_bytes: int,
    scratch: ConnectionParams | None = None,
    context: RunContext | None = None,
) -> Iterator[BackupResult]:
    """Rehearse the newest backup of each series whose turn it is; see :func:`.drill.choose_drill`.

    :param max_bytes: as for :func:`.drill.choose_drill`.
    :param scratch: as for :func:`.verify.verify`.
    :raises BackupNotFound: no series has a backup to rehearse.
    :raises ConfigurationError, RepositoryError, Canceled: as :func:`verify_all`.
    """
    if max_bytes < 1:
        raise ConfigurationError(f"invalid number of bytes {max_bytes}", hint="Give one or more.")
    context = context or RunContext()
    chosen = choose_drill(repository, max_bytes=max_bytes, log=context.log)
    references = {(Series.parse(str(one["series"])), str(one["id"])): one for one in chosen}

    def work(series: Series, id: str) -> Mapping[str, object]:
        reference = references[series, id]
        return verify(reference=reference, repository=repository, level="restore", scratch=scratch, context=context)

    yield from _each([*references], work, "rehearsing", context, repository)


def _chosen(
    repository: Repository, newest: int | None, server: str | None, series: Sequence[Series] | None
) -> list[_Name]:
    """Return the backups to work on, by series, newest first.

    :raises ConfigurationError: `newest` is not a positive number.
    """
    if newest is not None and newest < 1:
        raise ConfigurationError(f"invalid number of backups {newest}", hint="Give one or more.")
    listed = read_catalogue(repository, server=server, series=series).by_series()
    return [backup.identity for members in listed.values() for backup in members[:newest]]


def summary(results: Sequence[BackupResult]) -> dict[str, int]:
    """Return the number of backups by outcome, worst first, each outcome named."""
    counted = Counter(one.outcome for one in results)
    return {outcome: counted[outcome] for outcome in OUTCOMES}


def worst(results: Sequence[BackupResult]) -> str:
    """Return the worst outcome; skipped backups count as done."""
    found = {one.outcome for one in results}
    return next((outcome for outcome in OUTCOMES[:3] if outcome in found), DONE)


def _each(
    names: Sequence[_Name], work: _Work, doing: str, context: RunContext, *repositories: Repository
) -> Iterator[BackupResult]:
    with context.step(f"{doing} backups", items_total=len(names), noun="backup") as step:
        for name in names:
            context.cancel.check()
            step.begin_item()
            yield _result(name, work, repositories)


def _result(name: _Name, work: _Work, repositories: Sequence[Repository]) -> BackupResult:
    started = time.monotonic()

    def result(outcome: str, error: PgBackupError | None = None, **more: object) -> BackupResult:
        reason = {"reason": error.message, "hint": error.hint} if error else {}
        known = {"series": name[0], "id": name[1], "seconds": time.monotonic() - started}
        return BackupResult(outcome=outcome, **known, **reason, **more)  # type: ignore[arg-type]

    def confirm() -> None:
        for repository in repositories:
            repository.confirm()

    try:
        confirm()
        try:
            return result(DONE, reference=work(*name))
        except BackupNotFound as error:  # removed since it was listed, but not with its repository
            confirm()
            return result(SKIPPED, error)
    except _Skip as why:
        return result(SKIPPED, reason=str(why))
    except Canceled:
        raise
    except VerificationFailed as error:
        return result(FAILED, error)
    except NotProven as error:
        return result(NOT_PROVEN, error)
    except PgBackupError as error:
        return result(ERROR, error)


def _too_little(evidence: Evidence, minimum: str | None) -> str | None:
    """Return why a backup is not verified at a level; None if it is."""
    if minimum is None or reaches(evidence.backup.level, minimum):
        return None
    return f"it {evidence.backup.shortcoming(minimum)}"
