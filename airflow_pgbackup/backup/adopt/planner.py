"""Make the plan of an adoption. This reads every dump to its end once, and changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone, tzinfo

from airflow_pgbackup.backup.adopt.backup_time import MTIME, NAME, choose_time
from airflow_pgbackup.backup.adopt.database_names import DatabaseNames, Label, stem
from airflow_pgbackup.backup.adopt.found_dump import FoundDump, read_dump
from airflow_pgbackup.backup.adopt.known_backups import KnownBackups
from airflow_pgbackup.backup.adopt.name_times import FUTURE, Ambiguous, NameTime, NameTimes
from airflow_pgbackup.backup.adopt.plan import AdoptionPlan, PlannedDump, Skipped
from airflow_pgbackup.backup.adopt.sources import Candidate, DumpSource, reason
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.errors import ConfigurationError, NotProven, PgBackupError, RepositoryError, VerificationFailed
from airflow_pgbackup.quantities import counted, human_time
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import find_zone
from airflow_pgbackup.repository.layout import Series

_SOURCES = ("header", "name", "mtime")
_DIGITS_OF_A_DATE = 6


def plan_adoption(
    *,
    repository: Repository,
    sources: Sequence[DumpSource],
    server: str,
    database: str | None = None,
    database_patterns: Sequence[str] = (),
    time_patterns: Sequence[str] = (),
    time_zone: str = "UTC",
    context: RunContext | None = None,
) -> AdoptionPlan:
    """Return what an adoption would do.

    :param sources: where the dumps are; a file that two of them reach counts once.
    :param server: the first part of their series.
    :param database: of the scripts that do not name theirs, and
    :param database_patterns: the same by file name; see :class:`.DatabaseNames`. Archives and scripts made with
        ``--create`` name their database.
    :param time_patterns: of the times in file names, instead of those that are detected; see :class:`.NameTimes`.
    :param time_zone: of the machine that made and named the dumps.
    :raises ConfigurationError: an invalid pattern or time zone, or a glob that matches nothing.
    :raises RepositoryError: the repository or a source cannot be read.
    """
    context = context or RunContext()
    repository.uuid  # noqa: B018  raises if there is no repository, before hours of reading
    planner = _Planner(repository, server, context, find_zone(time_zone))
    NameTimes((), planner.zone, time_patterns)  # an invalid pattern is reported before hours of reading, too
    DatabaseNames((), database, database_patterns)
    planner.read(sources)
    planner.place(time_patterns, database, database_patterns)
    planner.drop_guesses()
    planner.drop_dumps_of_few_tables()
    planner.drop_duplicates()
    planner.compare_with_repository()
    return planner.plan


class _Planner:
    def __init__(self, repository: Repository, server: str, context: RunContext, zone: tzinfo) -> None:
        self.plan = AdoptionPlan(repository, server)
        self.found: list[FoundDump] = []
        self.zone = zone
        self._context = context

    def read(self, sources: Sequence[DumpSource]) -> None:
        seen: set[str] = set()
        for source in sources:
            matched = False
            for candidate in source.candidates():
                matched = True
                self._context.cancel.check()
                if (identity := source.identity(candidate)) not in seen:
                    seen.add(identity)
                    self._read(source, candidate)
            if source.pattern is not None and not matched:
                raise ConfigurationError(
                    f"nothing matches {source.pattern}",
                    hint="Check the pattern; ** stands for any directories, and * not for a leading dot.",
                )

    def _read(self, source: DumpSource, candidate: Candidate) -> None:
        if candidate.error:
            self._skip(candidate, source, candidate.error, unreadable=candidate.unreadable)
            return
        try:
            dump = read_dump(source, candidate, self._context)
        except (VerificationFailed, NotProven, ConfigurationError) as error:
            self._skip(candidate, source, str(error))
        except RepositoryError as error:
            self._skip(candidate, source, f"cannot be read: {error}", unreadable=True)
        except OSError as error:
            removed = isinstance(error, FileNotFoundError)
            self._skip(candidate, source, f"cannot be read: {reason(error)}", unreadable=not removed)
        else:
            if dump is None:
                self._skip(candidate, source, "not a dump of PostgreSQL")
            else:
                self.found.append(dump)

    def _skip(
        self, candidate: Candidate, source: DumpSource, why: str, *, unreadable: bool = False, copy: bool = False
    ) -> None:
        self.plan.skipped.append(Skipped(candidate.name, source.label, why, unreadable, source.named and not copy))
        self._context.log(f"skipped {candidate.name}: {why}")

    def place(self, time_patterns: Sequence[str], database: str | None, patterns: Sequence[str]) -> None:
        """Give each dump its series and its time."""
        now = datetime.now(timezone.utc)  # some were written during hours of reading
        shown = {id(dump): _without_database(dump) for dump in self.found}
        times = NameTimes(shown.values(), self.zone, time_patterns, now)
        read = {id(dump): times.of(shown[id(dump)]) for dump in self.found}
        stems = {id(dump): stem(dump.name, found.span if (found := read[id(dump)]) else None) for dump in self.found}
        names = DatabaseNames([stems[id(dump)] for dump in self.found if _is_nameless(dump)], database, patterns)
        for dump in self.found:
            label = names.of(dump.name, stems[id(dump)]) if _is_nameless(dump) else None
            placed = (
                label if isinstance(label, str) else self._placed(dump, label, read[id(dump)], stems[id(dump)], now)
            )
            if isinstance(placed, str):
                self._skip(dump.candidate, dump.source, placed)
            else:
                self.plan.dumps.append(placed)

    def _placed(
        self,
        dump: FoundDump,
        label: Label | None,
        name_time: NameTime | Ambiguous | None,
        its_stem: str | None,
        now: datetime,
    ) -> PlannedDump | str:
        """Return a dump with its series and its time, or the reason to skip it.

        :param label: None for a dump that names its database, and for one of a cluster.
        """
        content = dump.content
        if content.cluster:
            series = Series(self.plan.server, None, dump.scope)
        else:
            series = Series(self.plan.server, label.database if label else content.database)
        try:
            series.path  # noqa: B018  a name that is too long for a repository
        except PgBackupError as error:
            return str(error)
        if isinstance(name_time, Ambiguous) and content.created is None:
            return f"its date can be {' or '.join(name_time.patterns)}; use --time-pattern"
        exact = name_time if isinstance(name_time, NameTime) else None
        time = choose_time(header=content.created, name=exact, modified=dump.modified, zone=self.zone, now=now)
        if time.at > now + FUTURE:  # it would be the newest backup until then
            return f"the time of the file, {human_time(time.at)}, is in the future; use --time-pattern"
        notes = [time.note] if time.note else []
        database = None if label or content.cluster else content.database
        if its_stem and database and its_stem.lower() != database.lower():
            notes.append(f"its name says {its_stem}")
        source = label.source if label else "dump"
        return PlannedDump(dump, series, time, exact, source, notes=tuple(notes), stem=its_stem)

    def drop_guesses(self) -> None:
        """Drop dumps of which only the month is known, unless it is in their own name and no other dump is of it."""
        guessed = Counter((p.series, p.time.at) for p in self.plan.dumps if p.time.guessed)
        kept = []
        for planned in self.plan.dumps:
            name = planned.name_time
            sure = name and (name.given or (name.own and guessed[planned.series, planned.time.at] == 1))
            if planned.time.guessed and name and not sure:
                why = (
                    f"its name gives only the month, and its file is of another one; use --time-pattern {name.pattern}"
                )
                self._skip(planned.dump.candidate, planned.dump.source, f"{why} for the first of the month")
            else:
                kept.append(planned)
        self.plan.dumps = kept

    def drop_dumps_of_few_tables(self) -> None:
        """Drop dumps of single tables, which look like dumps of their database, by what earlier dumps have.

        Only if the earlier one has another name: one of the same name may be from before tables were dropped.
        """
        series: defaultdict[Series, list[PlannedDump]] = defaultdict(list)
        for planned in self.plan.dumps:
            series[planned.series].append(planned)
        kept = []
        for dumps in series.values():
            largest = None
            dumps.sort(key=lambda each: (each.time.at.date(), -each.dump.tables))
            for planned in dumps:
                found = planned.dump.tables
                if largest is None or found * 2 >= largest.dump.tables:
                    largest = max(largest or planned, planned, key=lambda each: each.dump.tables)
                    kept.append(planned)
                    continue
                why = f"it has {counted(found, 'table')}, {largest.dump.name} has {largest.dump.tables:,}"
                if planned.stem == largest.stem:
                    largest = planned
                    kept.append(replace(planned, notes=(*planned.notes, why)))
                else:
                    why += ": it looks like a dump of single tables; adopt it alone if it is not"
                    self._skip(planned.dump.candidate, planned.dump.source, why)
        self.plan.dumps = kept

    def drop_duplicates(self) -> None:
        """Of equal dumps keep one for each time that a header or a name gives: a database that did not change has the
        same script every night. A copy that has only its file's time is not a dump of another night."""
        kept: list[PlannedDump] = []
        by_digest: dict[tuple[Series, str], list[PlannedDump]] = {}
        for planned in sorted(self.plan.dumps, key=_best_first):
            twins = by_digest.setdefault((planned.series, planned.dump.sha256), [])
            twin = next((each for each in twins if _is_copy(planned, each)), None)
            if twin is not None:
                self._skip(
                    planned.dump.candidate, planned.dump.source, f"the same bytes as {twin.dump.name}", copy=True
                )
                continue
            twins.append(planned)
            kept.append(planned)
        kept.sort(key=lambda p: (p.series.path, p.time.at, p.dump.name))
        self.plan.dumps = list(_with_conflicts(kept))

    def compare_with_repository(self) -> None:
        known = KnownBackups(self.plan.repository, {planned.series for planned in self.plan.dumps})
        dumps = []
        for planned in self.plan.dumps:
            if other := known.other_time(planned):
                why = f"adopted before as {other}, with another time; delete that backup to adopt it again"
                self._skip(planned.dump.candidate, planned.dump.source, why)
            elif known.has(planned.series, planned.id):
                dumps.append(replace(planned, present=True))
            else:
                dumps.append(planned)
        self.plan.dumps = dumps


