"""The overview of a repository as data, and as one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from airflow_pgbackup.backup.freshness_rules import hours
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_of

STATUSES = {
    "no backup": "its server's newest backup set names the database, or the fleet its server, and there is no backup",
    "failed": "its newest backup failed its verification, and no verified one is young enough",
    "not verified": "no backup is verified at the required level",
    "late": "the newest verified backup is older than the target",
    "restorable": "there is a verified backup that is younger than the target",
    "dropped": "the database is not on its server any more; its backups age out",
}
"""Each status of a series and what it means, worst first."""

LIMIT = 8 << 20
"""Bytes of a manifest, and of a backup's verifications, that an overview reads: some 30,000 tables. Airflow's API
server reads many backups of a repository that somebody else may own."""
MOST_SETS = 10
"""Complete backup sets of a server whose backups are read, until those of one can all be used."""
THREADS = 4

FINE = ("restorable", "dropped")
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class BackupFacts:
    """A backup in an overview.

    :param state: one of :data:`.state.STATES`.
    :param level: the highest level passed; None unless verified.
    :param size: of its artifact, bytes.
    :param rows: where a verification counted them.
    :param seconds: from the start of the dump until the backup was complete, or first verified if its files were copied
        later; None where clocks disagree.
    """

    id: str
    started_at: datetime
    state: str
    level: str | None
    size: int
    rows: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class SeriesStatus:
    """A series, and whether it could be restored now.

    :param series: its folder.
    :param database: for people: its name, or ``@globals`` and so on; ``*`` for a whole server.
    :param status: one of :data:`STATUSES`.
    :param reason: why it has it, a clause.
    :param max_age: of the target, seconds.
    :param level: of the target.
    :param system_identifier: of the server that the newest verified backup is from, or else the newest, or else that of
        the server's other series; None: unknown.
    :param newest: the newest backup, in any state.
    :param verified: the newest one verified at the target's level.
    :param rehearsed_at: when the last passed rehearsal ended.
    :param restore_seconds: how long its restore took.
    :param backups, size: number and bytes of all its backups.
    :param recent: the newest backups, oldest first, as file names show them.
    :param expiring: how many backups the next prune would delete, as file names show it; None: retention unknown.
    :param expected: the fleet backs up its server to this repository.
    :param server_missing: it is there because there is no backup of the server at all.
    """

    series: str
    server: str
    database: str
    status: str
    reason: str
    max_age: float
    level: str
    system_identifier: str | None = None
    newest: BackupFacts | None = None
    verified: BackupFacts | None = None
    rehearsed_at: datetime | None = None
    restore_seconds: float | None = None
    backups: int = 0
    size: int = 0
    recent: tuple[BackupFacts, ...] = ()
    expiring: int | None = None
    expected: bool = False
    server_missing: bool = False

    @property
    def fine(self) -> bool:
        """Whether no action is needed."""
        return self.status in FINE


@dataclass(frozen=True, kw_only=True)
class SetStatus:
    """The backup sets of a server.

    :param newest: id of the newest set, with its status.
    :param complete: id of the newest complete one whose backups all exist and have not failed.
    :param damaged: id of a newer complete set with a backup that does not exist or has failed; None without one.
    :param databases: of the set that is `complete`.
    :param missing: databases of the newest set without a backup, with the reason.
    """

    server: str
    newest: str
    status: str
    complete: str | None
    complete_at: datetime | None
    databases: int
    missing: tuple[tuple[str, str], ...]
    damaged: str | None = None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a repository proves at one moment.

    :param uri: of the repository.
    :param now: when it was read.
    :param series: worst first.
    :param notes: what could not be read, for people.
    :param unknown: how many notes are about sets that may name databases without a backup.
    """

    uri: str
    now: datetime
    series: tuple[SeriesStatus, ...]
    sets: tuple[SetStatus, ...]
    notes: tuple[str, ...] = ()
    unknown: int = 0

    @property
    def empty(self) -> bool:
        """Whether the repository has no backup. It may have sets that name some."""
        return not any(one.backups for one in self.series)

    @property
    def in_danger(self) -> tuple[SeriesStatus, ...]:
        """The series that could not be restored to a point within their target, worst first."""
        return tuple(one for one in self.series if not one.fine)

    @property
    def sentence(self) -> str:
        """The overview in one sentence."""
        return sentence(self.series, self.now)

    def as_json(self) -> dict[str, object]:
        """Return plain JSON: times as ISO 8601, spans in seconds."""
        document = asdict(self) | {"sentence": self.sentence}
        return {name: plain(value) for name, value in document.items()}


