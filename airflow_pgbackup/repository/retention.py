"""Which backups may be deleted: ``plan(backups, policy, now)`` decides for every backup and gives the reasons. Pure.

The rules are those of restic and borg, applied to each series separately, newest backup first:

- ``keep_last=n``: the n newest. ``keep_hourly``, ``keep_daily``, ``keep_weekly`` (ISO weeks), ``keep_monthly``,
  ``keep_yearly``: the newest of each of the last n hours, days … *that have one*: a gap uses up nothing. While there
  are fewer than n, the oldest backup stays too, so that the history reaches back as far as possible.
- ``keep_labels``: each with one of these labels, beside what the other rules keep.
- ``keep_within``: all within that span of the newest backup. The span ends there and not now: in a series without new
  backups, or with a wrong clock, the old ones stay.

Only a backup that counts can replace an older one: one verified at ``minimum_level`` or above. Any other is kept as
long as the rules would keep it if it counted, failed ones ranking behind unverified ones; and always until there are
``keep_at_least`` newer ones that count. So without a verified backup nothing is deleted.

Never deleted: the newest backup of a series, the newest ``keep_at_least`` that count, one that is pinned, locked by the
store, or in the newest complete backup set of its server, one that starts in the future, one whose manifest cannot be
read. The rules ignore the last two kinds: a clock was wrong, or the backup is unknown.

A database that was dropped gets no new backups. Where backup sets show that its server was backed up without it, its
backups age all the same, down to those that are never deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, tzinfo
from functools import cache, cached_property
from itertools import islice
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.quantities import span_text
from airflow_pgbackup.repository.calendar_time import find_zone
from airflow_pgbackup.repository.catalogue import Backup, series_order
from airflow_pgbackup.repository.labels import check_label_patterns, matching_labels
from airflow_pgbackup.repository.layout import Series, check_level, reaches
from airflow_pgbackup.time_spans import check_span
from airflow_pgbackup.wording import parameter, parameters


class Period(NamedTuple):
    """One period of a rule.

    :param key: a local time as the number of its period.
    :param label: the same period for people.
    """

    key: Callable[[datetime], int]
    label: str


# The hour that a clock repeats in autumn is two hours, which differ in fold. Day 1 of toordinal() was a Monday.
PERIODS = {
    "hourly": Period(lambda t: (t.toordinal() * 24 + t.hour) * 2 + t.fold, "%Y-%m-%d %H:00%z"),
    "daily": Period(lambda t: t.toordinal(), "%Y-%m-%d"),
    "weekly": Period(lambda t: (t.toordinal() - 1) // 7, "%G-W%V"),
    "monthly": Period(lambda t: t.year * 12 + t.month, "%Y-%m"),
    "yearly": Period(lambda t: t.year, "%Y"),
}

# A backup with its rank, see _rank(), and when it started by the clocks of the policy's time zone.
_Past = tuple[int, Backup, datetime]

_RULES = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within")
_SPANS = ("keep_within", "replace_after")
_BAD = ("failed", "incomplete", "unreadable")
_NEWEST_FIRST = attrgetter("started_at", "id")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The retention rules. A count of 0 turns its rule off.

    :param keep_labels: labels, with ``*`` and ``?``. Alone they are not a policy: they do not cover other backups.
    :param keep_within: above zero, at most 100 years.
    :param replace_after: how long a backup must have been stored before an older one is deleted because of it, see
        :mod:`.replacement`; above zero, at most 100 years. None: no such delay.
    :param keep_at_least: how many backups that count always stay, 1 or more.
    :param minimum_level: what a backup must have passed to count; None: every one that has not failed counts.
    :param time_zone: IANA name; a day begins at its midnight.
    :raises ConfigurationError: for a policy without any rule, or an invalid value.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: timedelta | None = None
    replace_after: timedelta | None = None
    keep_at_least: int = 1
    keep_labels: Sequence[str] = ()
    minimum_level: str | None = "archive"
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        for name, value in counts.items():
            # keep_daily=True is a mistake, although bool is a subclass of int.
            if type(value) is not int or value < (name == "keep_at_least"):
                least = "1 or more, since prune never empties a series" if name == "keep_at_least" else "0 or more"
                raise ConfigurationError(f"invalid {parameter(name)} {value!r}", hint=f"Use an integer, {least}.")
        for name in _SPANS:
            if (span := getattr(self, name)) is not None:
                check_span(name, span)
        if self.keep_within is None and not any(n for name, n in counts.items() if name != "keep_at_least"):
            raise ConfigurationError(
                "the retention policy has no rule: it would delete all but the newest backups",
                hint=f"Set at least one of {parameters(*_RULES)}"
                + (f" beside {parameter('keep_labels')}." if self.keep_labels else "."),
            )
        check_label_patterns(self.keep_labels)
        check_level(self.minimum_level)
        self.zone  # noqa: B018  raises for an unknown one

    @cached_property
    def zone(self) -> tzinfo:
        return find_zone(self.time_zone)

    def counts(self, backup: Backup) -> bool:
        """Return whether a backup may replace an older one."""
        return counts(backup, self.minimum_level)

    def describe(self) -> dict[str, object]:
        """Return the policy as plain JSON: what is set, spans in seconds."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: span.total_seconds() for name in _SPANS if (span := getattr(self, name)) is not None}
        values["keep_labels"] = list(self.keep_labels)
        return {name: value for name, value in values.items() if value or name == "minimum_level"}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a backup is kept, and why.

    :param reasons: why it is kept, one text per rule; or the one reason why it is not.
    """

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


def plan(
    backups: Iterable[Backup],
    policy: Policy,
    now: datetime,
    in_sets: Mapping[tuple[Series, str], str] = MappingProxyType({}),
    dropped_since: Mapping[Series, Sequence[datetime]] = MappingProxyType({}),
) -> list[Decision]:
    """Return a decision for every backup: series sorted, newest first; at the same instant the higher id is newer.

    :param now: aware; a backup that starts later starts in the future.
    :param in_sets: the reason to keep a backup that a set needs.
    :param dropped_since: for the series of a database that no longer exists, when its server was backed up without it.
        The rules count these times as backups that replace older ones, so that the series ages.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    by_series: dict[Series, list[Backup]] = {}
    for backup in backups:
        by_series.setdefault(backup.series, []).append(backup)
    decisions: list[Decision] = []
    for _, members in sorted(by_series.items(), key=lambda item: series_order(item[0])):
        members.sort(key=_NEWEST_FIRST, reverse=True)
        decisions += _decide(members, policy, now, in_sets, dropped_since.get(members[0].series, ()))
    return decisions


