"""The waiting part of the freshness sensor, in the triggerer: it occupies no worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_pgbackup.errors import PgBackupError, RepositoryError
from airflow_pgbackup.operators import _retries
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.text import encodable, printing
from airflow_pgbackup.threads import DaemonThreads

_GRACE = 30.0
"""How long the last check may go on after the end, in seconds."""


class FreshnessTrigger(BaseTrigger):
    """Fire once: ``{"result": …}`` when every series is fresh or the time is up; ``{"error": message, "hint": …,
    "class": its class, "permanent": bool}`` when the repository could not be checked.

    :param arguments: of :func:`check_freshness`, plain JSON.
    :param poke_interval: seconds between two checks.
    :param end: when to give up, in seconds since the epoch.
    :param silent_fail: give up at the end only, unless checking again cannot help.
    """

    def __init__(
        self, *, arguments: dict[str, Any], poke_interval: float, end: float, silent_fail: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments
        self.poke_interval = poke_interval
        self.end = end
        self.silent_fail = silent_fail

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        names = ("arguments", "poke_interval", "end", "silent_fail")
        return path, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        refused = False
        while True:
            try:
                result = await self._check()
            except PgBackupError as error:
                if error.retry == "once" and not refused:
                    refused = True
                    await asyncio.sleep(_retries.SECOND_TRY_AFTER)
                    continue
                failure = {
                    "error": error.message,
                    "hint": error.hint,
                    "class": type(error).__name__,
                    "permanent": error.retry in ("never", "once"),
                }
                left = self.end - time.time()
                if self.silent_fail and not failure["permanent"] and left > 0:
                    printing(self.log.warning)(f"warning: {error}")
                    await asyncio.sleep(min(self.poke_interval, left))
                    continue
                yield TriggerEvent(failure)  # type: ignore[no-untyped-call]
                return
            left = self.end - time.time()
            if result["fresh"] or left <= 0:
                yield TriggerEvent({"result": result})  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(min(self.poke_interval, left))

    async def _check(self) -> dict[str, Any]:
        """Check the repository in a thread: boto3 and Airflow's connections are not async, and other triggers share the
        event loop. They share its threads too, which a store that never answers would occupy for minutes.

        :raises PgBackupError: as :func:`check_freshness`; or it took too long.
        """
        cancel = Cancel()
        pool: Any = DaemonThreads(1, "pgbackup-trigger")
        check = sync_to_async(check_freshness, thread_sensitive=False, executor=pool)
        limit = max(self.end - time.time(), 0) + _GRACE
        try:
            return await asyncio.wait_for(check(**self.arguments, log=printing(self.log.info), cancel=cancel), limit)
        except asyncio.TimeoutError:
            raise RepositoryError(
                f"cannot check {self.arguments['repository']}: no answer before the sensor's timeout",
                hint="Check whether the store answers, or raise the sensor's timeout.",
            ) from None
        finally:
            cancel.set()
            pool.shutdown(wait=False, cancel_futures=True)


def check_freshness(
    *,
    repository: str,
    aws_conn_id: str | None,
    series: dict[str, Any],
    exclude: list[str],
    sets: bool,
    rules: dict[str, Any],
    log: Callable[[str], None],
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Check a repository once, from arguments that are plain JSON: on a worker or in the triggerer.

    :param series: the fields of :class:`~airflow_pgbackup.backup.series_selection.SeriesSelection`.
    :param rules: fields of :class:`~airflow_pgbackup.backup.freshness_rules.FreshnessRules`, ``max_age`` in seconds.
    :return: as :func:`airflow_pgbackup.backup.freshness.freshness`.
    :raises PgBackupError: invalid arguments, or the repository cannot be read.
    """
    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.backup.freshness import freshness
    from airflow_pgbackup.backup.freshness_rules import FreshnessRules
    from airflow_pgbackup.backup.series_selection import SeriesSelection
    from airflow_pgbackup.hooks.repository import open_repository

    max_age, allow_drop = timedelta(seconds=rules["max_age"]), tuple(rules["allow_drop"])
    found = freshness(
        repository=open_repository(repository, aws_conn_id, cancel=cancel),
        rules=FreshnessRules(**{**rules, "max_age": max_age, "allow_drop": allow_drop}),
        series=SeriesSelection(**series),
        exclude=exclude,
        sets=sets,
        context=RunContext(log=log, cancel=cancel or Cancel()),
    )
    return dict(encodable(found))
