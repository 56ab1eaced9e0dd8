"""Progress: a log line every few seconds with bytes, rate, elapsed time, tables done."""

from __future__ import annotations

import time
from collections.abc import Callable


def human_bytes(count: float) -> str:
    """Return a size for people: ``1536`` is ``1.5 KiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """Return a duration for people: ``3725`` is ``1 h 2 min``, ``12.34`` is ``12.3 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Log the progress of a long step, at most once every ``interval`` seconds.

    :param what: begins each line, such as ``dumping dvdrental``.
    """

    def __init__(self, log: Callable[[str], None], what: str, *, interval: float = 5.0) -> None:
        self._log = log
        self._what = what
        self._interval = interval
        self._start = self._last = time.monotonic()
        self.bytes = 0
        self.tables = 0
        self.tables_total: int | None = None

    def advance(self, total_bytes: int) -> None:
        """Report the number of bytes so far."""
        self.bytes = total_bytes
        self._say()

    def table_done(self) -> None:
        """Report one more table."""
        self.tables += 1
        self._say()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._last < self._interval:
            return
        self._last = now
        self._log(self.line())

    def line(self) -> str:
        """Return the line for the log."""
        elapsed = max(self.elapsed, 1e-3)
        parts = [human_bytes(self.bytes), f"{human_bytes(self.bytes / elapsed)}/s", human_seconds(elapsed)]
        if self.tables:
            parts.append(f"table {self.tables}" + (f" of {self.tables_total}" if self.tables_total else ""))
        return f"{self._what}: " + ", ".join(parts)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 table``, ``2,000 tables``.

    :param plural: of the noun; by default with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
