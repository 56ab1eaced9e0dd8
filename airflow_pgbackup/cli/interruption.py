"""Ctrl-C, SIGTERM and a closed terminal, while a verb works."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from airflow_pgbackup.postgres.tools.cancel import Cancel

_OUR_THREADS = "pgbackup"  # begins their names
_JOINED_WITHIN = 1.0  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Stops a verb at the first of these signals, for the length of a ``with``, and lets it clean up.

    The first one sets the flag and raises KeyboardInterrupt, which also ends a call that checks no flag, such as to a
    hanging store. People press Ctrl-C twice, and a closed terminal sends several signals, so the second one changes
    nothing. A third Ctrl-C raises KeyboardInterrupt again, in case the cleanup hangs.

    :param say: prints a line.
    :ivar forced: whether the cleanup was interrupted, too.
    """

    def __init__(self, cancel: Cancel, say: Callable[[str], None]) -> None:
        self.forced = False
        self._cancel = cancel
        self._say = say
        self._received = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it, and a shell for a background job
                self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # The process ends now: one more Ctrl-C would only end it with a traceback.
            ends = number == signal.SIGINT and self._received
            signal.signal(number, signal.SIG_IGN if ends else handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._received == 0:
            self._received = 1
            self._cancel.set()
            raise KeyboardInterrupt
        if number != signal.SIGINT:
            return
        self._received += 1
        if self._received > 2:
            self.forced = True
            raise KeyboardInterrupt
        with suppress(Exception):  # the signal can interrupt a write to the same stream
            self._say("removing incomplete work; a third Ctrl-C leaves it")


def leave(status: int) -> int:
    """Return an exit status; or end the process with it, if a thread still waits for a store that does not answer:
    Python would wait for the thread."""
    end = time.monotonic() + _JOINED_WITHIN
    waiting = [one for one in threading.enumerate() if one.name.startswith(_OUR_THREADS) and not one.daemon]
    for one in waiting:
        one.join(max(end - time.monotonic(), 0))
    if any(one.is_alive() for one in waiting):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    return status
