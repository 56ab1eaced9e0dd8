"""One series: its backups over time, and what the next prune would do with each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone

from airflow_pgbackup.backup.overview.collect import facts, series_status
from airflow_pgbackup.backup.overview.model import LIMIT, MOST_SETS, THREADS, BackupFacts, SeriesStatus
from airflow_pgbackup.backup.overview.targets import Target
from airflow_pgbackup.backup.series_reader import rows_of
from airflow_pgbackup.backup.set_retention import ServerSets
from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, read_each
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import Decision, plan

MOST = 200
"""Backups of a series that are shown, the newest."""
READ = 30
"""Of those, the newest whose files are read; the states of the others are those that file names claim."""


@dataclass(frozen=True, kw_only=True)
class TimelineEntry:
    """A backup of the series.

    :param restore_seconds: of its last passed rehearsal.
    :param proven: whether its files were read.
    :param keep: whether the next prune keeps it; None: retention is not known.
    :param reasons: why it does, or not.
    """

    backup: BackupFacts
    pinned: bool
    proven: bool
    problem: str | None = None
    restore_seconds: float | None = None
    keep: bool | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SeriesDetail:
    """A series over time.

    :param timeline: newest first.
    :param total: how many backups the series has.
    """

    uri: str
    now: datetime
    status: SeriesStatus
    timeline: tuple[TimelineEntry, ...]
    total: int


def series_detail(
    *, repository: Repository, series: Series, target: Target, now: datetime | None = None
) -> SeriesDetail:
    """Return a series with its newest backups.

    :raises BackupNotFound: the repository has no backup of it.
    :raises RepositoryError: it could not be read.
    """
    now = now or datetime.now(timezone.utc)
    catalogue = read_catalogue(repository, series=[series])
    listed = list(catalogue.backups)
    if not listed:
        raise BackupNotFound(f"{repository.uri} has no backup of {series}", hint="Choose a series that is listed.")
    decisions: dict[str, Decision] = {}
    sets = ServerSets.of(
        repository, catalogue, now, lambda line: None, complete=False, limit=LIMIT, most_sets=MOST_SETS
    )
    if target.policy is not None:
        dropped = sets.dropped_since([series])
        decisions = {one.backup.id: one for one in plan(listed, target.policy, now, sets.kept(), dropped)}
    shown = listed[:MOST]
    # Each evidence is dropped once its entry is made: it may have as many tables as a forger likes.
    evidence = read_each(repository, shown[:READ], now=now, ahead=THREADS, limit=LIMIT)
    entries = [_entry(one.backup, one, decisions.get(one.backup.id)) for one in evidence]
    entries += [_entry(one, None, decisions.get(one.id)) for one in shown[READ:]]
    return SeriesDetail(
        uri=repository.uri,
        now=now,
        status=series_status(repository, series, listed, target, now, dropped=series in sets.dropped([series])),
        timeline=tuple(entries),
        total=len(listed),
    )


def _entry(backup: Backup, evidence: Evidence | None, decision: Decision | None) -> TimelineEntry:
    seconds, rows = None, None
    if evidence:
        rows = rows_of(evidence.verifications)
        passed = [one for one in evidence.verifications if (one.level, one.result) == ("restore", "pass")]
        seconds = passed[-1].restore_seconds if passed else None
    shown = facts(backup, rows)
    if evidence and evidence.manifest and evidence.manifest.duration_seconds:  # an adopted dump has none
        shown = replace(shown, seconds=evidence.manifest.duration_seconds)
    return TimelineEntry(
        backup=shown,
        pinned=backup.pinned,
        proven=evidence is not None,
        problem=backup.problem,
        restore_seconds=seconds,
        keep=decision.keep if decision else None,
        reasons=decision.reasons if decision else (),
    )
