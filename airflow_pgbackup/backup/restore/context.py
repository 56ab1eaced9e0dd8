"""The state that all steps of one restore share: settings, log, cancellation, deadline, warnings."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from airflow_pgbackup.backup.context import RunContext, begin_step
from airflow_pgbackup.backup.progress import ProgressReporter, Step
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import DeadlineExceeded
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings

_MOST_WARNINGS = 100


@dataclass
class RestoreContext:
    """What all steps of one restore share.

    :ivar deadline: of the restore as a whole, on the clock of :func:`time.monotonic`; None for no deadline.
    :ivar identities: returns those that decrypt artifacts; called only for encrypted ones.
    :ivar warnings: problems that did not stop the restore, the first 100.
    :ivar application: application_name of the sessions of pg_restore and psql, of no other restore.
    :ivar filling: set when pg_restore has connected, and creates objects.
    """

    settings: Settings
    log: Callable[[str], None]
    cancel: Cancel
    progress: ProgressReporter | None = None
    deadline: float | None = None
    identities: Callable[[], Identities] = Identities
    warnings: list[str] = field(default_factory=list)
    application: str = field(default_factory=lambda: f"airflow-pgbackup restore {secrets.token_hex(8)}")
    filling: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, context: RunContext) -> RestoreContext:
        """Return the context of a restore that begins now; the deadline of `context` limits all of it."""
        return cls(
            settings=context.settings,
            log=context.log,
            cancel=context.cancel,
            progress=context.progress,
            deadline=None if context.deadline is None else time.monotonic() + context.deadline,
            identities=context.require_identities,
        )

    def step(self, what: str, **totals: Any) -> Step:
        """Begin a step; see :meth:`.RunContext.step`."""
        return begin_step(self.progress, self.log, what, **totals)

    def log_after_commit(self, line: str) -> None:
        """Log a line about what has been committed: an error of the log must not look like a failed restore."""
        with suppress(Exception):
            self.log(line)

    def warn(self, line: str) -> None:
        """Log a warning, and keep it for the result."""
        if len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(line)
        self.log(f"warning: {line}")

    def check(self) -> None:
        """Stop here if the restore was canceled or its deadline has passed.

        :raises Canceled, DeadlineExceeded: it was, or has.
        """
        self.cancel.check()
        self.remaining()

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, None for no deadline.

        :raises DeadlineExceeded: it has passed.
        """
        if self.deadline is None:
            return None
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceeded(
                "the restore did not end before its deadline and was stopped",
                tool="restore",
                exit_code=None,
                hint="Raise the deadline if the restore only needs more time.",
            )
        return seconds
