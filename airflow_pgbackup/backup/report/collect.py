"""Read repositories and return what was verified of their series within a period.

The state at its end is that of the overview, which reads the files of the backups that decide. How many backups were
made, verified and rehearsed within the period is counted from file names. Of the backup sets of the period, all
backups are read until one of the set cannot be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.overview import Overview, SeriesStatus, Targets, overview
from airflow_pgbackup.backup.overview.model import by_database, plain, sentence
from airflow_pgbackup.backup.set_members import SetMembers
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, ManifestError, PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, Catalogue, read_catalogue
from airflow_pgbackup.repository.set_files import list_sets, read_listed_set

MOST_DAYS = 366
DAY_STATES = ("none", "failed", "unverified", "verified", "rehearsed")
"""What a day proved of a series, weakest first."""


@dataclass(frozen=True, kw_only=True)
class SeriesPeriod:
    """A series within the period.

    :param made: backups that were started.
    :param verified, failed, not_proven, unverified: how many of them are in that state now.
    :param rehearsals: passed rehearsals, of whichever backup.
    :param size_before: bytes of the newest backup before the period; None: there is none.
    :param days: one of :data:`DAY_STATES` for each day, oldest first: the best of the backups that were started on it.
    """

    status: SeriesStatus
    made: int
    verified: int
    failed: int
    not_proven: int
    unverified: int
    rehearsals: int
    size_before: int | None
    days: tuple[str, ...]

    @property
    def growth(self) -> float | None:
        """The growth of the artifact within the period in percent; None where it is not known."""
        newest = self.status.newest
        if newest is None or not self.size_before:
            return None
        return round((newest.size - self.size_before) * 100 / self.size_before, 1)


@dataclass(frozen=True, kw_only=True)
class RepositoryReport:
    """One repository.

    :param overview: None if it could not be read, for the reason in ``problem``.
    :param series: worst first.
    :param complete_sets, damaged_sets, partial_sets: how many were made within the period. A damaged one was complete
        when it was made, but its record cannot be read, or a backup of it failed or was removed.
    """

    uri: str
    overview: Overview | None
    problem: str | None
    hint: str | None
    series: tuple[SeriesPeriod, ...] = ()
    complete_sets: int = 0
    damaged_sets: int = 0
    partial_sets: int = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was proven in the last days.

    :param start, end: of the period, aware UTC.
    """

    start: datetime
    end: datetime
    days: int
    repositories: tuple[RepositoryReport, ...]

    @property
    def in_danger(self) -> tuple[SeriesStatus, ...]:
        """The databases that could be restored from no repository to a point within their target, worst first."""
        return tuple(one for one in self._databases if not one.fine)

    @property
    def all_restorable(self) -> bool:
        """Whether every repository was read and every database can be restored. Not if a repository has no backup, or
        if a set that could not be read may name more databases."""
        some = any(one.status == "restorable" for one in self._databases)
        return some and not self.in_danger and not self.unread and not self.empty and not self.unknown

    @property
    def unknown(self) -> int:
        """How many notes are about backup sets that may name databases without a backup."""
        return sum(each.overview.unknown for each in self.repositories if each.overview is not None)

    @property
    def unread(self) -> tuple[RepositoryReport, ...]:
        """The repositories that could not be read."""
        return tuple(each for each in self.repositories if each.overview is None)

    @property
    def empty(self) -> tuple[RepositoryReport, ...]:
        """The repositories without a backup."""
        return tuple(each for each in self.repositories if each.overview is not None and each.overview.empty)

    @property
    def sentence(self) -> str:
        """The report in one sentence or two."""
        found = sentence(self._databases, self.end, empty=len(self.empty))
        if not (unread := self.unread):
            return found
        which = (
            "The repository"
            if len(self.repositories) == 1
            else f"{len(unread)} of {len(self.repositories)} repositories"
        )
        start = f"{which} could not be read."
        return f"{start} {found}" if len(unread) < len(self.repositories) else start

    @property
    def _databases(self) -> list[SeriesStatus]:
        return by_database(one.status for each in self.repositories for one in each.series)

    def as_json(self) -> dict[str, object]:
        """Return plain JSON: times as ISO 8601, spans in seconds."""
        document = {
            "start": self.start,
            "end": self.end,
            "days": self.days,
            "sentence": self.sentence,
            "repositories": [_as_json(each) for each in self.repositories],
        }
        return {name: plain(value) for name, value in document.items()}


