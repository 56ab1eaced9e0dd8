"""Decide when an adopted dump was made: by its header if that is plausible, else by its name, else by its file's
time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

from airflow_pgbackup.backup.adopt.name_patterns import Moment
from airflow_pgbackup.backup.adopt.name_times import FIRST, FUTURE, NameTime
from airflow_pgbackup.repository.calendar_time import SKEW

HEADER, NAME, MTIME = "header", "name", "mtime"
"""Where a time came from, the most trusted first; ``time_from`` of the manifest's origin."""

TOLERANCE = timedelta(hours=36)
"""A header and a name so far apart still speak of one dump: a time zone is at most 14 hours off, a dump may take a
night, and a job may name its file when it ends."""
_ZONES = timedelta(hours=26)  # between the two time zones that are farthest apart


@dataclass(frozen=True)
class BackupTime:
    """When a dump was made, and how that is known.

    :param at: aware, UTC, whole seconds.
    :param source: :data:`HEADER`, :data:`NAME` or :data:`MTIME`.
    :param note: why a better source was not used, or what to be careful about; None for nothing.
    :param by_file: the day is that of the file, which a copy changes.
    :param guessed: the name only gives a month, and nothing gives the day: `at` is the first.
    """

    at: datetime
    source: str
    note: str | None = None
    by_file: bool = False
    guessed: bool = False


def choose_time(
    *, header: datetime | None, name: NameTime | None, modified: datetime, zone: tzinfo, now: datetime
) -> BackupTime:
    """Return when a dump was made.

    A header counts if it is plausible. It is not plausible if

    * the file's own name has a time more than :data:`TOLERANCE` away, and the file was not written about then: it was
      dumped again from a restored copy, or the clock of its machine was wrong, while whoever named the file meant the
      data. A date in the name of a directory, unless a pattern was given for it, is often that of something else;
    * it is before PostgreSQL existed, or in the future;
    * it is after the file was last written, by no more than time zones differ: then `zone` is not that of the header.

    Otherwise a name counts. What it does not give, the day or the time of day, comes from the file, if that was written
    in the month or on the day of the name. If the time in the name is later than that of the file, the file's time
    counts. But if they differ by more than time zones can, the file's time was set back, and the name counts.

    Without both, the file's time counts. No time is after `now`: a backup from the future cannot be verified, and would
    be the newest.

    :param header: the time in an archive, by the clock of its machine and without a time zone.
    :param modified: when the file was last written; a copy sets it to the time of the copy.
    :param zone: of the machine that made the dump. If the name has a zone, as from ``date -u``, the header is read in
        that one or in this one, whichever brings it closer to the time in the name.
    """
    stated = _in_utc(header, zone) if header else None
    if header and stated and name and name.moment.zone:
        stated = min(_in_utc(header, name.moment.zone), stated, key=lambda at: abs(at - name.moment.at))
    doubt = _doubt(stated, name, modified, now) if stated else None
    if stated and not doubt:
        return BackupTime(min(stated, now).replace(microsecond=0), HEADER)
    if name:
        moment, by_file = name.moment, _fits(name.moment, modified)
        month = "the name gives only the month" if moment.only_month else None
        at = min(modified if by_file else moment.at, now).replace(microsecond=0)
        return BackupTime(
            at,
            NAME,
            "; ".join(filter(None, (doubt, month))) or None,
            by_file=by_file and moment.only_month,
            guessed=moment.only_month and not by_file,
        )
    warning = "time of the file, which a copy changes"
    # The planner skips a file whose time is not plausible.
    at = modified if modified > now + FUTURE else min(modified, now)
    return BackupTime(at.replace(microsecond=0), MTIME, f"{doubt}; {warning}" if doubt else warning, by_file=True)


def _fits(moment: Moment, modified: datetime) -> bool:
    """Return whether the time of a file is that of its name, or more exact."""
    if moment.only_month:
        return moment.earliest - TOLERANCE <= modified <= moment.latest + TOLERANCE
    latest = moment.at if moment.exact else moment.latest
    return moment.earliest - _ZONES <= modified < latest


def _in_utc(header: datetime, zone: tzinfo) -> datetime:
    try:
        return header.replace(tzinfo=zone).astimezone(timezone.utc)
    except OverflowError:  # of the year 1 or 9999: not plausible in any zone
        return header.replace(tzinfo=timezone.utc)


def _doubt(stated: datetime, name: NameTime | None, modified: datetime, now: datetime) -> str | None:
    shown = f"{stated:%Y-%m-%d %H:%M}"
    if not FIRST <= stated <= now + SKEW:
        return f"the header's time {shown} is not plausible"
    differs = name and not name.moment.earliest - TOLERANCE <= stated <= name.moment.latest + TOLERANCE
    if name and differs and (name.own or name.given) and abs(modified - stated) > TOLERANCE:
        return f"the header's time {shown} is not that of the name"
    if modified + timedelta(seconds=1) < stated <= modified + _ZONES:
        return f"the header's time {shown} is after the file was last written: another time zone"
    return None
