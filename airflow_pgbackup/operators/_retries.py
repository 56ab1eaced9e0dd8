"""Retries: how a task follows what an error says about them (:data:`airflow_pgbackup.retry.Retry`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.operators._task_log import TaskLog
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from airflow_pgbackup.postgres.tools.cancel import Cancel

    Result = TypeVar("Result")

SECOND_TRY_AFTER = 10.0
"""Seconds until the second try with a password or key: by then a new one has reached every server."""

RETRY_SOON = timedelta(minutes=1)
"""The delay before a retry after a lock timeout: the attempt has already waited for it, two minutes by default."""


def with_second_try(work: Callable[[], Result], log: TaskLog, cancel: Cancel | None = None) -> Result:
    """Return what `work` returns, after a second try where one can help: it reads the connection again.

    :raises PgBackupError: the work failed; if it did so twice, a retry cannot help.
    :raises Canceled: the task was asked to stop.
    """
    try:
        return work()
    except PgBackupError as error:
        if error.retry != "once":
            raise
        log.line(f"warning: {error.message}")
    log.line(f"retrying once in {SECOND_TRY_AFTER:.0f} s, in case the password or key is being replaced")
    until = time.monotonic() + SECOND_TRY_AFTER
    while time.monotonic() < until:
        if cancel:
            cancel.check()
        time.sleep(0.1)
    try:
        return work()
    except PgBackupError as error:
        if error.retry == "once":
            error.retry = "never"
        raise


def airflow_error(error: PgBackupError) -> AirflowException:
    """Return the error for Airflow: the message alone, with or without retries."""
    return (AirflowFailException if error.permanent else AirflowException)(printable(error.message))


def retry_soon(task: Any, error: PgBackupError) -> None:
    """Shorten the delay before the next retry where the failed attempt has already waited.

    Airflow asks the ``retry_policy`` of the task (since 3.3) after it has failed; one that the DAG sets stays.
    """
    if error.retry == "soon" and getattr(task, "retry_policy", True) is None:
        task.retry_policy = _soon()


def _soon() -> Any:
    from airflow.sdk import RetryDecision, RetryPolicy

    class RetrySoon(RetryPolicy):
        def evaluate(self, *_: Any, **__: Any) -> RetryDecision:
            return RetryDecision.retry(RETRY_SOON, "this attempt has already waited for the lock")

    return RetrySoon()
