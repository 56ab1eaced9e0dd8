"""The rate limit of a dump, by a clock that only waiting moves."""

from __future__ import annotations

import io

import pytest

from airflow_pgbackup.backup.throttle import BURST, Throttled, rate_of
from airflow_pgbackup.errors import Canceled, OptionError
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings

RATE = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.2, "it looks at the cancel flag often"
        self.now += seconds


def throttled(data: bytes, clock: Clock, cancel: Cancel | None = None) -> Throttled:
    return Throttled(io.BytesIO(data), RATE, cancel or Cancel(), clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("chunk", [1000, 65_536, 1_048_576, 4_000_000])
def test_bytes_over_time(chunk: int) -> None:
    clock, read = Clock(), 0
    data = bytes(10_000_000)
    source = throttled(data, clock)
    while piece := source.read(chunk):
        read += len(piece)
        assert read <= RATE * (clock.now - 1000 + BURST) + 1, "at no moment faster"
    assert read == len(data)
    assert clock.now - 1000 == pytest.approx(10, abs=0.01), "and not slower"


def test_a_pause_of_the_dump_is_not_made_up_for() -> None:
    clock = Clock()
    source = throttled(bytes(5_000_000), clock)
    source.read(1_000_000)
    clock.now += 3600
    before = clock.now
    assert len(source.read()) == 4_000_000
    assert clock.now - before == pytest.approx(4 - BURST, abs=0.01)


def test_cancellation_ends_the_wait() -> None:
    clock, cancel = Clock(), Cancel()
    cancel.set()
    with pytest.raises(Canceled):
        throttled(bytes(5_000_000), clock, cancel).read()


def test_which_limit_holds() -> None:
    none, some = Settings(), Settings(max_bytes_per_second=5e6)
    assert rate_of(None, none, format="custom") is None
    assert rate_of(None, none, format="directory") is None
    assert rate_of(None, some, format="custom") == 5e6
    assert rate_of("2000000", some, format="tar") == 2e6
    for rate, settings in ((1e6, none), (None, some)):
        with pytest.raises(OptionError, match="cannot be combined with format directory, whose files pg_dump writes"):
            rate_of(rate, settings, format="directory")


@pytest.mark.parametrize("rate", [0, -1, True, "fast", 10**400, float("nan"), float("inf")])
def test_an_impossible_limit_is_refused(rate: object) -> None:
    with pytest.raises(OptionError, match="invalid max_bytes_per_second"):
        rate_of(rate, Settings(), format="custom")
