"""The cache of readings: bounded, whoever asks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from airflow_pgbackup.errors import PgBackupError
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


@pytest.mark.parametrize("most", [cache.MOST, 5])
def test_old_readings_are_forgotten(most: int) -> None:
    readings: Cache[int] = Cache(patience=60.0, most=most)

    async def ask(number: int) -> int | None:
        return (await readings.get(number, lambda: number)).value

    for number in range(most + 50):
        assert asyncio.run(ask(number)) == number
    assert len(readings._entries) <= most + 1


def test_all_configured_keys_are_read() -> None:
    readings: Cache[int] = Cache(patience=60.0, bounded=False)

    async def ask(numbers: range) -> list[int | None]:
        found = await asyncio.gather(*(readings.get(number, lambda number=number: number) for number in numbers))  # type: ignore[misc]
        return [one.value for one in found]

    numbers = range(cache.MOST + 100)
    assert asyncio.run(ask(numbers)) == list(numbers)
    assert len(readings._entries) == len(numbers)


def test_a_reading_that_fails_slowly_leaves_the_thread_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    readings: Cache[int] = Cache(patience=600.0, threads=1)
    tries = []

    def fail() -> int:
        tries.append(clock[0])
        clock[0] += 170
        raise PgBackupError("the store does not answer")

    def ask() -> cache.Reading[int]:
        return asyncio.run(readings.get("dead", fail))

    assert str(ask().problem) == "the store does not answer"
    for _ in range(16):
        clock[0] += 10
        assert ask().problem is not None
    assert tries == [1000.0]
    clock[0] += 20
    ask()
    assert tries == [1000.0, 1350.0]


def until(go: threading.Event) -> Callable[[], int]:
    """Return a reading that hangs until the event."""
    return lambda: go.wait(240) and 1


def test_a_reading_that_hangs_delays_only_the_page_that_began_it() -> None:
    go = threading.Event()
    readings: Cache[int] = Cache(patience=2.0)

    async def ask() -> tuple[cache.Reading[int], float]:
        before = time.monotonic()
        found = await readings.get("silent", until(go))
        return found, time.monotonic() - before

    try:
        asyncio.run(ask())
        waits = [asyncio.run(ask()) for _ in range(3)]
        reading = readings._entries["silent"].future
        assert len(getattr(reading, "_done_callbacks")) == 1, "each view would leave one more behind"  # noqa: B009
    finally:
        go.set()
    assert min(wait for _, wait in waits) < 1.0  # one of them, on a machine that is busy
    assert all(found.running and found.running_for >= 2.0 for found, _ in waits)


def test_a_repository_that_hangs_does_not_hold_up_the_details_of_another() -> None:
    go = threading.Event()
    readings: Cache[int] = Cache(patience=240.0)

    async def ask() -> cache.Reading[int]:
        hanging = [asyncio.create_task(readings.get(number, until(go), lane="silent")) for number in range(40)]
        try:
            return await asyncio.wait_for(readings.get("a", lambda: 7, lane="healthy"), 60)
        finally:
            go.set()
            await asyncio.gather(*hanging)

    assert asyncio.run(ask()).value == 7


@pytest.mark.parametrize(("seconds", "reload_after"), [(0.0, 3), (40.0, 10), (4000.0, 30)])
def test_a_page_asks_less_often_for_a_reading_that_takes_long(seconds: float, reload_after: int) -> None:
    assert cache.Reading(None, 0.0, None, True, seconds).reload_after == reload_after
