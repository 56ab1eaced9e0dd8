"""What may be deleted: ``plan(backups, policy, now)`` gives a decision with its reasons for every backup. Pure.

The rules are restic's and borg's, for each series by itself, newest backup first:

- ``keep_last=n``: the n newest. ``keep_hourly``, ``keep_daily``, ``keep_weekly`` (ISO weeks), ``keep_monthly``,
  ``keep_yearly``: the newest of each of the last n hours, days … *that have one*: a hole uses up nothing. While there
  are fewer than n, the oldest backup stays too, so that history reaches back as far as it can.
- ``keep_within``: all that are at most this much older than the newest. Measured from that one, not from now: a
  series which gets no new backups, or a clock that is wrong, does not make the old ones disappear.

Only a backup that counts takes a place: one verified at ``minimum_level`` or above. One that does not is kept as long
as the rules would keep it if it did, failed ones ranking behind those that nobody has proven yet; and always as long
as there are not ``keep_at_least`` newer ones that count. So nothing at all is deleted while nothing is proven.

Never deleted: the newest of a series, the newest ``keep_at_least`` that count, one that is pinned or locked by the
store, one whose start lies in the future, one whose manifest cannot be read. A clock was wrong there, or nobody knows
what it is: neither takes a place of a rule.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache, cached_property
from itertools import islice
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.catalogue import Backup, series_order
from airflow_pgbackup.repository.layout import LEVELS, Series, check_level


class Period(NamedTuple):
    """:param key: a local time as the number of its period. :param label: the same period for people."""

    key: Callable[[datetime], int]
    label: str


# The hour that a clock repeats in autumn is two hours: fold tells them apart. Day 1 of toordinal() was a Monday.
PERIODS = {
    "hourly": Period(lambda t: (t.toordinal() * 24 + t.hour) * 2 + t.fold, "%Y-%m-%d %H:00%z"),
    "daily": Period(lambda t: t.toordinal(), "%Y-%m-%d"),
    "weekly": Period(lambda t: (t.toordinal() - 1) // 7, "%G-W%V"),
    "monthly": Period(lambda t: t.year * 12 + t.month, "%Y-%m"),
    "yearly": Period(lambda t: t.year, "%Y"),
}

# A backup with its rank, see _rank(), and when it started by the clocks of the policy's time zone.
_Past = tuple[int, Backup, datetime]

_MOST_DAYS = 36_525
_UNITS = {"h": 1, "d": 24, "w": 7 * 24}
_BAD = ("failed", "incomplete", "unreadable")
_NEWEST_FIRST = attrgetter("started_at", "id")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What to keep. A count of 0 is a rule that is not there.

    :param keep_within: above zero, at most 100 years.
    :param keep_at_least: how many backups that count always stay, 1 or more.
    :param minimum_level: what a backup must have passed to count; None: every one that has not failed counts.
    :param time_zone: IANA name, whose midnight is the border of a day.
    :raises ConfigurationError: for a policy without any rule, or a value that makes no sense.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: timedelta | None = None
    keep_at_least: int = 1
    minimum_level: str | None = "archive"
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        for name, value in counts.items():
            # bool is an int to Python; keep_daily=True is a mistake all the same.
            if type(value) is not int or value < (name == "keep_at_least"):
                least = "1 or more: prune never empties a series" if name == "keep_at_least" else "0 or more"
                raise ConfigurationError(f"{name} is {value!r}", hint=f"give a whole number, {least}")
        if self.keep_within is not None:
            if not isinstance(self.keep_within, timedelta):
                raise ConfigurationError(f"keep_within is {self.keep_within!r}", hint="give a datetime.timedelta")
            if not timedelta(0) < self.keep_within <= timedelta(days=_MOST_DAYS):
                raise ConfigurationError(
                    f"keep_within is {self.keep_within}", hint="give more than 0, at most 100 years"
                )
        if self.keep_within is None and not any(n for name, n in counts.items() if name != "keep_at_least"):
            raise ConfigurationError(
                "the retention policy has no rule: it would delete all but the newest backups",
                hint="set at least one of keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, "
                "keep_within",
            )
        check_level(self.minimum_level)
        self.zone  # noqa: B018  raises for an unknown one

    @cached_property
    def zone(self) -> tzinfo:
        return find_zone(self.time_zone)

    def counts(self, backup: Backup) -> bool:
        """Whether a backup may take the place of an older one."""
        return counts(backup, self.minimum_level)

    def describe(self) -> dict[str, object]:
        """The policy as plain JSON: what is set, ``keep_within`` in seconds."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.keep_within is not None:
            values["keep_within"] = self.keep_within.total_seconds()
        return {name: value for name, value in values.items() if value or name == "minimum_level"}


@dataclass(frozen=True, slots=True)
class Decision:
    """:param reasons: why it is kept, one text per rule; or the one reason why nothing keeps it."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


def plan(backups: Iterable[Backup], policy: Policy, now: datetime) -> list[Decision]:
    """Decide for every backup: series sorted, newest first in each; of one instant the higher id is the newer.

    :param now: aware; a start after it lies in the future.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    by_series: dict[Series, list[Backup]] = {}
    for backup in backups:
        by_series.setdefault(backup.series, []).append(backup)
    decisions: list[Decision] = []
    for _, members in sorted(by_series.items(), key=lambda item: series_order(item[0])):
        members.sort(key=_NEWEST_FIRST, reverse=True)
        decisions += _decide(members, policy, now)
    return decisions


def counts(backup: Backup, minimum_level: str | None) -> bool:
    """Whether a backup is verified at a level or above; for None: whether it has not failed."""
    return _rank(backup.state, backup.level, minimum_level) == 0


