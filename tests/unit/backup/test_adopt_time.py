"""When an adopted dump was made: which of header, name and file counts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from airflow_pgbackup.backup.adopt.backup_time import HEADER, MTIME, NAME, TOLERANCE, choose_time
from airflow_pgbackup.backup.adopt.name_times import NameTime, NameTimes
from airflow_pgbackup.repository.calendar_time import file_time

NOW = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
DAY = datetime(2025, 3, 1, 2, tzinfo=timezone.utc)
LOST = NOW - timedelta(hours=3)  # the time of a copy


def naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


def named(name: str) -> NameTime:
    found = NameTimes([name], timezone.utc, now=NOW).of(name)
    assert isinstance(found, NameTime)
    return found


@pytest.mark.parametrize(
    ("header", "name", "modified", "expected", "source", "note"),
    [
        (DAY, None, LOST, DAY, HEADER, None),
        (DAY, "a_2025-03-01.dump", LOST, DAY, HEADER, None),
        # Named at its end, or in another zone.
        (DAY, "a_2025-03-02.dump", LOST, DAY, HEADER, None),
        # Dumped again from a restored copy; or a clock that stood still.
        (
            datetime(2013, 5, 1, tzinfo=timezone.utc),
            "a_2024-02-01.dump",
            LOST,
            datetime(2024, 2, 1, 12, tzinfo=timezone.utc),
            NAME,
            "2013",
        ),
        (
            DAY + timedelta(days=400),
            "a_2025-03-01.dump",
            LOST,
            datetime(2025, 3, 1, 12, tzinfo=timezone.utc),
            NAME,
            "is not that of",
        ),
        (datetime(1970, 1, 1, tzinfo=timezone.utc), None, LOST, LOST, MTIME, "1970-01-01 00:00 is not plausible"),
        (NOW + timedelta(days=30), None, LOST, LOST, MTIME, "is not plausible"),
        # Another zone than the given one: the file was written before its dump began.
        (DAY + timedelta(hours=9), None, DAY, DAY, MTIME, "another time zone"),
        (
            DAY + timedelta(hours=9),
            "a_2025-03-01.dump",
            DAY,
            DAY,
            NAME,
            "another time zone",
        ),
        # The date is that of something else.
        (DAY, "archive-2026-01-31/a_mon.dump", LOST, DAY, HEADER, None),
        (DAY, "a_2026-01-31.dump", DAY + timedelta(hours=2), DAY, HEADER, None),
        # The zone in the name is that of the header too.
        (DAY, "a_2025-03-01T02:00:00-05:00.dump", LOST, DAY + timedelta(hours=5), HEADER, None),
        # Somebody set the file's time back, which says nothing.
        (DAY, None, DAY - timedelta(days=400), DAY, HEADER, None),
        (None, "a_2025-03-01.sql", LOST, datetime(2025, 3, 1, 12, tzinfo=timezone.utc), NAME, None),
        (None, None, LOST, LOST, MTIME, "which a copy changes"),
    ],
)
def test_the_time_of_a_backup(
    header: datetime | None, name: str | None, modified: datetime, expected: datetime, source: str, note: str | None
) -> None:
    chosen = choose_time(
        header=naive(header) if header else None,
        name=named(name) if name else None,
        modified=modified,
        zone=timezone.utc,
        now=NOW,
    )
    assert (naive(chosen.at), chosen.source) == (naive(expected), source)
    assert (chosen.note is None) if note is None else (chosen.note is not None and note in chosen.note)


@pytest.mark.parametrize(
    ("name", "modified", "expected"),
    [
        # Adopted at nine: noon is still to come.
        ("a_2026-11-27.sql", NOW - timedelta(hours=3), NOW - timedelta(hours=3)),
        # A file system whose clock is ahead.
        ("a_2026-11-27_1300.sql", NOW + timedelta(hours=2), NOW),
        # Another time zone than the given one.
        ("a_2026-11-27_1500.sql", NOW - timedelta(hours=1), NOW - timedelta(hours=1)),
        ("a_2026-11-29.sql", NOW - timedelta(days=400), NOW),
        # Dumped in the morning, or at night.
        ("a_2025-03-01.sql", DAY, DAY),
        ("a_2025-03-01.sql", DAY.replace(hour=23), DAY.replace(hour=23)),
        ("a_2025-03-01.sql", DAY + timedelta(days=1), DAY.replace(hour=12)),
        # An hour, or the number of a dump.
        ("a_2025-03-01_22.sql", DAY.replace(hour=23), DAY.replace(hour=23)),
        ("a_2025-03-01_22.sql", LOST, DAY.replace(hour=22)),
        # A month.
        ("a_2025-03.sql", DAY.replace(day=31), DAY.replace(day=31)),
        ("a_2025-03.sql", LOST, DAY.replace(hour=12)),
        # Somebody set the file's time back.
        ("a_2025-03-01.sql", DAY - timedelta(days=400), DAY.replace(hour=12)),
    ],
)
def test_no_backup_is_later_than_its_file_or_now(name: str, modified: datetime, expected: datetime) -> None:
    chosen = choose_time(header=None, name=named(name), modified=modified, zone=timezone.utc, now=NOW)
    assert (chosen.at, chosen.source) == (expected, NAME)


def test_a_header_from_the_future_is_not_used() -> None:
    ahead = NOW + timedelta(hours=3)
    chosen = choose_time(header=naive(ahead), name=None, modified=ahead, zone=timezone.utc, now=NOW)
    assert (chosen.at, chosen.source) == (NOW, MTIME)
    slightly = NOW + timedelta(minutes=3)
    chosen = choose_time(header=naive(slightly), name=None, modified=slightly, zone=timezone.utc, now=NOW)
    assert (chosen.at, chosen.source) == (NOW, HEADER)


@pytest.mark.parametrize("name", ["a_20250301T020000Z.dump", "a_2025-03-01T03:00:00+01:00.dump"])
def test_the_zone_of_a_name_need_not_be_that_of_the_header(name: str) -> None:
    zone = timezone(timedelta(hours=1))
    header = naive(DAY.replace(hour=3))
    chosen = choose_time(header=header, name=named(name), modified=LOST, zone=zone, now=NOW)
    assert (chosen.at, chosen.source) == (DAY.replace(hour=2), HEADER)


def test_a_directory_counts_against_a_header_if_a_pattern_says_so() -> None:
    name = NameTimes([], timezone.utc, ["%Y-%m-%d"], now=NOW).of("2026-01-31/a.dump")
    assert isinstance(name, NameTime)
    chosen = choose_time(header=naive(DAY), name=name, modified=LOST, zone=timezone.utc, now=NOW)
    assert (chosen.at, chosen.source) == (datetime(2026, 1, 31, 12, tzinfo=timezone.utc), NAME)


def test_the_limit_between_header_and_name() -> None:
    name = named("a_2025-03-01_0200.dump")
    for apart, source in ((TOLERANCE, HEADER), (TOLERANCE + timedelta(seconds=1), NAME)):
        for header in (DAY - apart, DAY + apart):
            chosen = choose_time(header=naive(header), name=name, modified=LOST, zone=timezone.utc, now=NOW)
            assert chosen.source == source


def test_a_header_is_in_the_zone_of_its_machine() -> None:
    zone = ZoneInfo("America/New_York")
    chosen = choose_time(header=datetime(2025, 3, 1, 2), name=None, modified=LOST, zone=zone, now=NOW)  # noqa: DTZ001
    assert chosen.at == datetime(2025, 3, 1, 7, tzinfo=timezone.utc)


@pytest.mark.parametrize("header", ["0001-01-01T00:00", "9999-12-31T23:59"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_header_at_the_end_of_the_calendar_is_not_used(header: str, zone: str) -> None:
    stated = datetime.fromisoformat(header)
    found = choose_time(header=stated, name=None, modified=LOST, zone=ZoneInfo(zone), now=NOW)
    assert (found.at, found.source) == (LOST, MTIME)
    assert found.note is not None and "is not plausible" in found.note


@pytest.mark.parametrize("seconds", [1e30, -1e30, 999_999_999_999, -999_999_999_999])
def test_a_file_of_any_time_has_one(seconds: float) -> None:
    found = file_time(seconds)
    assert (found > NOW) == (seconds > 0)
    choose_time(header=naive(DAY), name=named("a_2025-03-01.dump"), modified=found, zone=timezone.utc, now=NOW)
