"""PgBackupFreshnessSensor: is there a backup that is young enough, verified, and about as large as those before?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_pgbackup.errors import ConfigurationError, PgBackupError
from airflow_pgbackup.operators._base import airflow_error, seconds
from airflow_pgbackup.text import encodable, printable, printing

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg


class PgBackupFreshnessSensor(BaseSensorOperator):
    """Succeed when every series is fresh; by default look once, and fail at once when one is not.

    It reads the repository alone, so it needs no run of anything else: in a DAG with a schedule of its own it notices
    a backup DAG that is paused, deleted or was never written. What it covers and what Airflow's deadline alerts do is
    told in ``docs/reference/freshness.md``. The task returns what it found, see
    :func:`airflow_pgbackup.backup.freshness.freshness`.

    :param repository: ``s3://bucket/prefix`` or ``file:///folder``.
    :param max_age: a timedelta, or seconds, between the start of the newest good backup and now: what a restore
        would lose at most.
    :param server: only the series of this one: what the dump operators call ``server``, a connection id by default.
    :param databases: those of ``server`` that must be fresh; one that has no backup is not. None: what is there.
    :param cluster: the pg_dumpall backups of ``server`` must be fresh.
    :param exclude: series to pass over, ``server/database`` with ``*`` and ``?``.
    :param minimum_level: ``integrity``, ``archive`` or ``restore``; None: any that has not failed.
    :param max_drop: by which share of the median of the last ones the size, all rows, or the rows of a table may not
        be smaller; None looks at no contents.
    :param compare_with: how many of the last ones.
    :param allow_drop: tables that may empty: ``schema.table`` with ``*`` and ``?``.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param deferrable: wait in the triggerer, not on a worker.
    :param timeout: how long to wait for what is not fresh yet, looking every ``poke_interval``; then the task fails,
        without retries. Zero, the default, looks once.
    """

    template_fields = (
        "repository",
        "server",
        "databases",
        "exclude",
        "minimum_level",
        "allow_drop",
        "aws_conn_id",
    )
    ui_color = "#cfe2f3"

    def __init__(
        self,
        *,
        repository: str,
        max_age: timedelta | float,
        server: str | None = None,
        databases: Sequence[str] | XComArg | None = None,
        cluster: bool = False,
        exclude: Sequence[str] = (),
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
        self.exclude = exclude
        self.minimum_level = minimum_level
        self.max_drop = max_drop
        self.compare_with = compare_with
        self.allow_drop = allow_drop
        self.aws_conn_id = aws_conn_id
        self.deferrable = deferrable

    # What the last look found; only a running task has it.
    _found: dict[str, Any] | None = None

    def execute(self, context: Context) -> Any:
        if self.deferrable and self.timeout:
            end = time.time() + self.timeout
            if self.poke(context):
                return self._found
            from airflow_pgbackup.triggers.freshness import FreshnessTrigger

            self.defer(
                trigger=FreshnessTrigger(look=self._look(), poke_interval=self.poke_interval, end=end),
                method_name="execute_complete",
                # The trigger ends by itself; this is for one that nobody runs.
                timeout=timedelta(seconds=self.timeout + self.poke_interval + 600),
            )
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            failure = AirflowSensorTimeout(not_fresh(self._found or {}))
        # Airflow's own message says how long it took, this one says what is wrong.
        raise failure

    def poke(self, context: Context) -> PokeReturnValue:
        try:
            self._found = look(**self._look(), log=printing(self.log.info))
        except PgBackupError as error:
            failure = airflow_error(error)
        else:
            return PokeReturnValue(is_done=bool(self._found["fresh"]), xcom_value=self._found)
        # Outside of the handler, so that the error does not carry the one that it was made of.
        raise failure

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """After the trigger has fired."""
        if "error" in event:
            raise (AirflowFailException if event["permanent"] else AirflowException)(event["error"])
        found: dict[str, Any] = event["result"]
        for problem in found["problems"]:
            printing(self.log.error)(problem)
        if not found["fresh"]:
            raise AirflowSensorTimeout(not_fresh(found))
        return found

    def _look(self) -> dict[str, Any]:
        """The arguments of :func:`look`, rendered, as the triggerer gets them."""
        return {
            "repository": self.repository,
            "aws_conn_id": self.aws_conn_id,
            "server": self.server,
            "databases": None if self.databases is None else _names("databases", self.databases),
            "cluster": self.cluster,
            "exclude": _names("exclude", self.exclude),
            "max_age": seconds(self.max_age),
            "minimum_level": self.minimum_level,
            "max_drop": self.max_drop,
            "compare_with": self.compare_with,
            "allow_drop": _names("allow_drop", self.allow_drop),
        }


def look(
    *,
    repository: str,
    aws_conn_id: str | None,
    server: str | None,
    databases: Sequence[str] | None,
    cluster: bool,
    exclude: Sequence[str],
    max_age: float,
    allow_drop: Sequence[str],
    log: Callable[[str], None],
    **limits: Any,
) -> dict[str, Any]:
    """One look, from arguments that are plain JSON: on a worker or in the triggerer."""
    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.backup.freshness import freshness
    from airflow_pgbackup.backup.limits import Limits
    from airflow_pgbackup.backup.series_selection import SeriesSelection
    from airflow_pgbackup.hooks.repository import open_repository

    found = freshness(
        repository=open_repository(repository, aws_conn_id),
        limits=Limits(max_age=timedelta(seconds=max_age), allow_drop=tuple(allow_drop), **limits),
        series=SeriesSelection(server=server, databases=databases, cluster=cluster),
        exclude=exclude,
        context=RunContext(log=log),
    )
    return dict(encodable(found))


def not_fresh(found: dict[str, Any]) -> str:
    """One line for a failed task: the first problems of what a look found."""
    problems: list[str] = found.get("problems", [])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return printable(f"not fresh: {'; '.join(problems[:3])}{more}")


def _names(name: str, value: Any) -> list[str]:
    """A list, also one that has come by XCom. A lone text would be a list of letters."""
    if isinstance(value, str):
        raise ConfigurationError(f"{name} is {value!r}", hint="pass a list")
    return [*value]
