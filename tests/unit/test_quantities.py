"""How numbers, sizes, durations and ages are written for people."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_pgbackup.quantities import (
    counted,
    human_age,
    human_bytes,
    human_duration,
    human_seconds,
    human_time,
    noun,
    span_text,
)


def test_numbers() -> None:
    assert [counted(1, "table"), counted(2000, "table"), counted(1, "series"), counted(2, "series")] == [
        *("1 table", "2,000 tables", "1 series", "2 series")
    ]
    assert [counted(2, "entry", "entries"), noun(1, "entry", "entries"), noun(0, "role")] == [
        *("2 entries", "entry", "roles")
    ]


def test_sizes() -> None:
    assert [human_bytes(each) for each in (1, 1023, 1024, 1536, (1 << 20) - 1, 5 << 40)] == [
        *("1 byte", "1023 bytes", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 TiB")
    ]


def test_durations() -> None:
    assert [human_seconds(each) for each in (12.34, 59.94, 59.97, 185, 1799.9, 3599, 3725)] == [
        *("12.3 s", "59.9 s", "1 min 0 s", "3 min 5 s", "30 min 0 s", "1 h 0 min", "1 h 2 min")
    ]
    assert [human_duration(each) for each in (0.4, 59.4, 59.6, 185, 3725)] == [
        *("0 s", "59 s", "1 min 0 s", "3 min 5 s", "1 h 2 min")
    ]


def test_ages() -> None:
    assert [human_age(timedelta(minutes=each)) for each in (-5, 0.9, 1, 59, 60, 250, 24 * 60, 1690)] == [
        *("under 1 min", "under 1 min", "1 min", "59 min", "1 h 0 min", "4 h 10 min", "1 d 0 h", "1 d 4 h")
    ]


def test_spans() -> None:
    assert [span_text(timedelta(hours=each)) for each in (1, 24, 25, 48, 720)] == [
        *("1 hour", "24 hours", "25 hours", "2 days", "30 days")
    ]


def test_times() -> None:
    at = datetime(2026, 11, 22, 3, 5, 9, tzinfo=timezone(timedelta(hours=1)))
    assert [human_time(at), human_time(at, seconds=True)] == ["2026-11-22 02:05 UTC", "2026-11-22 02:05:09 UTC"]