def by_database(series: Iterable[SeriesStatus]) -> list[SeriesStatus]:
    """Return one status for each database, the best of those in several repositories: a copy restores it, too.

    A database is dropped only if no repository knows it as one that exists. A server of the fleet is missing only if no
    repository to which the fleet backs it up has a backup of it: elsewhere, a server of its name may be another one.

    :return: worst first: what is not fine, without any verified backup first.
    """
    by_name: dict[tuple[str, bool], list[SeriesStatus]] = {}
    series = list(series)
    elsewhere = {one.server for one in series if one.expected and not one.server_missing}
    for one in series:
        if not (one.server_missing and one.server in elsewhere):
            by_name.setdefault((one.series, one.server_missing), []).append(one)
    best = [min(same, key=_distance) for named in by_name.values() for same in _of_one_server(named)]
    return sorted(best, key=badness)


def _of_one_server(series: Sequence[SeriesStatus]) -> Iterable[list[SeriesStatus]]:
    """Divide series of one name by their servers. Those whose server is not known belong to the others if these have
    only one: two repositories may have the same names for the databases of two servers."""
    by_server: dict[str | None, list[SeriesStatus]] = {}
    for one in series:
        by_server.setdefault(one.system_identifier, []).append(one)
    return [list(series)] if len(by_server.keys() - {None}) < 2 else by_server.values()


def _distance(one: SeriesStatus) -> tuple[bool, bool, bool, float]:
    """Return how far a series is from being restorable."""
    age = -one.verified.started_at.timestamp() if one.verified else 0.0
    return one.status == "dropped", not one.fine, one.verified is None, age


def aged(one: SeriesStatus, now: datetime) -> SeriesStatus:
    """Return a status as it is at a later time: by then, the newest verified backup may be older than the target."""
    if one.status != "restorable" or one.verified is None:
        return one
    age, allowed = now - one.verified.started_at, timedelta(seconds=one.max_age)
    if age <= allowed:
        return one
    status = "failed" if one.newest is not None and one.newest.state == "failed" else "late"
    return replace(
        one, status=status, reason=f"the newest verified backup is {span(age)} old, more than {span(allowed)}"
    )


def badness(one: SeriesStatus) -> tuple[object, ...]:
    """Return the key by which series are sorted, worst first: without any verified backup, then by status, then by the
    age of the newest verified backup."""
    started = one.verified.started_at.timestamp() if one.verified else 0.0
    status = list(STATUSES).index(one.status)
    return one.status == "dropped", one.fine, one.verified is not None, status, started, one.server, one.database


def span(time: timedelta) -> str:
    """Return a span of time for people: ``26 h``, ``5.5 h``, ``3 days``; below zero, as clocks may differ, zero."""
    return hours(max(time, timedelta(0))).replace(".0 ", " ")


def sentence(series: Sequence[SeriesStatus], now: datetime, *, empty: int = 0) -> str:
    """Return how many databases can be restored and which cannot: ``48 of 50 databases can be restored to a point less
    than 26 h old; 2 cannot: …``.

    :param series: worst first; dropped databases do not count.
    :param empty: how many repositories have no backup.
    """
    counting = [one for one in series if one.status != "dropped"]
    fine = [one for one in counting if one.fine]
    danger = [one for one in counting if not one.fine]
    if not counting:
        return "There is no backup."
    spans = {one.max_age for one in counting}
    point = f"less than {span(timedelta(seconds=spans.pop()))} old" if len(spans) == 1 else "within their targets"
    text = f"{len(fine)} of {counted(len(counting), 'database')} can be restored to a point {point}"
    if danger:
        names = [f"{one.server}/{one.database} ({_brief(one, now)})" for one in danger]
        text += f"; {len(danger)} cannot: {first_of(names, _NAMED)}"
    if empty:
        text += f". {counted(empty, 'repository has', 'repositories have')} no backup"
    return text + "."


def _brief(one: SeriesStatus, now: datetime) -> str:
    if one.verified is not None:
        return f"last verified backup is {span(now - one.verified.started_at)} old"
    return {"no backup": "no backup", "failed": "verification failed"}.get(one.status, "never verified")


def plain(value: object) -> object:
    """Return a value with its times as ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
