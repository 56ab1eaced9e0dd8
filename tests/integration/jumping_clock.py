"""The wall clock as this package reads it, which can be wrong, and can jump between two readings.

The clocks of the stores stay right: file systems and S3 date what they hold themselves.
"""

from __future__ import annotations

import datetime as real
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

PACKAGE = "airflow_pgbackup"


@dataclass
class JumpingClock:
    """:param seconds: how far the clock is wrong, from its reading number `at` (from 1) on.

    :ivar readings: how often it has been read.
    """

    seconds: float
    at: int = 1
    readings: int = 0

    def offset(self) -> float:
        """Read the clock; return how far it is wrong."""
        self.readings += 1
        return self.seconds if self.readings >= self.at else 0.0

    @contextmanager
    def installed(self) -> Iterator[JumpingClock]:
        """Give this clock to all modules of the package that are imported by now."""
        clock, real_time = self, time.time

        class OfClass(type):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, real.datetime)

        class Datetime(real.datetime, metaclass=OfClass):
            @classmethod
            def now(cls, tz: real.tzinfo | None = None) -> Any:
                return real.datetime.now(tz) + real.timedelta(seconds=clock.offset())

        def seconds_now() -> float:
            ours = str(sys._getframe(1).f_globals.get("__name__")).startswith(PACKAGE)
            return real_time() + (clock.offset() if ours else 0.0)

        modules = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith(f"{PACKAGE}.") and getattr(module, "datetime", None) is real.datetime
        ]
        for module in modules:
            module.datetime = Datetime  # type: ignore[attr-defined]
        time.time = seconds_now
        try:
            yield self
        finally:
            time.time = real_time
            for module in modules:
                module.datetime = real.datetime  # type: ignore[attr-defined]
