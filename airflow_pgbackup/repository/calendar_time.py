"""Names of time zones, time spans like ``36h``, and how far clocks may disagree."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from airflow_pgbackup.errors import ConfigurationError

SKEW = timedelta(minutes=5)
"""How far the clocks of two workers may disagree."""

_FILE_TIMES = (datetime(1900, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 30, tzinfo=timezone.utc))
_UNITS = {"h": 1, "d": 24, "w": 7 * 24}


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


def parse_duration(text: str) -> timedelta:
    """Return ``36h``, ``30d``, ``8w``, ``1w12h`` as a time span. Months and years vary in length, so there are none.

    :raises ConfigurationError: for anything else.
    """
    parts = re.findall(r"(\d{1,6})([hdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(
            f"{text!r} is not a time span", hint="Write hours, days and weeks like 36h, 30d, 8w, 1w12h."
        )
    return timedelta(hours=sum(int(number) * _UNITS[unit] for number, unit in parts))
