"""Decide when an adopted dump was made: by its header if that is plausible, else by its name, else by its file's
time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

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
    """:ivar at: aware, UTC, whole seconds.
    :ivar source: :data:`HEADER`, :data:`NAME` or :data:`MTIME`.
    :ivar note: why a better source was not used, or what to be careful about; None for nothing.
    """

    at: datetime
    source: str
    note: str | None = None


def choose_time(
    *, header: datetime | None, name: NameTime | None, modified: datetime, zone: tzinfo, now: datetime
) -> BackupTime:
    """Return when a dump was made.

    A header is not plausible, and the name decides, when

    * it is more than :data:`TOLERANCE` away from the name: the file was dumped again from a restored copy, or the clock
      of its machine was wrong, while whoever named the file meant the data;
    * it is before PostgreSQL existed, or in the future;
    * it is after the file was last written, by no more than time zones differ: then `zone` is not that of the header.

    If the time in the name is later than that of the file, the file's time counts. But if they differ by more than time
    zones can, the file's time was set back, and the name counts. No time is after `now`: a backup from the future
    cannot be verified, and would be the newest.

    :param header: the time in an archive, by the clock of its machine and without a time zone.
    :param modified: when the file was last written; a copy sets it to the time of the copy.
    :param zone: of the machine that made the dump.
    """
    stated = _in_utc(header, zone) if header else None
    doubt = _doubt(stated, name, modified, now) if stated else None
    if stated and not doubt:
        return BackupTime(min(stated, now).replace(microsecond=0), HEADER)
    if name:
        at = name.moment.at
        if modified < at and name.moment.earliest <= modified + _ZONES:
            at = modified
        return BackupTime(min(at, now).replace(microsecond=0), NAME, doubt)
    warning = "time of the file, which a copy changes"
    # The planner skips a file whose time is not plausible.
    at = modified if modified > now + FUTURE else min(modified, now)
    return BackupTime(at.replace(microsecond=0), MTIME, f"{doubt}; {warning}" if doubt else warning)


def _in_utc(header: datetime, zone: tzinfo) -> datetime:
    try:
        return header.replace(tzinfo=zone).astimezone(timezone.utc)
    except OverflowError:  # of the year 1 or 9999: not plausible in any zone
        return header.replace(tzinfo=timezone.utc)


def _doubt(stated: datetime, name: NameTime | None, modified: datetime, now: datetime) -> str | None:
    shown = f"{stated:%Y-%m-%d %H:%M}"
    if not FIRST <= stated <= now + SKEW:
        return f"the header's time {shown} is not plausible"
    if name and not name.moment.earliest - TOLERANCE <= stated <= name.moment.latest + TOLERANCE:
        return f"the header's time {shown} is not that of the name"
    if modified + timedelta(seconds=1) < stated <= modified + _ZONES:
        return f"the header's time {shown} is after the file was last written: another time zone"
    return None
