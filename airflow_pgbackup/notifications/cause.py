"""Why a task failed: what the operators leave for :mod:`airflow_pgbackup.notifications.failure`.

Airflow's exceptions carry a message and no hint, and a callback of a DAG gets no exception at all: it runs in the DAG
processor. So a task that fails attaches both to its exception, and pushes them to XCom if its DAG has such a callback.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_pgbackup.text import encodable

log = logging.getLogger(__name__)

XCOM_KEY = "pgbackup_failure"
_ATTRIBUTE = "pgbackup_cause"
_LONGEST = 2000


class Cause(NamedTuple):
    """The message of an error and its hint; neither holds a secret."""

    message: str
    hint: str | None = None


def leave_cause(context: Any, error: BaseException, cause: Cause) -> None:
    """Leave why the task failed, for its alert. Never raises.

    :param error: the exception that the task is about to raise.
    """
    setattr(error, _ATTRIBUTE, cause)
    try:
        if context["dag"].on_failure_callback:
            short = {name: text and text[:_LONGEST] for name, text in cause._asdict().items()}
            context["ti"].xcom_push(XCOM_KEY, encodable(short))
    except Exception as not_left:  # noqa: BLE001  # the task has failed for another reason, which its log has
        log.debug("the cause was not left for the alert: %r", not_left)


def find_cause(context: Any) -> Cause | None:
    """Return what the failed task left, or None. Never raises."""
    exception = context.get("exception")
    if isinstance(cause := getattr(exception, _ATTRIBUTE, None), Cause):
        return cause
    if exception is not None:
        return None
    try:
        ti = context["ti"]
        found = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_KEY, map_indexes=ti.map_index)
    except Exception as error:  # noqa: BLE001  # the last task is unknown, or the API server does not answer
        log.debug("the cause was not found for the alert: %r", error)
        return None
    if isinstance(found, Mapping) and isinstance(message := found.get("message"), str):
        hint = found.get("hint")
        return Cause(message, hint if isinstance(hint, str) else None)
    return None
