"""Read a repository and return its overview.

One listing of the repository shows how many backups there are, their sizes and ages. Whether a backup counts is decided
by its files, as freshness decides it: for each series, those of the newest backup, of the newest verified one, and of
the one that was rehearsed last, which are often the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from airflow_pgbackup.backup.overview.model import (
    LIMIT,
    MOST_SETS,
    STATUSES,
    THREADS,
    BackupFacts,
    Overview,
    SeriesStatus,
    SetStatus,
    badness,
    span,
)
from airflow_pgbackup.backup.overview.targets import Target, Targets
from airflow_pgbackup.backup.series_reader import SeriesReader, rows_of
from airflow_pgbackup.backup.set_retention import ServerSets
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import plan

RECENT = 30
"""How many backups of a series the trends show."""

_MOST_NOTES = 20
_MOST_MISSING = 1000


def overview(
    *, repository: Repository, targets: Targets | None = None, now: datetime | None = None, cancel: Cancel | None = None
) -> Overview:
    """Return the state of each series of a repository, worst first, and of its backup sets.

    :param now: the current time, with a time zone; by default the clock's. Later backups are ignored.
    :raises RepositoryNotFound: there is no repository, which is not the same as an empty one.
    :raises RepositoryError: it could not be read, which says nothing about the backups.
    """
    now = now or datetime.now(timezone.utc)
    targets = targets or Targets()
    cancel = cancel or Cancel()
    notes: list[str] = []
    catalogue = read_catalogue(repository)
    listed = catalogue.by_series()
    sets = ServerSets.of(
        repository, catalogue, now, notes.append, complete=True, all_servers=True, limit=LIMIT, most_sets=MOST_SETS
    )
    newest = {server: content for server in sets.listed if (content := sets.newest(server)) is not None}
    stored = {backup.identity for backup in catalogue.backups}
    missing = {series: lack for content in newest.values() for series, lack in _missing_of(content, stored, notes)}
    dropped = sets.dropped(listed)
    unknown = len(notes)
    # This may read, and note, all sets of a server.
    since = sets.dropped_since([one for one in listed if targets.of(one).policy is not None])
    kept = sets.kept()

    def judge(item: tuple[Series, list[Backup]]) -> SeriesStatus:
        cancel.check()
        series, backups = item
        target = targets.of(series)
        expiring = None
        if target.policy is not None:
            expiring = sum(not decision.keep for decision in plan(backups, target.policy, now, kept, since))
        status = _Judge(repository, series, target, now).judge(backups, series in dropped, expiring)
        lack = missing.get(series)
        if lack and not any(one.started_at >= lack.since for one in backups):
            return replace(status, reason=f"{status.reason}; {lack.reason}")
        return status

    with request_threads(THREADS) as pool:
        series = list(pool.map(judge, listed.items()))
    series += [_without_backup(one, targets.of(one), lack.reason) for one, lack in missing.items() if one not in listed]
    series = [replace(one, expected=one.server in targets.servers) for one in _identified(series)]
    series += _servers_without_backup(targets, {one.server for one in series})
    return Overview(
        uri=repository.uri,
        now=now,
        series=tuple(sorted(series, key=badness)),
        sets=tuple(_of_sets(sets, server) for server in newest),
        notes=tuple(notes[:_MOST_NOTES]),
        unknown=unknown,
    )


def series_status(
    repository: Repository, series: Series, backups: Sequence[Backup], target: Target, now: datetime, *, dropped: bool
) -> SeriesStatus:
    """Return the state of one series.

    :param backups: all of the series, newest first, as a listing shows them.
    :param dropped: whether the database is not on its server any more.
    """
    return _Judge(repository, series, target, now).judge(backups, dropped, expiring=None)


class _Judge:
    def __init__(self, repository: Repository, series: Series, target: Target, now: datetime) -> None:
        self._series, self._target, self._now = series, target, now
        self._reader = SeriesReader(repository, now, limit=LIMIT)

    def judge(self, listed: Sequence[Backup], dropped: bool, expiring: int | None) -> SeriesStatus:
        past = [one for one in listed if one.started_at <= self._now + SKEW]
        verified = self._reader.newest_verified(past, self._target.level)
        newest = self._reader.read(past[0]) if past else None
        status, reason = self._status(newest, verified)
        if dropped:
            status, reason = "dropped", STATUSES["dropped"]
        rehearsal = self._reader.last_rehearsal(past)
        return SeriesStatus(
            series=self._series.path,
            server=self._series.server,
            database=self._series.database or f"@{self._series.kind}",
            status=status,
            reason=reason,
            max_age=self._target.max_age.total_seconds(),
            level=self._target.level,
            system_identifier=_system(verified) or _system(newest),
            newest=_proven(newest),
            verified=_proven(verified),
            rehearsed_at=rehearsal.finished_at if rehearsal else None,
            restore_seconds=rehearsal.restore_seconds if rehearsal else None,
            backups=len(listed),
            size=sum(one.size for one in listed),
            recent=tuple(map(facts, reversed(past[:RECENT]))),
            expiring=expiring,
        )

    def _status(self, newest: Evidence | None, verified: Evidence | None) -> tuple[str, str]:
        target = self._target
        allowed = span(target.max_age)
        if newest is None:
            return "not verified", "every backup starts in the future; check the clocks"
        age = self._now - verified.backup.started_at if verified else None
        later = "" if verified and newest.backup.id == verified.backup.id else f"; the newest {newest.backup.standing}"
        if age is not None and age <= target.max_age:
            return "restorable", f"verified at {_level(verified)}, {span(age)} old{later}"
        status = "failed" if newest.backup.state == "failed" else "late" if verified else "not verified"
        if age is not None:
            return status, f"the newest verified backup is {span(age)} old, more than {allowed}{later}"
        return status, f"no backup is verified at {target.level}; the newest {newest.backup.standing}"


def facts(backup: Backup, rows: int | None = None) -> BackupFacts:
    """Return a backup as an overview shows it."""
    # Whoever copies a repository, or changes its owner, makes its files younger than the verifications.
    seen = (each.at for each in backup.verifications if each.at >= backup.started_at)
    seconds = (min([backup.committed_at, *seen]) - backup.started_at).total_seconds()
    return BackupFacts(
        id=backup.id,
        started_at=backup.started_at,
        state=backup.state,
        level=backup.level,
        size=backup.size,
        rows=rows,
        # Of an adopted or copied backup, that is no duration.
        seconds=seconds if 0 <= seconds < timedelta(days=2).total_seconds() else None,
    )


def _proven(evidence: Evidence | None) -> BackupFacts | None:
    return facts(evidence.backup, rows_of(evidence.verifications)) if evidence else None


def _system(evidence: Evidence | None) -> str | None:
    return evidence.manifest.source.system_identifier if evidence and evidence.manifest else None


def _level(evidence: Evidence | None) -> str:
    return (evidence and evidence.backup.level) or "no level"


class _Lack(NamedTuple):
    """Why the newest backup set, which was started then, has no backup of a series."""

    since: datetime
    reason: str


def _missing_of(
    content: BackupSet, stored: Collection[tuple[Series, str]], notes: list[str]
) -> Iterator[tuple[Series, _Lack]]:
    """Yield the series of which a set has no backup, or one that is not stored any more, each with the reason.

    Add notes of those whose names no series can have.
    """
    lacks = f"the newest backup set of {content.server} lacks it"
    for member in content.members:
        if member.identity not in stored:
            yield member.parsed_series, _Lack(content.started_at, f"{lacks}: backup {member.id} does not exist")
    if content.globals_missing:
        yield Series(content.server, None, "globals"), _Lack(content.started_at, f"{lacks}: {content.globals_missing}")
    for absent in content.missing[:_MOST_MISSING]:
        series = Series(content.server, absent.database)
        try:
            series.path  # noqa: B018
        except ConfigurationError as error:
            notes.append(f"backup set {content.id} of {content.server} lacks a database: {error.message}")
        else:
            yield series, _Lack(content.started_at, f"{lacks}: {absent.reason}")
    if (more := len(content.missing) - _MOST_MISSING) > 0:
        notes.append(f"backup set {content.id} of {content.server} lacks {more} more databases")


def _identified(series: Sequence[SeriesStatus]) -> list[SeriesStatus]:
    """Return the series of a repository, each with a system identifier where one is known: its own, or else that of the
    newest other series of its server."""
    newest: dict[str, str] = {}
    for one in sorted(series, key=lambda one: one.newest.started_at.timestamp() if one.newest else 0.0):
        if one.system_identifier:
            newest[one.server] = one.system_identifier
    return [replace(one, system_identifier=one.system_identifier or newest.get(one.server)) for one in series]


def _servers_without_backup(targets: Targets, known: Collection[str]) -> Iterator[SeriesStatus]:
    for server, databases in targets.servers.items():
        if server not in known:
            for database in databases or ["*"]:
                series = Series(server, database)
                found = _without_backup(series, targets.of(series), "there is no backup of this server yet")
                yield replace(found, expected=True, server_missing=True)


def _without_backup(series: Series, target: Target, reason: str) -> SeriesStatus:
    return SeriesStatus(
        series=series.path,
        server=series.server,
        database=series.database or f"@{series.kind}",
        status="no backup",
        reason=reason,
        max_age=target.max_age.total_seconds(),
        level=target.level,
    )


def _of_sets(sets: ServerSets, server: str) -> SetStatus:
    newest, complete = sets.newest(server), sets.newest_usable.get(server)
    newest_complete = sets.newest_complete.get(server)
    assert newest is not None  # noqa: S101  the caller has it
    missing: Iterable[tuple[str, str]] = ((one.database, one.reason) for one in newest.missing)
    if newest.globals_missing:
        missing = [("@globals", newest.globals_missing), *missing]
    return SetStatus(
        server=server,
        newest=newest.id,
        status=newest.status,
        complete=complete.id if complete else None,
        complete_at=complete.started_at if complete else None,
        databases=len(complete.databases) if complete else 0,
        missing=tuple(missing),
        damaged=newest_complete.id if newest_complete and newest_complete != complete else None,
    )
