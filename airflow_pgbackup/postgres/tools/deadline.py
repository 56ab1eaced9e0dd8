"""A deadline for work that runs in this process; a program has its own, see :mod:`.process`."""

from __future__ import annotations

import time

from airflow_pgbackup.errors import DeadlineExceeded
from airflow_pgbackup.postgres.tools.cancel import Cancel

_SHORTEST = 0.001  # seconds: a program or a statement needs a positive limit


class Deadline:
    """The time by which a piece of work must end, and the flag that cancels it before.

    :param seconds: from now on; infinite for none.
    :param work: names it in errors: ``reading the archive``.
    """

    def __init__(self, seconds: float, cancel: Cancel | None = None, *, work: str) -> None:
        self.cancel = cancel or Cancel()
        self._seconds = seconds
        self._work = work
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left, never less than a millisecond."""
        return max(self._end - time.monotonic(), _SHORTEST)

    def check(self) -> None:
        """Raise if the work has to stop.

        :raises Canceled: the flag is set.
        :raises DeadlineExceeded: the deadline has passed.
        """
        self.cancel.check()
        if time.monotonic() > self._end:
            raise self.exceeded()

    def exceeded(self) -> DeadlineExceeded:
        """Return the error for work that was stopped at its deadline."""
        return DeadlineExceeded(
            f"{self._work} did not end within {self._seconds:g} s",
            tool=self._work,
            exit_code=None,
            hint="Raise the deadline if the work only needs more time.",
        )
