"""Patterns of file names: strptime's directives, ``*``, ``?`` and ``{database}`` between literal characters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

from airflow_pgbackup.errors import ConfigurationError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAME = f"(?:{'|'.join(MONTHS)})[a-z]{{0,6}}\\.?"

# A number has at most as many digits as strptime takes. Between digits greedy matching gives each its full width.
_DIRECTIVES: Mapping[str, str] = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>\d\d?)",
    "d": r"(?P<d>\d\d?)",
    "j": r"(?P<j>\d{3})",
    "b": f"(?P<b>{_MONTH_NAME})",
    "B": f"(?P<b>{_MONTH_NAME})",
    "a": r"(?P<a>[a-z]{2,9})",
    "A": r"(?P<a>[a-z]{2,9})",
    "H": r"(?P<H>\d\d?)",
    "I": r"(?P<I>\d\d?)",
    "p": r"(?P<p>[ap]m)",
    "M": r"(?P<M>\d\d?)",
    "S": r"(?P<S>\d\d?)",
    "f": r"(?P<f>\d{1,9})",
    "z": r"(?P<z>z|utc|gmt|[+-]\d\d:?\d\d)",
    "s": r"(?P<s>\d{9,10})",
    "%": "%",
}
_SHORT = {"F": "%Y-%m-%d", "T": "%H:%M:%S"}
_TOKEN = re.compile(r"%(?P<directive>.?)|(?P<database>\{database\})|(?P<wild>[*?])|(?P<literal>.)", re.DOTALL)
_MOST_WILD = 4  # each multiplies the time that matching a hostile name takes
_MOST_CHARACTERS = 1000
_MOST_OFFSET = 14 * 60  # minutes: of Kiribati


@dataclass(frozen=True)
class Moment:
    """A time that a name gives.

    :param at: aware, UTC. If the name has no time of day, noon in the zone: most other zones have the same date then.
    :param earliest: the first moment that the name can mean. With only an hour, that of its day: the number may count
        the dumps of a day.
    :param latest: the last.
    :param zone: that the name gives.
    """

    at: datetime
    earliest: datetime
    latest: datetime
    zone: tzinfo | None = None

    @property
    def exact(self) -> bool:
        """Whether the name gives a time of day."""
        return self.earliest == self.latest

    @property
    def only_month(self) -> bool:
        """Whether the name gives no day."""
        return self.latest - self.earliest > timedelta(days=2)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for a pattern. Letters match in either case.

    :raises ConfigurationError: an unknown or repeated directive, or too many ``*``.
    """
    pattern = re.sub("%([FT])", lambda short: _SHORT[short[1]], pattern)
    if len(pattern) > _MOST_CHARACTERS or pattern.count("*") > _MOST_WILD:
        raise ConfigurationError(
            f"the pattern {pattern[:40]!r} is too long, or has more than {_MOST_WILD} asterisks",
            hint="Shorten it: it only has to match the part of the name that matters.",
        )
    parts: list[str] = []
    for token in _TOKEN.finditer(pattern):
        if (directive := token["directive"]) is not None:
            if directive not in _DIRECTIVES:
                raise ConfigurationError(
                    f"unknown directive %{directive} in the pattern {pattern!r}",
                    hint=f"Known are %{', %'.join(sorted({*_DIRECTIVES, *_SHORT}))}; write %% for a percent sign.",
                )
            parts.append(_DIRECTIVES[directive])
        elif token["database"]:
            parts.append("(?P<database>[^/]+?)")
        elif token["wild"]:
            parts.append("[^/]*?" if token["wild"] == "*" else "[^/]")
        else:
            parts.append(re.escape(token["literal"]))
    try:
        return re.compile("".join(parts), re.IGNORECASE | re.ASCII)
    except re.error:
        raise ConfigurationError(
            f"the pattern {pattern!r} has a directive twice", hint="Name each part of the time once."
        ) from None


def time_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression that finds a time anywhere in a name; digits do not border on it.

    :raises ConfigurationError: as :func:`compile_pattern`; or the pattern has no day.
    """
    compiled = compile_pattern(pattern)
    names = set(compiled.groupindex)
    year, month = names & {"Y", "y"}, names & {"m", "b"}
    if not ("s" in names or (year and (month or "j" in names))) or "database" in names:
        raise ConfigurationError(
            f"the pattern {pattern!r} does not give a date",
            hint="Write at least year and month, as %Y-%m-%d or %Y%m%d_%H%M, or %s for seconds since 1970.",
        )
    return re.compile(rf"(?<!\d)(?:{compiled.pattern})(?!\d)", re.IGNORECASE | re.ASCII)


def moment_of(found: re.Match[str], zone: tzinfo) -> Moment | None:
    """Return the time that a match of a time pattern gives; None for a date that does not exist.

    :param zone: of a time without ``%z``.
    """
    part = {name: text.lower() for name, text in found.groupdict().items() if text is not None}
    try:
        if "s" in part:
            at = datetime.fromtimestamp(int(part["s"]), timezone.utc)
            return Moment(at, at, at)
        first, its_zone = _date(part), _offset(part["z"]) if "z" in part else None
        hour = None if "H" not in part and "I" not in part else _hour(part)
        if hour is None or "M" not in part:
            at = first.replace(hour=12 if hour is None else hour)
            return _of_days(at, first, _days(part, first), its_zone or zone, its_zone)
        at = first.replace(hour=hour, minute=int(part["M"]), second=min(int(part.get("S", 0)), 59))
        at = at.replace(tzinfo=its_zone or zone).astimezone(timezone.utc)
        return Moment(at, at, at, its_zone)
    except (ValueError, OverflowError):
        return None


def span_of(found: re.Match[str]) -> tuple[int, int]:
    """Return start and end of the time in a match of a time pattern: from the first directive to the last."""
    spans = [found.span(name) for name, text in found.groupdict().items() if text is not None]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _of_days(at: datetime, first: datetime, days: int, zone: tzinfo, its_zone: tzinfo | None) -> Moment:
    begin, end = first.replace(tzinfo=zone), (first + timedelta(days=days)).replace(tzinfo=zone)
    in_utc = at.replace(tzinfo=zone).astimezone(timezone.utc)
    return Moment(in_utc, begin.astimezone(timezone.utc), end.astimezone(timezone.utc), its_zone)


def _date(part: Mapping[str, str]) -> datetime:
    # POSIX: 69 to 99 are of the last century.
    year = int(part["Y"]) if "Y" in part else int(part["y"]) + (1900 if int(part["y"]) >= 69 else 2000)
    if "j" in part:
        if not 1 <= int(part["j"]) <= 366:
            raise ValueError
        return datetime(year, 1, 1) + timedelta(days=int(part["j"]) - 1)  # noqa: DTZ001  the caller adds the zone
    month = int(part["m"]) if "m" in part else MONTHS.index(part["b"][:3]) + 1
    return datetime(year, month, int(part.get("d", 1)))  # noqa: DTZ001


def _days(part: Mapping[str, str], first: datetime) -> int:
    if "d" in part or "j" in part:
        return 1
    following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    return (following - first).days


def _hour(part: Mapping[str, str]) -> int:
    if "H" in part:
        return int(part["H"])
    hour = int(part["I"])
    if not 1 <= hour <= 12:
        raise ValueError
    return hour % 12 + (12 if part.get("p") == "pm" else 0)


def _offset(text: str) -> tzinfo:
    if text in ("z", "utc", "gmt"):
        return timezone.utc
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    if minutes > _MOST_OFFSET:
        raise ValueError
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