def _is_nameless(dump: FoundDump) -> bool:
    """Return whether a dump is of one database, and does not say of which."""
    return not dump.content.cluster and dump.content.database is None


def _without_database(dump: FoundDump) -> str:
    """Return the name of a dump; if the name of its database is or has a date, with something else in its place."""
    database = dump.content.database
    if not database or sum(map(str.isdecimal, database)) < _DIGITS_OF_A_DATE:
        return dump.name
    return dump.name.replace(database, "\0" * len(database))


def _is_copy(planned: PlannedDump, other: PlannedDump) -> bool:
    """Return whether a dump with the bytes of another is a copy of it, and not the dump of another night."""
    name, others = planned.name_time, other.name_time
    if NAME == planned.time.source == other.time.source and name and others and not name.moment.only_month:
        return name.moment.at == others.moment.at  # the times of day of their files may differ
    return planned.time.source == MTIME or other.time.at == planned.time.at


def _best_first(planned: PlannedDump) -> tuple[int, datetime, int, str]:
    # Of equal dumps of one time the one with the shortest name stays: the other is its " (copy)".
    name = planned.dump.name
    return _SOURCES.index(planned.time.source), planned.time.at, len(name), name


def _with_conflicts(dumps: Iterable[PlannedDump]) -> Iterable[PlannedDump]:
    dumps = list(dumps)
    times = Counter((planned.series, planned.time.at) for planned in dumps)
    for planned in dumps:
        others = times[planned.series, planned.time.at] - 1
        note = f"{counted(others, 'other dump has', 'other dumps have')} the same time"
        yield replace(planned, notes=(*planned.notes, note)) if others else planned
