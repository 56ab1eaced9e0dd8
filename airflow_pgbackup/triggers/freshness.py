"""The freshness sensor's waiting part, in the triggerer: no worker slot is held meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.text import printing


class FreshnessTrigger(BaseTrigger):
    """Fires once: ``{"result": …}`` when all is fresh or the time is up, ``{"error": line, "permanent": bool}`` when
    it could not be looked.

    :param look: keyword arguments of :func:`airflow_pgbackup.sensors.freshness.look`, plain JSON.
    :param poke_interval: seconds between two looks.
    :param end: when to give up, seconds since the epoch.
    """

    def __init__(self, *, look: dict[str, Any], poke_interval: float, end: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.look = look
        self.poke_interval = poke_interval
        self.end = end

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"look": self.look, "poke_interval": self.poke_interval, "end": self.end}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_pgbackup.sensors.freshness import look

        while True:
            try:
                # A thread of its own: boto3 and Airflow's connections are not async, and others trigger here, too.
                result = await sync_to_async(look, thread_sensitive=False)(**self.look, log=printing(self.log.info))
            except PgBackupError as error:
                failure = {"error": str(error), "permanent": error.permanent}
                yield TriggerEvent(failure)  # type: ignore[no-untyped-call]
                return
            left = self.end - time.time()
            if result["fresh"] or left <= 0:
                yield TriggerEvent({"result": result})  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(min(self.poke_interval, left))
