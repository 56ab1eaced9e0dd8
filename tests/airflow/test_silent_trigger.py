"""Freshness triggers whose store accepts connections and never answers."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from airflow_pgbackup.triggers import freshness
from airflow_pgbackup.triggers.freshness import FreshnessTrigger

RULES = {"max_age": 1000, "minimum_level": "archive", "max_drop": 0.9, "compare_with": 5, "allow_drop": []}
ARGUMENTS = {
    "repository": "s3://bucket/pg",
    "aws_conn_id": "aws_default",
    "series": {"server": None, "databases": None, "cluster": False, "scopes": []},
    "exclude": [],
    "sets": False,
    "rules": RULES,
}


@pytest.fixture
def silent(airflow_db: Path, aws_connection: Callable[..., None]) -> Iterator[socket.socket]:
    """A store to which clients can connect; nobody reads what they send."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        aws_connection(extra={"endpoint_url": url, "region_name": "us-east-1"})
        yield listener


async def events(seconds: float) -> list[dict[str, Any]]:
    trigger = FreshnessTrigger(arguments=ARGUMENTS, poke_interval=60, end=time.time() + seconds)
    return [event.payload async for event in trigger.run()]


def test_it_ends_soon_after_its_timeout(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "_GRACE", 2.0)
    begun = time.monotonic()
    (event,) = asyncio.run(events(1))
    assert time.monotonic() - begun < 120  # the client would give up after three minutes
    assert event["error"].startswith("cannot check s3://bucket/pg: no answer before the sensor's timeout")
    assert (event["class"], event["permanent"]) == ("RepositoryError", False)
    assert event["hint"]


def test_other_triggers_do_not_wait(silent: socket.socket) -> None:
    count = min(32, (os.cpu_count() or 1) + 4)  # the threads of asyncio, which all triggers share

    async def every() -> bool:
        checks = [asyncio.create_task(events(3600)) for _ in range(count)]
        for _ in checks:  # each has sent its request
            await accepted()
        await sync_to_async(lambda: 1, thread_sensitive=False)()
        waiting = not any(check.done() for check in checks)
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        return waiting

    async def accepted() -> None:
        connections.append((await asyncio.get_running_loop().sock_accept(silent))[0])

    connections: list[socket.socket] = []
    silent.setblocking(False)
    try:
        assert asyncio.run(asyncio.wait_for(every(), 120))
    finally:
        for connection in connections:
            connection.close()