def counts(backup: Backup, minimum_level: str | None) -> bool:
    """Return whether a backup is verified at a level or above; for None: whether it has not failed."""
    return _rank(backup.state, backup.level, minimum_level) == 0


def _decide(
    members: Sequence[Backup],
    policy: Policy,
    now: datetime,
    in_sets: Mapping[tuple[Series, str], str],
    dropped: Sequence[datetime],
) -> list[Decision]:
    """Return the decisions for the backups of one series, which are ordered newest first."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    level, zone = policy.minimum_level, policy.zone
    past: list[_Past] = []
    for backup in members:
        if backup.started_at > now:
            reasons[backup.id].append("starts in the future, ignored by the retention rules")
        elif backup.state == "unreadable":
            reasons[backup.id].append(f"cannot be read: {backup.problem}, ignored by the retention rules")
        else:
            past.append((_rank(backup.state, backup.level, level), backup, _local(backup.started_at, zone)))
    counted = [backup for rank, backup, _ in past if rank == 0]

    if past:
        reasons[past[0][1].id].append("newest backup")
    kind = "verified" if level else "usable"
    for number, backup in enumerate(counted[: policy.keep_at_least], 1):
        last = f"last {kind} backup"
        reasons[backup.id].append(f"{last} {number}/{policy.keep_at_least}" if policy.keep_at_least > 1 else last)

    # Backups that are older than this one have enough newer ones that count.
    enough = _NEWEST_FIRST(counted[policy.keep_at_least - 1]) if len(counted) >= policy.keep_at_least else None
    for rank, backup, _ in past:
        if rank and (enough is None or _NEWEST_FIRST(backup) > enough):
            reasons[backup.id].append(f"{_shortcoming(backup.state, level)}, and too few newer {kind} backups")

    ranks = sorted({rank for rank, _, _ in past})
    past = sorted([*past, *_without(members[0], dropped, zone)], key=lambda item: _NEWEST_FIRST(item[1]), reverse=True)
    for rank in ranks:
        for backup, reason in _apply([item for item in past if item[0] <= rank], rank, policy):
            reasons[backup.id].append(f"{reason}, {_shortcoming(backup.state, level)}" if rank else reason)

    decisions = []
    for backup in members:
        if backup.pinned:
            reasons[backup.id].append("pinned")
        if needed := in_sets.get(backup.identity):
            reasons[backup.id].append(needed)
        if labels := matching_labels(backup.labels, policy.keep_labels):
            reasons[backup.id].append(f"label {', '.join(labels)}")
        if backup.locked:
            reasons[backup.id].append(f"locked {backup.locked}")
        if kept := reasons.get(backup.id):
            decisions.append(Decision(backup, True, tuple(kept)))
        else:
            decisions.append(Decision(backup, False, _expired(backup.state, backup.level, level)))
    return decisions


def _without(member: Backup, dropped: Sequence[datetime], zone: tzinfo) -> list[_Past]:
    """Return the times at which a server was backed up without a database, as backups that count."""
    return [(0, replace(member, id="", started_at=at), _local(at, zone)) for at in dropped]


def _apply(eligible: Sequence[_Past], rank: int, policy: Policy) -> Iterator[tuple[Backup, str]]:
    """Apply the rules to ``eligible``, newest first; yield those of one rank that they keep."""
    for number, (its_rank, backup, _) in enumerate(eligible[: policy.keep_last], 1):
        if its_rank == rank:
            yield backup, f"last {number}/{policy.keep_last}"
    if policy.keep_within is not None:
        newest, text = eligible[0][1].started_at, span_text(policy.keep_within)
        for its_rank, backup, _ in eligible:
            if newest - backup.started_at > policy.keep_within:
                break
            if its_rank == rank:
                yield backup, f"within {text} of the newest"
    for name, period in PERIODS.items():
        if not (wanted := getattr(policy, f"keep_{name}")):
            continue
        keys = [period.key(local) for _, _, local in eligible]
        # By key, not by change of key: a clock set back over midnight begins the same day twice.
        newest_of = dict(zip(reversed(keys), reversed(eligible), strict=True))
        for number, key in enumerate(islice(dict.fromkeys(keys), wanted), 1):
            its_rank, backup, local = newest_of[key]
            if its_rank == rank:
                yield backup, f"{name} {number}/{wanted} ({local.strftime(period.label)})"
        oldest = eligible[-1]
        if oldest[0] == rank and len(newest_of) < wanted and newest_of[keys[-1]] is not oldest:
            yield oldest[1], f"kept until there are {wanted} {name.removesuffix('y')}ies"


@cache
def _rank(state: str, level: str | None, minimum_level: str | None) -> int:
    """Return 0 for what counts, 1 for what is not verified, 2 for a failure. Cached: few cases, many calls."""
    if minimum_level is None:
        return 2 if state in _BAD else 0
    if reaches(level, minimum_level):
        return 0
    return 2 if state in _BAD else 1


def _shortcoming(state: str, minimum_level: str | None) -> str:
    known = {"failed": "failed verification", "incomplete": "incomplete"}
    return known.get(state, f"not verified at {minimum_level}")


@cache
def _expired(state: str, level: str | None, minimum_level: str | None) -> tuple[str]:
    if _rank(state, level, minimum_level) == 0:
        return ("no rule keeps it",)
    why = _shortcoming(state, minimum_level)
    return (f"no rule keeps it, {why}, and there are newer {'verified' if minimum_level else 'usable'} backups",)


def _local(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:  # year 1 in a forged id
        return moment
