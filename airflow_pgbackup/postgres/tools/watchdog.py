"""The thread that ends a tool in time: at its deadline, and by KILL if the tool does not obey TERM."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Literal

KILL_AFTER = 2.0
"""Seconds between TERM and KILL: Airflow's own KILL can come 5 s after its TERM."""

GIVE_UP_AFTER = 1.0
"""Seconds after KILL: a pipe that is still open then is held by a process outside the tool's group."""

Ending = Literal["canceled", "deadline", "source", "closed", "ended"]
"""Why a tool is stopped; or ``ended``: it has ended."""


class Watchdog:
    """Watches one tool; :meth:`run` is for a thread of its own.

    :param deadline: seconds until `at_deadline` is called; None for no deadline.
    :param at_deadline: sends TERM to the tool and notes that.
    :param kill: sends KILL to the tool.
    :ivar given_up: the tool's end was not noted within :data:`GIVE_UP_AFTER` after KILL.
    """

    def __init__(self, *, deadline: float | None, at_deadline: Callable[[], None], kill: Callable[[], None]) -> None:
        self.given_up = False
        self._deadline = deadline
        self._at_deadline = at_deadline
        self._kill = kill
        self._endings: queue.SimpleQueue[Ending] = queue.SimpleQueue()  # its put() is reentrant

    def note(self, ending: Ending) -> None:
        """Note that TERM was sent, and why; or that the tool has ended. Safe in a signal handler."""
        self._endings.put(ending)

    def run(self) -> None:
        ending = self._next(self._deadline)
        if ending is None:
            self._at_deadline()
        if ending == "ended" or self._ended_within(KILL_AFTER):
            return
        self._kill()
        self.given_up = not self._ended_within(GIVE_UP_AFTER)

    def _ended_within(self, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while ending := self._next(limit - time.monotonic()):
            if ending == "ended":
                return True
        return False

    def _next(self, seconds: float | None) -> Ending | None:
        try:
            return self._endings.get(timeout=None if seconds is None else min(max(seconds, 0), threading.TIMEOUT_MAX))
        except queue.Empty:
            return None
