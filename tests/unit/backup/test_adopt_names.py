"""Times and databases in file names: every style that is detected, what is ambiguous, and what is none."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.backup.adopt.database_names import DatabaseNames, Label, stem
from airflow_pgbackup.backup.adopt.name_patterns import compile_pattern, time_pattern
from airflow_pgbackup.backup.adopt.name_times import Ambiguous, NameTime, NameTimes
from airflow_pgbackup.errors import ConfigurationError

NOW = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
BERLIN = ZoneInfo("Europe/Berlin")
STYLES = {
    "crm_2025-03-01.sql.gz": ("%Y-%m-%d", "2025-03-01 12:00"),
    "crm.2025.3.1.sql": ("%Y.%m.%d", "2025-03-01 12:00"),
    "crm-20250301-0213.dump": ("%Y%m%d-%H%M", "2025-03-01 02:13"),
    "crm_20250301T021355Z.dump": ("%Y%m%dT%H%M%S%z", "2025-03-01 02:13:55"),
    "crm_20250301021355.dump": ("%Y%m%d%H%M%S", "2025-03-01 02:13:55"),
    "crm_202503010213.dump": ("%Y%m%d%H%M", "2025-03-01 02:13"),
    "crm_31.01.2025.sql": ("%d.%m.%Y", "2025-01-31 12:00"),
    "crm_01-31-2025.sql": ("%m-%d-%Y", "2025-01-31 12:00"),
    "crm_31012025.sql": ("%d%m%Y", "2025-01-31 12:00"),
    "2025/03/01/crm.sql": ("%Y/%m/%d", "2025-03-01 12:00"),
    "2025-03-01/crm.sql": ("%Y-%m-%d", "2025-03-01 12:00"),
    "2020-01-01/crm_2025-03-01.sql": ("%Y-%m-%d", "2025-03-01 12:00"),
    "crm_1740787200.sql": ("%s", "2025-03-01 00:00"),
    "crm_01Mar2025_0213.sql": ("%d%b%Y_%H%M", "2025-03-01 02:13"),
    "crm-2025-Mar-01.sql": ("%Y-%b-%d", "2025-03-01 12:00"),
    "crm_2025-03.dump": ("%Y-%m", "2025-03-01 12:00"),
    "crm_2025-03-01_02-13-55.dump": ("%Y-%m-%d_%H-%M-%S", "2025-03-01 02:13:55"),
    "crm 2025-03-01 02:13:55+01:00.sql": ("%Y-%m-%d %H:%M:%S%z", "2025-03-01 01:13:55"),
    "crm_2025-03-01T02_13.sql": ("%Y-%m-%dT%H_%M", "2025-03-01 02:13"),
    "crm_2025-03-01_22.sql.gz": ("%Y-%m-%d_%H", "2025-03-01 22:00"),
    "crm_2025-03-01T22.sql": ("%Y-%m-%dT%H", "2025-03-01 22:00"),
    "crm_2025-03-01_22h.sql": ("%Y-%m-%d_%Hh", "2025-03-01 22:00"),
    "crm_2025030122.sql": ("%Y%m%d%H", "2025-03-01 22:00"),
    "2025-03-01/2200/crm.sql.gz": ("%Y-%m-%d/%H%M", "2025-03-01 22:00"),
    "2025/03/01/22/crm.sql": ("%Y/%m/%d/%H", "2025-03-01 22:00"),
    "2025/03/01/02_crm.sql": ("%Y/%m/%d", "2025-03-01 12:00"),
    "2025-03/01/crm.sql.gz": ("%Y-%m/%d", "2025-03-01 12:00"),
    "crm_2025-03-01_18.4.sql": ("%Y-%m-%d", "2025-03-01 12:00"),
    "crm_03-25-2025_06-00-00PM.sql": ("%m-%d-%Y_%I-%M-%S%p", "2025-03-25 18:00"),
    "crm_03-25-2025_12-00-00AM.sql": ("%m-%d-%Y_%I-%M-%S%p", "2025-03-25 00:00"),
    "Sat 01 Mar 2025 10:00:00 PM UTC.sql": ("%d %b %Y %I:%M:%S %p %z", "2025-03-01 22:00"),
    "crm-20250301-0200-1234.sql": ("%Y%m%d-%H%M", "2025-03-01 02:00"),
    "crm-2025-03-01T02-13-55.123Z.sql": ("%Y-%m-%dT%H-%M-%S.%f%z", "2025-03-01 02:13:55"),
    "crm-2025-03-01T02-13-55-123Z.sql": ("%Y-%m-%dT%H-%M-%S-%f%z", "2025-03-01 02:13:55"),
    "crm_20250301_0200+0545.sql": ("%Y%m%d_%H%M%z", "2025-02-28 20:15"),
}


def moment(name: str, *others: str) -> str | None:
    found = NameTimes([name, *others], timezone.utc, now=NOW).of(name)
    if not isinstance(found, NameTime):
        return None
    return f"{found.moment.at:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_detected_and_its_pattern_gives_the_same_time(name: str) -> None:
    pattern, expected = STYLES[name]
    found = NameTimes([name], timezone.utc, now=NOW).of(name)
    assert isinstance(found, NameTime)
    assert (found.pattern, moment(name)) == (pattern, expected)
    given = NameTimes([], timezone.utc, [pattern], NOW).of(name)
    assert isinstance(given, NameTime)
    assert (given.moment, given.pattern) == (found.moment, pattern)


@pytest.mark.parametrize(
    "name", ["crm.sql", "app_123456.sql", "crm_20251345.sql", "crm_2025-02-30.sql", "crm_18.4.sql",
             "crm_2099-01-01.sql", "crm_1989-01-01.sql", "crm_20250301123.sql", "crm_120250301.sql"],
)  # fmt: skip
def test_a_name_without_a_time(name: str) -> None:
    assert moment(name) is None


def test_another_name_decides_between_day_and_month() -> None:
    alone = NameTimes(["a_03-04-2025.sql"], timezone.utc, now=NOW).of("a_03-04-2025.sql")
    assert isinstance(alone, Ambiguous)
    assert alone.patterns == ("%d-%m-%Y", "%m-%d-%Y")
    assert moment("a_03-04-2025.sql", "b_25-04-2025.sql") == "2025-04-03 12:00"
    assert moment("a_03-04-2025.sql", "b_04-25-2025.sql") == "2025-03-04 12:00"
    # Another separator is another style, and says nothing.
    assert moment("a_03-04-2025.sql", "b_25.04.2025.sql") is None
    # The same date either way is no question.
    assert moment("a_04-04-2025.sql") == "2025-04-04 12:00"


def test_a_number_after_the_date_is_a_time_only_if_all_names_agree() -> None:
    assert moment("a_2025-03-01_1200.sql") == "2025-03-01 12:00"
    assert moment("a_2025-03-01_0213.sql", "a_2025-03-02_9961.sql") == "2025-03-01 12:00"
    assert moment("a_2025-03-01_0213.sql", "a_2099-03-02_9961.sql") == "2025-03-01 02:13", "2099 is no dump's year"


def test_the_zone_is_that_of_the_names() -> None:
    times = NameTimes(["a_2025-03-01_0213.sql", "a_2025-07-01.sql"], BERLIN, now=NOW)
    exact, day = times.of("a_2025-03-01_0213.sql"), times.of("a_2025-07-01.sql")
    assert isinstance(exact, NameTime) and isinstance(day, NameTime)
    assert exact.moment.at == datetime(2025, 3, 1, 1, 13, tzinfo=timezone.utc)
    assert (exact.moment.exact, day.moment.exact) == (True, False)
    assert day.moment.at == datetime(2025, 7, 1, 10, tzinfo=timezone.utc)
    assert day.moment.earliest == datetime(2025, 6, 30, 22, tzinfo=timezone.utc)
    assert day.moment.latest == datetime(2025, 7, 1, 22, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("crm_%d.%m.%y", "crm_01.03.25.sql", "2025-03-01 12:00"),
        ("%Y-%j", "crm_2025-060.sql", "2025-03-01 12:00"),
        ("%F_%T", "crm_2025-03-01_02:13:55.sql", "2025-03-01 02:13:55"),
        ("%Y%m%d_%I%M%p", "crm_20250301_0213PM.sql", "2025-03-01 14:13"),
        ("%A_*_%Y-%m-%d", "Saturday_crm_2025-03-01.sql", "2025-03-01 12:00"),
        ("%d-%B-%Y", "crm_01-march-2025.sql", "2025-03-01 12:00"),
        ("%%%Y%m%d", "crm_%20250301.sql", "2025-03-01 12:00"),
    ],
)
def test_a_given_pattern(pattern: str, name: str, expected: str) -> None:
    found = NameTimes([], timezone.utc, [pattern], NOW).of(name)
    assert isinstance(found, NameTime)
    assert f"{found.moment.at:%Y-%m-%d %H:%M:%S}".removesuffix(":00") == expected
    assert NameTimes([], timezone.utc, [pattern], NOW).of("crm.sql") is None


def test_given_patterns_replace_the_detected_ones() -> None:
    assert NameTimes([], timezone.utc, ["%d.%m.%Y"], NOW).of("crm_2025-03-01.sql") is None


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("%q", "unknown directive %q"),
        ("%Y-%Y-%m-%d", "has a directive twice"),
        ("%H%M", "does not give a date"),
        ("%Y", "does not give a date"),
        ("backup", "does not give a date"),
        ("{database}_%Y%m%d", "does not give a date"),
        ("*_*_*_*_*_%Y-%m-%d", "more than 4 asterisks"),
        ("%Y%m%d%", "unknown directive %"),
    ],
)
def test_a_pattern_that_cannot_be(pattern: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        NameTimes([], timezone.utc, [pattern], NOW)


MOMENTS = st.datetimes(datetime(1996, 1, 2), datetime(2026, 11, 26))  # noqa: DTZ001
FORMATS = st.sampled_from(
    ["%Y-%m-%d", "%Y%m%d", "%Y_%m_%d", "%Y.%m.%d-%H.%M", "%Y%m%d%H%M%S", "%Y-%m-%dT%H%M%SZ", "%Y%m%d_%H%M",
     "%d%b%Y", "%d-%b-%Y_%H-%M-%S", "%Y/%m/%d", "%Y-%m-%d_%Hh%Mm%Ss"]
)  # fmt: skip
WORDS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(MOMENTS, FORMATS, WORDS)
def test_what_strftime_writes_is_read(at: datetime, format: str, word: str) -> None:
    name = f"{word}_{at.strftime(format)}.sql"
    found = NameTimes([name], timezone.utc, now=NOW).of(name)
    assert isinstance(found, NameTime)
    clock = "%S" if "%S" in format else "%M" if "%M" in format else "%d"
    shown = {"%S": "%Y-%m-%d %H:%M:%S", "%M": "%Y-%m-%d %H:%M", "%d": "%Y-%m-%d"}[clock]
    assert found.moment.at.strftime(shown) == at.strftime(shown)
    assert name[slice(*found.span)] in name
    assert stem(name, found.span) == (word if stem(f"{word}.sql", None) else None)


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_names_are_read_without_an_error(names: list[str]) -> None:
    times = NameTimes(names, timezone.utc, now=NOW)
    for name in names:
        found = times.of(name)
        if isinstance(found, NameTime):
            assert found.moment.at <= NOW + timedelta(days=2)
        stem(name, found.span if found else None)


@given(st.text(max_size=30), st.text(max_size=60))
def test_any_pattern_compiles_or_is_refused(pattern: str, name: str) -> None:
    try:
        compile_pattern(pattern).search(name)
        time_pattern(pattern).search(name)
    except ConfigurationError:
        return
    assert len(pattern) <= 1000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("crm_2025-03-01.sql.gz", "crm"),
        ("2025-03-01_crm.sql", "crm"),
        ("backup_2025-03-01_crm.sql", "crm"),
        ("crm/2025-03-01.sql", "crm"),
        ("crm/backup-2025-03-01.sql", "crm"),
        ("2025-03-01/crm.sql.xz", "crm"),
        ("crm_backup_2025-03-01.sql", "crm_backup"),
        ("crm_2025-03-01 (copy).sql.gz", "crm"),
        ("crm.sql", "crm"),
        ("backup_2025-03-01.sql", None),
        ("daily/backup.sql", None),
        ("2025-03-01.sql", None),
        ("crm_2025-03-01_film.sql", "crm_film"),
        ("crm_2025-03-01_full.sql", "crm"),
        ("crm_2025-03-01_Sat.sql", "crm"),
        ("crm_2025-03-01_monitoring.sql", "crm_monitoring"),
        ("crm_2025-03-01_02h13m.Saturday.sql.gz", "crm"),
        ("crm-2025-03-01T02-13-55.123Z.sql.gz", "crm"),
        ("crm_1-Mar-2025_2:13 PM.sql", "crm"),
        ("crm_2025-07-01_0213_BST.sql", "crm"),
        ("crm_2025-07-01_0213_AEDT.sql", "crm"),
        ("crm_2025-03-01_west.sql", "crm_west"),
        ("crm/Sat 01 Mar 2025 10:00:00 PM UTC.sql", "crm"),
        ("pm_2025-03-01.sql", "pm"),
        ("crm_2025-03-01_0213_UTC.sql", "crm"),
        ("crm_2025-03-01_001.sql", "crm"),
        ("crm.sql-20250301.gz", "crm"),
        ("crm.sql.gz-20250301", "crm"),
        ("crm.sql.1.gz", "crm"),
        ("crm.1.sql.gz", "crm"),
        ("crm.dump-2025-03-01.gz", "crm"),
        ("dump.sql.2025-03-01", None),
        ("app_18.4.sql", "app_18.4"),
    ],
)
def test_the_database_in_a_name(name: str, expected: str | None) -> None:
    found = NameTimes([name], timezone.utc, now=NOW).of(name)
    assert stem(name, found.span if found else None) == expected


def test_without_options_a_script_is_of_the_database_that_its_name_says() -> None:
    names = DatabaseNames(["crm", None])
    assert names.of("crm_1.sql", "crm") == Label("crm", "name")
    assert str(names.of("backup.sql", None)).startswith("cannot tell which database")


def test_a_given_database_labels_no_script_of_another_name() -> None:
    same = DatabaseNames(["backup_crm", "backup_crm"], "crm")
    assert same.of("backup_crm_1.sql", "backup_crm") == Label("crm", "--database")
    assert DatabaseNames([None], "crm").of("backup.sql", None) == Label("crm", "--database")
    mixed = DatabaseNames(["crm", "billing", None], "crm")
    assert mixed.of("crm_1.sql", "crm") == Label("crm", "--database")
    for name, its_stem in (("billing_1.sql", "billing"), ("backup.sql", None)):
        assert "its file name does not match crm" in str(mixed.of(name, its_stem))


def test_a_pattern_for_databases() -> None:
    names = DatabaseNames(["x"], "rest", ["old/*=history", "{database}-nightly-*.sql", "acc_*=accounts"])
    assert names.of("old/1.sql", None) == Label("history", "--database-pattern")
    assert names.of("a/crm-nightly-1.sql", None) == Label("crm", "--database-pattern")
    assert names.of("acc_1.sql", None) == Label("accounts", "--database-pattern")
    assert names.of("x.sql", "x") == Label("rest", "--database")
    assert "--database-pattern" in str(DatabaseNames(["x"], None, ["crm*=crm"]).of("x.sql", "x"))
    for wrong in ("crm", "=crm", "crm="):
        with pytest.raises(ConfigurationError, match="does not name a database"):
            DatabaseNames([], None, [wrong])
