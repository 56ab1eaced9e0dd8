"""What the operators share: settings, cancelling, errors in Airflow's terms."""

from __future__ import annotations

import json
import socket
from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_pgbackup.errors import Canceled, ConfigurationError, PgBackupError
from airflow_pgbackup.text import encodable, printing

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.tools.cancel import Cancel


class PgBackupOperator(BaseOperator):
    """Base of the operators: each translates its arguments into one call of a verb in :mod:`airflow_pgbackup.backup`.

    A failure is one line, ``message. HINT: what to do``, raised without the chain of errors behind it. Where trying
    again cannot help the task fails without its retries.
    """

    ui_color = "#cfe2f3"

    deadline: float | timedelta | None = None

    # Only a running task has one: operators are copied and pickled.
    _cancel: Cancel | None = None
    _killed = False

    def execute(self, context: Context) -> dict[str, object]:
        from airflow_pgbackup.backup.context import RunContext
        from airflow_pgbackup.postgres.tools.cancel import Cancel
        from airflow_pgbackup.settings import load

        self._cancel = cancel = Cancel()
        try:
            if self._killed:
                raise Canceled("stopped before it began")
            run = RunContext(
                settings=load(airflow=True),
                cancel=cancel,
                log=printing(self.log.info),
                deadline=seconds(self.deadline),
                origin=origin(context),
                seed=seed(context),
            )
            return dict(encodable(self._run(context, run)))
        except PgBackupError as error:
            failure = airflow_error(error)
        # Outside of the handler, so that the error does not carry the one that it was made of.
        raise failure

    @abstractmethod
    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        """Make the one call, with ``run`` as its context. What it returns goes to XCom: a reference, plain JSON."""

    def on_kill(self) -> None:
        """Stop the tool; returns at once. ``execute``, which goes on meanwhile, then fails and cleans up.

        Runs in a signal handler: no log line, no lock.
        """
        self._killed = True
        if self._cancel is not None:
            self._cancel.set()

    def _keep(self, arguments: Mapping[str, Any]) -> None:
        """Store a constructor's ``locals()``: each argument under its own name, and nothing else."""
        for name, value in arguments.items():
            if name not in ("self", "kwargs", "__class__"):
                setattr(self, name, value)


def airflow_error(error: PgBackupError) -> AirflowException:
    """The error for Airflow: one line, with or without retries."""
    return (AirflowFailException if error.permanent else AirflowException)(str(error))


def seconds(deadline: float | timedelta | None) -> float | None:
    """A deadline as the verbs want it."""
    return deadline.total_seconds() if isinstance(deadline, timedelta) else deadline


def is_true(name: str, value: bool | str) -> bool:
    """A flag that may have been rendered from a template, where it is text.

    :raises ConfigurationError: neither true nor false.
    """
    known = {"true": True, "false": False}
    if (text := str(value).strip().lower()) in known:
        return known[text]
    raise ConfigurationError(
        f"{name} is {value!r}", hint="pass True or False, or a template that renders to one of them"
    )


def seed(context: Context) -> str:
    """Return what identifies a request: the same for each try of a task, so a retry finds what an earlier one did.

    A person who clears a task wants it again. Airflow then raises ``max_tries`` to the tries so far and the retries
    (``clear_task_instances``), so the difference to the retries changes with each clear, and with nothing else.
    """
    ti = context["ti"]
    cleared = ti.max_tries - (ti.task.retries or 0)
    return json.dumps([ti.dag_id, ti.task_id, ti.run_id, ti.map_index, cleared])


def origin(context: Context) -> dict[str, object]:
    """Who made a backup or a verification, for its manifest."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "hostname": socket.gethostname(),
    }


def repository_of(backup: object) -> str:
    """The URI of the repository that a reference was made in.

    :raises ConfigurationError: not a reference.
    """
    if isinstance(backup, Mapping) and isinstance(uri := backup.get("repository"), str):
        return uri
    raise ConfigurationError(
        f"backup is no reference: {str(backup)[:200]}",
        hint="pass what a dump, verify or upload task returned, as in backup=dump.output",
    )
