"""Spans of time as a user gives them (a timedelta, a number of seconds, text like ``36h``)."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.text import printable
from airflow_pgbackup.wording import parameter

LONGEST = timedelta(days=36_525)
"""100 years. More is a mistake, and times so far back cannot be calculated."""

_SHOWN = 200
_UNITS = {"h": 1, "d": 24, "w": 7 * 24}


def require_timedelta(name: str, value: object) -> timedelta:
    """Return a timedelta that a parameter has.

    :raises ConfigurationError: something else.
    """
    if not isinstance(value, timedelta):
        raise _invalid(name, value, "Use a datetime.timedelta.")
    return value


def check_span(name: str, value: object) -> timedelta:
    """Return a timedelta that is a span of time: above zero, and at most :data:`LONGEST`.

    :raises ConfigurationError: something else.
    """
    span = require_timedelta(name, value)
    if not timedelta(0) < span <= LONGEST:
        raise ConfigurationError(
            f"invalid {parameter(name)} {span}", hint="Use a span above 0 and of at most 100 years."
        )
    return span


def seconds(name: str, value: object) -> float:
    """Return the seconds of a parameter that is a timedelta or a number of them.

    :raises ConfigurationError: something else, not above zero, or longer than :data:`LONGEST`.
    """
    if isinstance(value, timedelta):
        return check_span(name, value).total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(name, value, "Use a datetime.timedelta, or a number of seconds.")
    if not 0 < value <= LONGEST.total_seconds():
        raise _invalid(name, value, "Use a number of seconds above 0 and of at most 100 years.")
    return value


def number_of(value: object) -> float | None:
    """Return a number, also one that is text, as a rendered template gives it; None for anything else."""
    try:
        return None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # anything else raises
    except (TypeError, ValueError, OverflowError):
        return None


def seconds_of_lag(max_replay_lag: object) -> float | None:
    """Return the limit, a timedelta or a number of seconds, as such a number; None for no limit.

    :raises ConfigurationError: something else, or negative.
    """
    if max_replay_lag is None:
        return None
    lag = max_replay_lag.total_seconds() if isinstance(max_replay_lag, timedelta) else number_of(max_replay_lag)
    if lag is None or not 0 <= lag < math.inf:
        raise ConfigurationError(
            f"invalid {parameter('max_replay_lag')} {max_replay_lag!r}",
            hint="Give a number of seconds that is not negative.",
        )
    return lag


def parse_span(text: str) -> timedelta:
    """Return ``36h``, ``30d``, ``8w``, ``1w12h`` as a time span. Months and years vary in length, so there are none.

    :raises ConfigurationError: for anything else, also for more than :data:`LONGEST`.
    """
    parts = re.findall(r"(\d{1,6})([hdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(
            f"{text!r} is not a time span", hint="Write hours, days and weeks like 36h, 30d, 8w, 1w12h."
        )
    hours = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if hours > LONGEST / timedelta(hours=1):
        raise ConfigurationError(f"time span {printable(text[:_SHOWN])} is too long", hint="Use at most 100 years.")
    return timedelta(hours=hours)


def _invalid(name: str, value: object, hint: str) -> ConfigurationError:
    return ConfigurationError(f"invalid {parameter(name)} {printable(repr(value)[:_SHOWN])}", hint=hint)
