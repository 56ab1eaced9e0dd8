"""What a task logs at its ``execution_timeout``."""

from __future__ import annotations

from typing import Any

from airflow_pgbackup.notifications.cause import Cause, leave_cause
from airflow_pgbackup.operators._task_log import wrapped


def note_timeout(task: Any, context: Any, error: BaseException, *, cleaned: str = "") -> None:
    """Log that a task reached its ``execution_timeout``, and leave the cause for its alert.

    :param error: the exception that Airflow raised.
    :param cleaned: what has been cleaned up, for the log.
    """
    stopped = f"stopped at its execution_timeout of {task.execution_timeout}"
    wrapped(task.log.error, f"{stopped}: {cleaned}" if cleaned else stopped)
    hint = "Raise execution_timeout, or find out what the task waited for."
    wrapped(task.log.error, f"hint: {hint}")
    leave_cause(context, error, Cause(stopped, hint))
