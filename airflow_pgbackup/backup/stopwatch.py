"""When work began and ended, and how long it took, even if the clock is set in between."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone


@dataclass(frozen=True)
class Stopwatch:
    """Begins when it is made.

    The end is the beginning plus what the monotonic clock has counted. So if the wall clock jumps in between, the end
    is not before the beginning, which no manifest and no verification may say.

    :param started_at: aware, UTC.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    _start: float = field(default_factory=time.monotonic)

    def stop(self) -> tuple[datetime, float]:
        """Return the time now, aware, UTC, and the seconds since the beginning, rounded to milliseconds."""
        seconds = time.monotonic() - self._start
        return self.started_at + timedelta(seconds=seconds), round(seconds, 3)
