"""Limit the rate at which a dump reads from the server, for production primaries.

The reader of pg_dump's output waits, so the pipe fills, pg_dump waits, and then the server waits to send. pg_dump
itself has no such option.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.time_spans import number_of

BURST = 1.0
"""Seconds of the rate that may be made up for after a pause of the dump."""

_NAP = 0.2  # seconds between two looks at the cancel flag


class Throttled:
    """Read a source at no more than a rate, on average.

    :param rate: bytes per second.
    :param clock: returns seconds.
    :param sleep: waits for some seconds.
    """

    def __init__(
        self,
        source: Readable,
        rate: float,
        cancel: Cancel,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._rate = rate
        self._cancel = cancel
        self._clock = clock
        self._sleep = sleep
        self._due = clock()

    def read(self, size: int = -1, /) -> bytes:
        """As the source's; raises :class:`~airflow_pgbackup.errors.Canceled` while it waits."""
        data = self._source.read(size)
        self._due = max(self._due, self._clock() - BURST) + len(data) / self._rate
        while (left := self._due - self._clock()) > 0:
            self._cancel.check()
            self._sleep(min(left, _NAP))
        return data


def rate_of(max_bytes_per_second: object, settings: Settings, *, format: str) -> float | None:
    """Return the limit for a dump; None for none.

    :param max_bytes_per_second: the task's; None takes that of the settings.
    :raises OptionError: not a positive number, or the format cannot be throttled.
    """
    if max_bytes_per_second is None:
        rate = settings.max_bytes_per_second
        if not rate:
            return None
    else:
        rate = number_of(max_bytes_per_second) or 0.0
        if not 1 <= rate < float("inf"):
            raise OptionError(
                f"invalid max_bytes_per_second {max_bytes_per_second!r}", hint="Give a number of bytes, 1 or more."
            )
    if format == "directory":
        raise OptionError(
            "max_bytes_per_second cannot be combined with format directory, whose files pg_dump writes itself",
            hint="Choose format custom, or leave the limit out (in the settings too) and use fewer jobs.",
        )
    return rate