def find_zone(name: str) -> tzinfo:
    """:raises ConfigurationError: for a time zone that does not exist."""
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        # ZoneInfoNotFoundError is a KeyError; '../x' a ValueError; the name of a folder an OSError.
        raise ConfigurationError(
            f"there is no time zone {name!r}",
            hint="give an IANA name like 'Europe/Berlin'; on a system without time zones: pip install tzdata",
        ) from None


def parse_duration(text: str) -> timedelta:
    """``36h``, ``30d``, ``8w``, ``1w12h`` as a time span. No months or years: those are not of one length.

    :raises ConfigurationError: for anything else.
    """
    parts = re.findall(r"(\d{1,6})([hdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(
            f"{text!r} is not a time span", hint="write hours, days, weeks like 36h, 30d, 8w, 1w12h"
        )
    return timedelta(hours=sum(int(number) * _UNITS[unit] for number, unit in parts))


def _decide(members: Sequence[Backup], policy: Policy, now: datetime) -> list[Decision]:
    """One series, newest first."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    level, zone = policy.minimum_level, policy.zone
    past: list[_Past] = []
    for backup in members:
        if backup.started_at > now:
            reasons[backup.id].append("starts in the future: a clock was wrong, so it takes no place of a rule")
        elif backup.state == "unreadable":
            reasons[backup.id].append(f"cannot be read: {backup.problem}, so it takes no place of a rule")
        else:
            past.append((_rank(backup.state, backup.level, level), backup, _local(backup.started_at, zone)))
    counted = [backup for rank, backup, _ in past if rank == 0]

    if past:
        reasons[past[0][1].id].append("the newest")
    for number, backup in enumerate(counted[: policy.keep_at_least], 1):
        reasons[backup.id].append(f"one of at least {policy.keep_at_least} that count, {number}")

    # From this one on, enough that count are newer. Before, one that does not count may be the last hope.
    enough = _NEWEST_FIRST(counted[policy.keep_at_least - 1]) if len(counted) >= policy.keep_at_least else None
    for rank, backup, _ in past:
        if rank and (enough is None or _NEWEST_FIRST(backup) > enough):
            reasons[backup.id].append(
                f"{_shortcoming(backup.state, level)}, and fewer than {policy.keep_at_least} newer backups count"
            )

    for rank in sorted({rank for rank, _, _ in past}):
        for backup, reason in _apply([item for item in past if item[0] <= rank], rank, policy):
            reasons[backup.id].append(f"{reason} though {_shortcoming(backup.state, level)}" if rank else reason)

    decisions = []
    for backup in members:
        if backup.pinned:
            reasons[backup.id].append("pinned")
        if backup.locked:
            reasons[backup.id].append(f"locked by the store: {backup.locked}")
        if kept := reasons.get(backup.id):
            decisions.append(Decision(backup, True, tuple(kept)))
        else:
            decisions.append(Decision(backup, False, _expired(backup.state, backup.level, level)))
    return decisions


def _apply(eligible: Sequence[_Past], mine: int, policy: Policy) -> Iterator[tuple[Backup, str]]:
    """The rules over ``eligible``, newest first; what they keep of the rank ``mine``."""
    for number, (rank, backup, _) in enumerate(eligible[: policy.keep_last], 1):
        if rank == mine:
            yield backup, f"last, {number} of {policy.keep_last}"
    if policy.keep_within is not None:
        newest, text = eligible[0][1].started_at, _span(policy.keep_within)
        for rank, backup, _ in eligible:
            if newest - backup.started_at > policy.keep_within:
                break
            if rank == mine:
                yield backup, f"within {text} of the newest"
    for name, period in PERIODS.items():
        if not (wanted := getattr(policy, f"keep_{name}")):
            continue
        keys = [period.key(local) for _, _, local in eligible]
        # By key, not by change of key: a clock put back over midnight makes the same day begin twice.
        newest_of = dict(zip(reversed(keys), reversed(eligible), strict=True))
        for number, key in enumerate(islice(dict.fromkeys(keys), wanted), 1):
            rank, backup, local = newest_of[key]
            if rank == mine:
                yield backup, f"{name} {local.strftime(period.label)}, {number} of {wanted}"
        oldest = eligible[-1]
        if oldest[0] == mine and len(newest_of) < wanted and newest_of[keys[-1]] is not oldest:
            yield oldest[1], f"{name}: the oldest, as only {len(newest_of)} of {wanted} are there"


@cache
def _rank(state: str, level: str | None, minimum_level: str | None) -> int:
    """0 counts, 1 is not proven (enough), 2 is known to be bad. A handful of cases, asked a hundred thousand times."""
    if minimum_level is None:
        return 2 if state in _BAD else 0
    if level is not None and LEVELS.index(level) >= LEVELS.index(minimum_level):
        return 0
    return 2 if state in _BAD else 1


def _shortcoming(state: str, minimum_level: str | None) -> str:
    known = {"failed": "it failed verification", "incomplete": "it is incomplete", "unreadable": "it cannot be read"}
    return known.get(state, f"not verified at {minimum_level}")


@cache
def _expired(state: str, level: str | None, minimum_level: str | None) -> tuple[str]:
    if _rank(state, level, minimum_level) == 0:
        return ("no rule keeps it",)
    why = _shortcoming(state, minimum_level)
    return (f"no rule would keep it, {why}, and newer backups that count are there",)


def _local(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:  # year 1 in a forged id
        return moment


def _span(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:g} days" if hours % 24 == 0 and hours != 24 else f"{hours:g} hours"
