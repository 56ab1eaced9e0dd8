"""PgBackupFreshnessSensor: check that each series has a recent, verified backup of about the usual size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_pgbackup.errors import Canceled, PgBackupError
from airflow_pgbackup.notifications.cause import Cause, leave_cause
from airflow_pgbackup.operators._base import is_true
from airflow_pgbackup.operators._given import require_given
from airflow_pgbackup.operators._map_label import as_label, series_label
from airflow_pgbackup.operators._rendering import remember_passed, render
from airflow_pgbackup.operators._retries import airflow_error, with_second_try
from airflow_pgbackup.operators._stats import send_failure, send_freshness
from airflow_pgbackup.operators._task_log import TaskLog, wrapped
from airflow_pgbackup.operators._timeouts import note_timeout
from airflow_pgbackup.retry import Retry
from airflow_pgbackup.text import first_of, printable
from airflow_pgbackup.time_spans import seconds

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from typing_extensions import Self

    from airflow_pgbackup.postgres.tools.cancel import Cancel

_MOST_ROWS = 40


class _Stopped(BaseException):
    """The task was asked to stop. Not an Exception, because with ``silent_fail`` or ``soft_fail`` Airflow's sensor
    would ignore it or skip the task."""


class PgBackupFreshnessSensor(BaseSensorOperator):
    """Succeed when every series is fresh. By default it checks once, and fails at once when a series is not fresh.

    It reads only the repository, so it depends on no other run: in a DAG with its own schedule it notices a backup DAG
    that is paused, deleted or was never written. ``docs/reference/freshness.md`` compares it with Airflow's deadline
    alerts. The log has a table of the series, and each problem; the exception names the first three. The task returns
    what :func:`airflow_pgbackup.backup.freshness.freshness` does.

    :param repository: ``s3://bucket/prefix`` or ``file:///directory``.
    :param max_age: the greatest time, in seconds or as a timedelta, between the start of the newest backup that counts
        and now: what a restore would lose at most.
    :param server: only the series of this server, as the dump operators name it: a connection id by default.
    :param databases: the databases of ``server`` that must be fresh; one without a backup is not fresh. None: every
        series that exists. An empty list, with ``cluster`` or ``scopes``: no database.
    :param cluster: the pg_dumpall backups of ``server`` must exist and be fresh too.
    :param scopes: the pg_dumpall backups of ``globals``, ``roles`` or ``tablespaces`` alone that must exist and be
        fresh too.
    :param exclude: series to ignore, ``server/database`` with ``*`` and ``?``.
    :param sets: ``server``, or each server with backup sets, must have a complete set no older than ``max_age``
        whose backups all exist and have not failed.
    :param minimum_level: the level at which a backup must be verified to count: ``integrity``, ``archive`` or
        ``restore``; None: every backup counts that has not failed.
    :param max_drop: the share by which the size, the sum of all rows, or the rows of a table may not fall below the
        median of the previous backups; None compares nothing.
    :param compare_with: the number of previous backups for that median.
    :param allow_drop: tables that may become empty: ``schema.table`` with ``*`` and ``?``.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param deferrable: wait in the triggerer, not on a worker.
    :param timeout: how long to wait until every series is fresh, checking every ``poke_interval``; then the task fails
        without retries. Zero, the default, checks once.
    """

    template_fields = (
        "repository",
        "server",
        "databases",
        "cluster",
        "scopes",
        "exclude",
        "sets",
        "minimum_level",
        "allow_drop",
        "aws_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("databases", "scopes", "exclude", "allow_drop"), "json"
    )
    ui_color = "#cfe2f3"

    def __init__(
        self,
        *,
        repository: str,
        max_age: timedelta | float,
        server: str | None = None,
        databases: Sequence[str] | XComArg | None = None,
        cluster: bool | str = False,
        scopes: Sequence[str] = (),
        exclude: Sequence[str] = (),
        sets: bool | str = False,
        minimum_level: str | None = "archive",
        max_drop: float | None = 0.9,
        compare_with: int = 5,
        allow_drop: Sequence[str] = (),
        aws_conn_id: str | None = "aws_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        timeout: float | timedelta = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self.repository = repository
        self.max_age = max_age
        self.server = server
        self.databases = databases
        self.cluster = cluster
        self.scopes = scopes
        self.exclude = exclude
        self.sets = sets
        self.minimum_level = minimum_level
        self.max_drop = max_drop
        self.compare_with = compare_with
        self.allow_drop = allow_drop
        self.aws_conn_id = aws_conn_id
        self.deferrable = deferrable

    _passed: Mapping[str, Any] = MappingProxyType({})
    _lost: Sequence[str] = ()
    """Arguments that were given, but are empty now that they are rendered."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return remember_passed(super().__new__(cls), kwargs)

    # The result and the error of the last check; only a running task has them.
    _found: dict[str, Any] | None = None
    _error: PgBackupError | None = None
    _cancel: Cancel | None = None
    _waiting = False
    _killed = False

    def execute(self, context: Context) -> Any:
        from airflow_pgbackup.postgres.tools.cancel import Cancel

        self._cancel = Cancel()
        try:
            self._stop_if_killed()
            return self._execute(context)
        except AirflowTaskTimeout as error:
            note_timeout(self, context, error)
            send_failure(self, type(error).__name__)
            raise
        except _Stopped:
            failure = AirflowException("stopped: the task was asked to stop")
            leave_cause(context, failure, Cause(str(failure)))
            send_failure(self, Canceled.__name__)
        finally:
            self._waiting = False
        # Raised outside the handler, so that the log shows one error.
        raise failure

    def _stop_if_killed(self) -> None:
        if self._killed:
            raise _Stopped

    def _execute(self, context: Context) -> Any:
        if self.deferrable and self.timeout:
            end = time.time() + self.timeout
            if self._fresh_at_once(context):
                return self._found
            from airflow_pgbackup.triggers.freshness import FreshnessTrigger

            self.defer(
                trigger=FreshnessTrigger(
                    arguments=self._arguments(),
                    poke_interval=self.poke_interval,
                    end=end,
                    silent_fail=self.silent_fail,
                ),
                method_name="execute_complete",
                # The trigger ends on its own; this is for a trigger that no triggerer runs.
                timeout=timedelta(seconds=self.timeout + self.poke_interval + 600),
            )
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            failure = self._not_checked(context, self._error) if self._error else self._not_fresh(context, self._found)
        # Airflow's own message says how long it took, this one which series are not fresh.
        raise failure

    def _fresh_at_once(self, context: Context) -> bool:
        """Check before the first wait. Apply silent_fail, soft_fail and never_fail to an error, as Airflow does in
        later checks."""
        try:
            return bool(self.poke(context))
        except AirflowException as error:
            if self.silent_fail and not isinstance(error, AirflowFailException):
                return False
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("skipped because of soft_fail or never_fail") from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        self._waiting = False
        try:
            found = self._poke(context)
        finally:
            # In this order: on_kill, which may interrupt at any time, ends the wait from now on.
            self._waiting = True
        if not found:
            self._stop_if_killed()
        return found

    def _poke(self, context: Context) -> PokeReturnValue:
        from airflow_pgbackup.triggers.freshness import check_freshness

        log, cancel = TaskLog(self.log), self._cancel
        try:
            require_given(self, self._lost)
            found = with_second_try(
                lambda: check_freshness(**self._arguments(), log=log.line, cancel=cancel), log, cancel
            )
        except PgBackupError as error:
            self._stop_if_killed()
            self._error = error
            failure = self._failed(context, error, type(error).__name__)
        else:
            self._found, self._error = found, None
            send_freshness(found)
            if found["fresh"]:
                self._log_table(found)
            return PokeReturnValue(is_done=bool(found["fresh"]), xcom_value=found)
        # Raised outside the handler, so that the traceback shows one error.
        raise failure

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Finish the task with the trigger's event."""
        if "error" in event:
            retry: Retry = "never" if event["permanent"] else "later"
            error = PgBackupError(event["error"], hint=event.get("hint"), retry=retry)
            raise self._failed(context, error, str(event.get("class", "other")))
        found: dict[str, Any] = event["result"]
        send_freshness(found)
        if not found["fresh"]:
            raise self._not_fresh(context, found)
        self._log_table(found)
        return found

    def on_kill(self) -> None:
        """Stop a check, or end the wait for the next one. This runs in a signal handler."""
        self._killed = True
        if self._cancel is not None:
            self._cancel.set()
        if self._waiting:
            self._waiting = False
            raise _Stopped

    def _failed(self, context: Context, error: PgBackupError, kind: str) -> AirflowException:
        """Log the error of a check, and return the one for Airflow.

        :param kind: of the error, for the metric of failures.
        """
        TaskLog(self.log).failure(error)
        failure = airflow_error(error)
        leave_cause(context, failure, Cause(error.message, error.hint))
        send_failure(self, kind)
        return failure

    def _not_checked(self, context: Context, error: PgBackupError) -> AirflowSensorTimeout:
        """Return the error for Airflow after silent_fail, if the last check failed too; the log has its message."""
        failure = AirflowSensorTimeout(printable(error.message))
        leave_cause(context, failure, Cause(error.message, error.hint))
        return failure

    def _not_fresh(self, context: Context, found: dict[str, Any] | None) -> AirflowSensorTimeout:
        """Log the table and every problem, and return the error for Airflow."""
        found = found or {}
        self._log_table(found)
        for problem in found.get("problems", []):
            wrapped(self.log.error, problem)
        error = AirflowSensorTimeout(not_fresh(found))
        leave_cause(context, error, Cause(not_fresh(found)))
        send_failure(self, "NotFresh")
        return error

    def _log_table(self, found: dict[str, Any]) -> None:
        for line in freshness_table(found):
            self.log.info(line)

    @property
    def map_label(self) -> str:
        """What the task checks: the name of a mapped task."""
        return as_label(self.server or self.repository)

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        render(self, super()._do_render_template_fields, *args, **kwargs)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of ``check_freshness`` as plain JSON, rendered."""
        databases: Any = self.databases
        return {
            "repository": self.repository,
            "aws_conn_id": self.aws_conn_id,
            "series": {
                "server": self.server,
                "databases": None if databases is None else list(databases),
                "cluster": is_true("cluster", self.cluster),
                "scopes": list(self.scopes),
            },
            "exclude": list(self.exclude),
            "sets": is_true("sets", self.sets),
            "rules": {
                "max_age": seconds("max_age", self.max_age),
                "minimum_level": self.minimum_level,
                "max_drop": self.max_drop,
                "compare_with": self.compare_with,
                "allow_drop": list(self.allow_drop),
            },
        }


def not_fresh(found: dict[str, Any]) -> str:
    """Return one line for a failed task: the first problems that a check found."""
    problems: list[str] = found.get("problems", [])
    return printable(f"not fresh: {first_of(problems, 3, '; ')}")


def freshness_table(found: dict[str, Any]) -> list[str]:
    """Return the series that a check found as lines: those that are not fresh first, at most 40."""
    from airflow_pgbackup.quantities import counted, human_age, human_bytes

    rows = [("series", "age", "level", "size", "")]
    series = sorted(found.get("series", []), key=lambda one: bool(one["fresh"]))
    for one in series[:_MOST_ROWS]:
        rows.append(
            (
                printable(series_label(one["series"])),
                "-" if one["age_seconds"] is None else human_age(timedelta(seconds=one["age_seconds"])),
                one["verified"] or "-",
                "-" if one["size"] is None else human_bytes(one["size"]),
                "" if one["fresh"] else "not fresh",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(series) > _MOST_ROWS:
        lines.append(f"and {counted(len(series) - _MOST_ROWS, 'more series')}")
    return lines
