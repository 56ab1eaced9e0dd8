"""Which files a run of fsck reads: the share that was asked for, and every file in time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_pgbackup.backup.fsck.share import CIRCLE, Share
from airflow_pgbackup.errors import ConfigurationError

NOW = datetime(2026, 11, 22, 3, tzinfo=timezone.utc)
KEYS = [f"prod/db{number % 7}/backup-{number}/app.dump" for number in range(2000)]


def read(text: str, now: datetime = NOW) -> set[str]:
    share = Share.parse(text, now)
    return {key for key in KEYS if share.takes(key)}


def test_the_parts_of_one_division_are_every_file_once() -> None:
    parts = [read(f"{number}/20") for number in range(1, 21)]
    assert sum(map(len, parts)) == len(KEYS)
    assert set().union(*parts) == set(KEYS)
    assert all(60 < len(part) < 140 for part in parts)


def test_a_part_is_the_same_on_every_day() -> None:
    assert read("3/20", NOW + timedelta(days=40)) == read("3/20")


@pytest.mark.parametrize("text", ["100%", "1/1"])
def test_all_of_it(text: str) -> None:
    assert read(text) == set(KEYS)


def test_a_percentage_is_about_that_many_files() -> None:
    assert 60 < len(read("5%")) < 140
    assert 0 < len(read("0.5%")) < 30
    assert Share.parse("12.5%", NOW).length == CIRCLE // 8


def test_a_percentage_is_the_same_all_day_and_another_the_next() -> None:
    assert read("5%", NOW.replace(hour=23)) == read("5%", NOW.replace(hour=0))
    assert not read("5%", NOW + timedelta(days=1)) & read("5%")


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7, 14, 28, 30, 31, 90, 91, 365])
@pytest.mark.parametrize("percent", ["1", "5", "10", "14.285714", "33", "50"])
def test_regular_runs_read_everything_in_time(percent: str, every: int) -> None:
    """The figure of docs/fsck.md: at most five times as many runs as parts."""
    runs = int(5 * 100 / float(percent))
    arcs = sorted(
        (share.start, share.start + share.length)
        for number in range(runs)
        for share in [Share.parse(f"{percent}%", NOW + timedelta(days=number * every))]
    )
    end = max(0, *(stop - CIRCLE for _, stop in arcs))  # of those over the end of the circle
    for start, stop in arcs:
        assert start <= end, f"nobody reads {end} to {start}"
        end = max(end, stop)
    assert end >= CIRCLE


def test_daily_runs_of_a_twentieth_read_everything_in_34_days() -> None:
    left, days = set(KEYS), 0
    while left:
        left -= read("5%", NOW + timedelta(days=days))
        days += 1
    assert days <= 34


@pytest.mark.parametrize(
    "text", ["", "5", "0%", "101%", "-1%", "5 %", "0/3", "4/3", "1/0", "1/1000001", "\u0665%", "1/2/3"]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid share"):
        Share.parse(text, NOW)