def report(
    *,
    repositories: Sequence[Repository],
    days: int = 7,
    targets: Targets | None = None,
    skip_unreadable: bool = True,
    now: datetime | None = None,
    context: RunContext | None = None,
) -> Report:
    """Return what was proven in the last days.

    :param days: length of the period, 1 to 366.
    :param skip_unreadable: whether to list a repository that cannot be read in the report; otherwise its error is
        raised.
    :param now: its end, aware; by default the clock's time.
    :raises ConfigurationError: an invalid period, or no repository.
    :raises RepositoryError: a repository cannot be read.
    :raises Canceled: asked to stop.
    """
    if type(days) is not int or not 1 <= days <= MOST_DAYS:
        raise ConfigurationError(f"invalid number of days {days!r}", hint=f"Give a number from 1 to {MOST_DAYS}.")
    if not repositories:
        raise ConfigurationError("no repository given", hint="Name at least one repository.")
    context = context or RunContext()
    now = now or datetime.now(timezone.utc)
    found = []
    for repository in repositories:
        context.cancel.check()
        try:
            found.append(_read(repository, days, targets, now, context))
        except PgBackupError as error:
            context.cancel.check()
            if not skip_unreadable:
                raise
            found.append(RepositoryReport(uri=repository.uri, overview=None, problem=error.message, hint=error.hint))
    return Report(start=now - timedelta(days=days), end=now, days=days, repositories=tuple(found))


def _read(
    repository: Repository, days: int, targets: Targets | None, now: datetime, context: RunContext
) -> RepositoryReport:
    state = overview(repository=repository, targets=targets, now=now, cancel=context.cancel)
    catalogue = read_catalogue(repository)
    listed = {series.path: backups for series, backups in catalogue.by_series().items()}
    start = now - timedelta(days=days)
    sets = Counter(_set_states(repository, catalogue, start, now, context))
    return RepositoryReport(
        uri=repository.uri,
        overview=state,
        problem=None,
        hint=None,
        series=tuple(_period(one, listed.get(one.series, []), start, now, days) for one in state.series),
        complete_sets=sets["complete"],
        damaged_sets=sets["damaged"],
        partial_sets=sets["partial"],
    )


def _set_states(
    repository: Repository, catalogue: Catalogue, start: datetime, now: datetime, context: RunContext
) -> Iterator[str]:
    """Yield ``complete``, ``damaged`` or ``partial`` for each set of the period."""
    listed = {(backup.series.path, backup.id) for backup in catalogue.backups}
    members = SetMembers(repository, now=now)
    for one in list_sets(repository):
        if not start < one.started_at <= now + SKEW:
            continue
        context.cancel.check()
        try:
            found = read_listed_set(repository, one, now=now)
        except (BackupNotFound, ManifestError):
            yield "damaged" if one.status == "complete" else "partial"
            continue
        if found.status != "complete":
            yield found.status
            continue
        exist = all((each.series, each.id) in listed for each in found.members)
        yield "complete" if exist and members.are_usable(found.members) else "damaged"


def _period(status: SeriesStatus, listed: Sequence[Backup], start: datetime, now: datetime, days: int) -> SeriesPeriod:
    past = [one for one in listed if one.started_at <= now + SKEW]
    made = [one for one in past if one.started_at > start]
    before = [one for one in past if one.started_at <= start]
    states = Counter(one.state for one in made)
    rehearsals = [
        seen
        for one in past
        for seen in one.verifications
        if (seen.level, seen.result) == ("restore", "pass") and start < seen.at <= now + SKEW
    ]
    return SeriesPeriod(
        status=status,
        made=len(made),
        verified=states["verified"],
        failed=states["failed"],
        not_proven=states["notproven"],
        unverified=states["written"] + states["incomplete"],
        rehearsals=len(rehearsals),
        size_before=before[0].size if before else None,
        days=_by_day(made, start, days),
    )


def _by_day(made: Iterable[Backup], start: datetime, days: int) -> tuple[str, ...]:
    best = [0] * days
    for one in made:
        day = min(days - 1, int((one.started_at - start) / timedelta(days=1)))
        best[day] = max(best[day], DAY_STATES.index(_proved(one)))
    return tuple(DAY_STATES[one] for one in best)


def _proved(backup: Backup) -> str:
    if backup.state == "verified":
        return "rehearsed" if backup.level == "restore" else "verified"
    return "failed" if backup.state == "failed" else "unverified"


def _as_json(each: RepositoryReport) -> dict[str, object]:
    return {**asdict(each), "overview": None if each.overview is None else each.overview.as_json()}
