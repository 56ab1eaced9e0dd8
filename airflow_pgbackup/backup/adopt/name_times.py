"""Find the times in file names. The pattern of a name is decided over all names of a run, since one alone may be read
in several ways: ``03-04-2025`` is a day of March or of April until another name says ``25-04-2025``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo

from airflow_pgbackup.backup.adopt.name_patterns import MONTHS, Moment, moment_of, span_of, time_pattern

FIRST = datetime(1996, 1, 1, tzinfo=timezone.utc)
"""No dump of PostgreSQL is older."""
FUTURE = timedelta(days=2)
"""A time so much later than now is not that of a dump: clocks and time zones differ by less."""

_YEAR = r"(?:199[6-9]|20\d\d)"
_SEP = r"[-_. /]"
_MONTH = rf"(?:{'|'.join(MONTHS)})[a-z]{{0,6}}"
# One shape a line: its regular expression, and the patterns that it may mean. {s} and {t} are the separators found.
_SHAPES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(rf"(?<!\d){shape}", re.IGNORECASE | re.ASCII), meanings)
    for shape, meanings in (
        (rf"{_YEAR}(?P<s>{_SEP})\d\d?(?P=s)\d\d?(?!\d)", ("%Y{s}%m{s}%d",)),
        (rf"{_YEAR}\d\d\d\d(?!\d(?!\d)|\d{{3}}(?!\d)|\d{{5}}(?!\d)|\d{{7,}})", ("%Y%m%d",)),
        (rf"{_YEAR}(?P<s>[-_.])(?:0[1-9]|1[0-2])/(?:0[1-9]|[12]\d|3[01])(?!\d)", ("%Y{s}%m/%d",)),
        (rf"\d\d?(?P<s>{_SEP})\d\d?(?P=s){_YEAR}(?!\d)", ("%d{s}%m{s}%Y", "%m{s}%d{s}%Y")),
        (rf"\d\d\d\d{_YEAR}(?!\d)", ("%d%m%Y", "%m%d%Y")),
        (rf"\d\d?(?P<s>{_SEP}?){_MONTH}(?P=s){_YEAR}(?!\d)", ("%d{s}%b{s}%Y",)),
        (rf"{_YEAR}(?P<s>{_SEP}?){_MONTH}(?P=s)\d\d?(?!\d)", ("%Y{s}%b{s}%d",)),
        (r"1\d{9}(?!\d)", ("%s",)),
    )
)
# v2025.03 is a version.
_MONTH_SHAPE = re.compile(rf"(?<![\dvV]){_YEAR}(?P<s>[-_.])(?:0[1-9]|1[0-2])(?!\d|(?P=s)\d)", re.ASCII)
_TIME = re.compile(
    r"(?P<j>_at_|-at-|[T_. /-]|--|__)?"
    r"(?:\d\d(?P<t>[:._h-])\d\d(?:(?P<u>[:._m-])\d\d(?P<s>s?))?|(?P<four>\d\d\d\d)(?P<six>\d\d)?"
    # An hour alone: not a part of a version, and in a path a directory of its own.
    r"|(?<![. ])(?P<hour>\d\d)(?P<h>h?)(?!\.\d)(?:(?<!/\d\d)|(?=/))(?=[^a-z]|$|[AP]M|Z|UTC|GMT))(?!\d)"
    r"(?:(?P<f>[._-])(?:\d{3}|\d{6})(?=Z(?![a-z])))?"
    r"(?P<p>[ _]?[AP]M(?![a-z]))?"
    r"(?P<z>[ _]?(?:(?:Z|UTC|GMT)(?![a-z])|[+-](?:0\d|1[0-4]):?(?:00|15|30|45)))?(?!\d)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class NameTime:
    """A time in a name.

    :param pattern: that gives it, as ``--time-pattern`` takes it.
    :param span: start and end of it in the name.
    :param own: it is in the name of the file, not only in those of the directories above it.
    :param given: the pattern was given, not detected.
    """

    moment: Moment
    pattern: str
    span: tuple[int, int]
    own: bool = True
    given: bool = False


@dataclass(frozen=True)
class Ambiguous:
    """A name that several patterns fit, with different dates; nothing in the run decides. :param patterns: those."""

    patterns: tuple[str, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class _Reading:
    """A part of a name, and the patterns that it may mean, the more exact before the others."""

    span: tuple[int, int]
    text: str
    choices: tuple[tuple[str, ...], ...]


@dataclass
class NameTimes:
    """The times in the names of a run.

    :param names: paths, joined by ``/``; of the last time in a name its last reading counts.
    :param zone: of the machine that named the files.
    :param patterns: use these, in this order, instead of detecting them.
    :raises ConfigurationError: as :func:`.time_pattern`.
    """

    names: Iterable[str]
    zone: tzinfo
    patterns: Sequence[str] = ()
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def __post_init__(self) -> None:
        self._compiled = {pattern: time_pattern(pattern) for pattern in self.patterns}
        self._decided: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}
        if self.patterns:
            return
        groups: dict[tuple[tuple[str, ...], ...], list[str]] = {}
        for name in self.names:
            if reading := _read(name):
                groups.setdefault(reading.choices, []).append(reading.text)
        for choices, texts in groups.items():
            self._decided[choices] = self._decide(choices, texts)

    def of(self, name: str) -> NameTime | Ambiguous | None:
        """Return the time in a name."""
        if self.patterns:
            for pattern in self.patterns:
                for found in reversed(list(self._compiled[pattern].finditer(name))):
                    if moment := self._plausible(found):
                        span = span_of(found)
                        return NameTime(moment, pattern, span, _is_own(name, span), given=True)
            return None
        reading = _read(name)
        if reading is None:
            return None
        meanings = {}
        for pattern in self._decided.get(reading.choices, ()):
            if moment := self._moment(pattern, reading.text):
                meanings[moment] = pattern
        if len(meanings) > 1:
            return Ambiguous(tuple(meanings.values()), reading.span)
        for moment, pattern in meanings.items():
            return NameTime(moment, pattern, reading.span, _is_own(name, reading.span))
        return None

    def _decide(self, choices: tuple[tuple[str, ...], ...], texts: Sequence[str]) -> tuple[str, ...]:
        """Return the patterns that fit all texts of one shape; of the most exact kind for which there is one."""
        # A text that no pattern reads as a plausible date says nothing about the others.
        texts = [text for text in texts if any(self._moment(p, text) for patterns in choices for p in patterns)]
        for patterns in choices:
            if fitting := tuple(p for p in patterns if all(self._moment(p, text) for text in texts)):
                return fitting
        return choices[-1]  # each name is then read by itself, and a date that does not exist is ignored

    def _moment(self, pattern: str, text: str) -> Moment | None:
        compiled = self._compiled.get(pattern)
        if compiled is None:
            compiled = self._compiled[pattern] = time_pattern(pattern)
        found = compiled.match(text)
        return self._plausible(found) if found else None

    def _plausible(self, found: re.Match[str]) -> Moment | None:
        moment = moment_of(found, self.zone)
        return moment if moment and FIRST <= moment.at <= self.now + FUTURE else None


def _is_own(name: str, span: tuple[int, int]) -> bool:
    return "/" not in name[span[1] :]


def _read(name: str) -> _Reading | None:
    """Return the last date of a name, with the time of day that follows it. A month alone counts if nothing else is."""
    last: tuple[int, int, re.Match[str], tuple[str, ...]] | None = None
    for shape, meanings in _SHAPES:
        for found in shape.finditer(name):
            if last is None or (found.end(), -found.start()) > last[:2]:
                last = (found.end(), -found.start(), found, meanings)
    if last is None:
        months = list(_MONTH_SHAPE.finditer(name))
        if not months:
            return None
        return _Reading(months[-1].span(), months[-1][0], ((f"%Y{months[-1]['s']}%m",),))
    found, meanings = last[2], last[3]
    separator = found.groupdict().get("s") or ""
    dates = tuple(meaning.format(s=separator) for meaning in meanings)
    start, end = found.span()
    time = None if "%s" in dates else _TIME.match(name, end)
    compact = separator == "" and "%b" not in dates[0]
    if time is None or (time["j"] is None and not compact):
        return _Reading((start, end), name[start:end], (dates,))
    suffix = _time_suffix(time)
    dated = tuple(date + suffix for date in dates)
    choices = (dated, dates) if time["j"] is not None else (dated,)
    return _Reading((start, time.end()), name[start : time.end()], choices)


def _time_suffix(time: re.Match[str]) -> str:
    hour = "%I" if time["p"] else "%H"
    if time["hour"]:
        clock = hour + time["h"]
    elif time["four"]:
        clock = f"{hour}%M" + ("%S" if time["six"] else "")
    else:
        clock = f"{hour}{time['t']}%M" + (f"{time['u']}%S{time['s']}" if time["u"] else "")
    clock += f"{time['f']}%f" if time["f"] else ""
    for group, directive in (("p", "%p"), ("z", "%z")):
        if time[group]:
            clock += (time[group][0] if time[group][0] in " _" else "") + directive
    return (time["j"] or "") + clock
