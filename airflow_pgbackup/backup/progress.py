"""Progress of long work: steps that count bytes, tables and objects, and lines about them for a log.

A verb opens a :class:`Step` by :meth:`.RunContext.step` and counts in it; a :class:`ProgressReporter` shows it.
Counting is an assignment. A reporter reads a step at intervals in its own thread, so a stalled step is shown too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from airflow_pgbackup.quantities import human_bytes, human_duration

LOG_INTERVAL = 5.0
"""Seconds between the lines of a step."""
_FIRST_ETA = 2.0  # seconds: before that the rate says nothing


class ProgressReporter(Protocol):
    """The interface that shows the progress of steps. Several steps may be open at once, also in several threads."""

    def begin(self, step: Step) -> None:
        """Show a step from now on."""

    def end(self, step: Step) -> None:
        """Stop showing it; called once for each :meth:`begin`, whether the step succeeded or failed."""


class Step:
    """The progress of a long step. Use it in a ``with`` statement, or call :meth:`end`.

    :param what: begins each line: ``dumping dvdrental``.
    :param bytes_total: the expected number of bytes; None if unknown.
    :param estimated: `bytes_total` is only an estimate, such as a database's size for its dump.
    :param tables_total: the expected number of tables; None if unknown.
    :param items_total: the expected number of objects; None if unknown.
    :param noun: of one item.
    :param measure: returns the bytes so far, where nobody calls :meth:`advance`; called for each line that is shown.
    :ivar elapsed: seconds since the step began.
    """

    def __init__(
        self,
        what: str,
        reporter: ProgressReporter,
        *,
        bytes_total: int | None = None,
        estimated: bool = False,
        tables_total: int | None = None,
        items_total: int | None = None,
        noun: str = "object",
        measure: Callable[[], int] | None = None,
    ) -> None:
        self.what = what
        self.bytes_total = bytes_total
        self.estimated = estimated
        self.tables_total = tables_total
        self.items_total = items_total
        self.noun = noun
        self.measure = measure
        self.bytes = 0
        self.tables = 0
        self.items = 0
        self._reporter = reporter
        self._start = time.monotonic()
        self._open = True
        reporter.begin(self)

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the step; a second call does nothing."""
        if self._open:
            self._open = False
            self._reporter.end(self)

    def advance(self, total_bytes: int) -> None:
        """Set the bytes so far."""
        self.bytes = total_bytes

    def begin_table(self) -> None:
        """Count a table that begins."""
        self.tables += 1

    def begin_item(self) -> None:
        """Count an object that begins."""
        self.items += 1

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def figures(self) -> StepFigures:
        """Return the numbers as they are now."""
        if self.measure is not None:
            self.bytes = max(self.bytes, self.measure())
        return StepFigures(self, max(self.elapsed, 1e-3))


class StepFigures:
    """The numbers of a step at a moment.

    :ivar fraction: the share that is done, 0 to 1; None if unknown, also once a total turns out to be too small. An
        estimated total never gives 1.
    :ivar rate: bytes a second.
    :ivar eta: seconds to the end, None if unknown. Only bytes give one: tables and objects differ too much.
    """

    def __init__(self, step: Step, elapsed: float) -> None:
        self.step = step
        self.elapsed = elapsed
        self.bytes, self.tables, self.items = step.bytes, step.tables, step.items
        self.rate = self.bytes / elapsed
        self.bytes_total = _usable(self.bytes, step.bytes_total)
        self.tables_total = _usable(self.tables, step.tables_total)
        self.items_total = _usable(self.items, step.items_total)
        self.fraction = self._fraction()
        self.eta = self._eta()

    def _fraction(self) -> float | None:
        if self.items_total is not None:  # as in a restore, whose bytes are read long before its indexes are built
            return _begun(self.items, self.items_total)
        if self.bytes_total is not None:
            return min(self.bytes / self.bytes_total, 0.99) if self.step.estimated else self.bytes / self.bytes_total
        if self.step.bytes_total or self.step.items_total:
            return None
        return None if self.tables_total is None else _begun(self.tables, self.tables_total)

    def _eta(self) -> float | None:
        if self.bytes_total is None or self.items_total is not None or not self.bytes or self.elapsed < _FIRST_ETA:
            return None
        return (self.bytes_total - self.bytes) / self.rate

    @property
    def percent(self) -> str | None:
        """``43%``, ``~43%`` of an estimate, None if unknown. 100% is complete."""
        if self.fraction is None:
            return None
        return f"{'~' if self.step.estimated else ''}{int(self.fraction * 100)}%"

    @property
    def parts(self) -> list[str]:
        """The numbers as texts, the most important first."""
        about = "~" if self.step.estimated else ""
        parts = []
        if self.percent is not None:
            parts.append(self.percent)
        if self.bytes:
            of = f" of {about}{human_bytes(self.bytes_total)}" if self.bytes_total else ""
            parts.append(f"{human_bytes(self.bytes)}{of}")
        if self.tables or self.tables_total:
            parts.append(_count(self.tables, self.tables_total, "table"))
        if self.items or self.items_total:
            parts.append(_count(self.items, self.items_total, self.step.noun))
        if self.eta is not None:
            parts.append(f"ETA {about}{human_duration(self.eta)}")
        if self.bytes:
            parts.append(f"{human_bytes(self.rate)}/s")
        parts.append(human_duration(self.elapsed))
        return parts

    @property
    def line(self) -> str:
        """One line for a log."""
        return f"{self.step.what}: {', '.join(self.parts)}"


def _begun(count: int, total: int) -> float:
    """Return the share that is done if items are counted when they begin."""
    return max(count - 1, 0) / total


def _usable(done: int, total: int | None) -> int | None:
    return total if total and done <= total else None


def _count(done: int, total: int | None, noun: str) -> str:
    return f"{noun} {done:,}" + (f" of {total:,}" if total else "")


class LogProgress:
    """Writes a line for each open step every few seconds.

    :param log: takes a line; called from a thread.
    :param interval: seconds between the lines of a step; a step that ends before that writes none.
    """

    def __init__(self, log: Callable[[str], None], interval: float = LOG_INTERVAL) -> None:
        self._log = log
        self._interval = interval
        self._ends: dict[int, tuple[threading.Event, threading.Thread]] = {}

    def begin(self, step: Step) -> None:
        end = threading.Event()
        thread = threading.Thread(target=self._watch, args=(step, end), name="pgbackup-progress", daemon=True)
        self._ends[id(step)] = (end, thread)
        thread.start()

    def end(self, step: Step) -> None:
        end, thread = self._ends.pop(id(step))
        end.set()
        thread.join(1.0)  # no line about a step follows what comes after it, unless the log itself hangs

    def _watch(self, step: Step, end: threading.Event) -> None:
        while not end.wait(self._interval):
            self._log(step.figures().line)


class NoProgress:
    """Shows nothing."""

    def begin(self, step: Step) -> None:
        pass

    def end(self, step: Step) -> None:
        pass
