"""The cache of readings: bounded, whoever asks."""

from __future__ import annotations

import asyncio
import threading

from airflow_pgbackup.plugin import cache
from airflow_pgbackup.plugin.cache import Cache


def test_only_so_many_readings_wait() -> None:
    go, started = threading.Event(), []
    readings: Cache[int] = Cache(patience=0.0, threads=1)

    def read(number: int) -> int:
        started.append(number)
        assert go.wait(60)
        return number

    async def ask(numbers: range) -> list[cache.Reading[int]]:
        return [await readings.get(number, lambda number=number: read(number)) for number in numbers]  # type: ignore[misc]

    found = asyncio.run(ask(range(cache.MOST_WAITING + 20)))
    refused = [one for one in found if one.problem is not None]
    assert len(refused) == 19
    assert str(refused[0].problem).startswith("too many pages are being read")
    assert [one.running for one in found].count(True) == cache.MOST_WAITING + 1
    go.set()
    readings = Cache(patience=60.0)
    assert [one.value for one in asyncio.run(ask(range(3)))] == [0, 1, 2]


def test_old_readings_are_forgotten() -> None:
    readings: Cache[int] = Cache(patience=60.0)

    async def ask(number: int) -> int | None:
        return (await readings.get(number, lambda: number)).value

    for number in range(cache.MOST + 50):
        assert asyncio.run(ask(number)) == number
    assert len(readings._entries) <= cache.MOST + 1
