"""Time zones, the times of files, and how far clocks may disagree."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from airflow_pgbackup.errors import ConfigurationError

SKEW = timedelta(minutes=5)
"""How far the clocks of two workers may disagree."""

_FILE_TIMES = (datetime(1900, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 30, tzinfo=timezone.utc))


def find_zone(name: str) -> tzinfo:
    """Return a time zone.

    :param name: an IANA name.
    :raises ConfigurationError: it does not exist.
    """
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        # ZoneInfoNotFoundError is a KeyError; '../x' a ValueError; the name of a directory an OSError.
        raise ConfigurationError(
            f"time zone {name!r} does not exist",
            hint="Use an IANA name like 'Europe/Berlin'. On a system without time zones, pip install tzdata.",
        ) from None


def file_time(seconds: float) -> datetime:
    """Return a file's timestamp, given in seconds since 1970, as UTC; one out of range becomes the nearest time that
    Python can handle in every time zone.

    Several file systems keep whatever a user sets, such as the year 33658.
    """
    first, last = (limit.timestamp() for limit in _FILE_TIMES)
    return datetime.fromtimestamp(min(max(seconds, first), last), timezone.utc)
