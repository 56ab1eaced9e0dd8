"""Freshness, the pure part: which series is fresh, and what is said of one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_pgbackup.backup.freshness_rules import (
    BackupContents,
    FreshnessRules,
    SeriesFreshness,
    backups_compared,
    judge_series,
)
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series, backup_id

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
RULES = FreshnessRules(max_age=timedelta(hours=26))


def backup(hours: float, *, state: str = "verified", level: str | None = "archive", size: int = 1000) -> Backup:
    at = NOW - timedelta(hours=hours)
    return Backup(
        series=Series("prod", "app"),
        id=backup_id(at, seed="x"),
        started_at=at,
        committed_at=at,
        size=size,
        state=state,
        level=level if state == "verified" else None,
    )


def judge(
    backups: list[Backup], rows: list[Mapping[str, int] | None] | None = None, rules: FreshnessRules = RULES
) -> SeriesFreshness:
    """With these rows in the backups, in the order given."""
    contents: dict[str, BackupContents] = {
        one.id: BackupContents(kind="custom", rows=counted) for one, counted in zip(backups, rows or [], strict=False)
    }
    return judge_series(backups, contents, rules, NOW)


def test_young_and_verified_is_fresh() -> None:
    result = judge([backup(10), backup(34)])
    assert result == SeriesFreshness(problems=(), newest=backup(10))


def test_the_age_is_that_of_the_data() -> None:
    assert judge([backup(26)]).problems == ()
    (problem,) = judge([backup(26.5)]).problems
    assert problem == (
        "the newest backup verified at archive, 20261121T093000Z-2d7116, is 26.5 h old, more than 26.0 h"
    )
    assert "5.0 days old" in judge([backup(120)]).problems[0]
    (problem,) = judge([backup(0.1)], rules=FreshnessRules(max_age=timedelta(seconds=45))).problems
    assert problem.endswith("is 6 min old, more than 45 s")


def test_a_problem_of_many_tables_is_short() -> None:
    before = {f"public.{'t' * 1000}{number:03}": 1000 for number in range(100)}
    found = judge([backup(1), backup(25)], [dict.fromkeys(before, 0), before])
    assert len(found.problems) == 22  # of all rows, of the first tables, and how many more
    assert found.problems[-1] == "80 more tables have fewer rows"
    assert max(map(len, found.problems)) < 500
    assert judge([backup(1), backup(25)], [{"a": 10**6}, {**before, "a": 1}]).notes[-1] == "80 more tables are missing"


def test_no_backup_at_all() -> None:
    assert judge([]) == SeriesFreshness(problems=("no backup",))


@pytest.mark.parametrize(
    ("newer", "standing"),
    [
        (backup(1, state="written"), "is not verified yet"),
        (backup(1, state="failed"), "failed verification"),
        (backup(1, state="notproven"), "could not be proven"),
        (backup(1, state="incomplete"), "is incomplete"),
        (backup(1, level="integrity"), "is verified at integrity only"),
    ],
)
def test_only_verified_backups_are_fresh(newer: Backup, standing: str) -> None:
    (problem,) = judge([newer, newer]).problems
    assert problem == f"no backup verified at archive; the newest of 2, {newer.id}, {standing}"
    result = judge([newer, backup(25)])
    assert result.problems == ()
    assert result.newest == backup(25)
    assert result.notes == (f"newer backup {newer.id} {standing}",)
    assert judge([newer, backup(27)]).problems


def test_any_level_without_a_minimum_level() -> None:
    rules = FreshnessRules(max_age=timedelta(hours=26), minimum_level=None)
    assert judge([backup(1, state="written")], rules=rules).problems == ()
    (problem,) = judge([backup(1, state="failed")], rules=rules).problems
    assert "no backup that has not failed; the newest of 1" in problem


def test_a_backup_from_the_future_is_not_fresh() -> None:
    ahead = backup(-100)
    (problem,) = judge([ahead]).problems
    assert problem == "no backup"
    result = judge([ahead, backup(30)])
    assert "is 30.0 h old" in result.problems[0]
    assert result.notes == (f"{ahead.id} starts in the future and is ignored; check the clocks",)
    # Workers' clocks differ by seconds.
    assert judge([backup(-0.05)]).problems == ()


def test_a_drop_of_ninety_percent_in_size() -> None:
    before = [backup(hours, size=1000) for hours in (34, 58, 82)]
    assert judge([backup(10, size=101), *before], [{}] * 4).problems == ()
    (problem,) = judge([backup(10, size=100), *before], [{}] * 4).problems
    assert problem.endswith("has 100 bytes, 90 % less than the median of the last 3 (1000 bytes)")
    allowed = FreshnessRules(max_age=timedelta(hours=26), max_drop=0.95)
    assert judge([backup(10, size=100), *before], [{}] * 4, allowed).problems == ()
    assert (
        judge([backup(10, size=0), *before], rules=FreshnessRules(max_age=timedelta(hours=26), max_drop=None)).problems
        == ()
    )


def test_the_median_ignores_one_outlier() -> None:
    backups = [backup(10, size=1000), backup(34, size=900_000), backup(58, size=1000), backup(82, size=1000)]
    assert judge(backups, [{}] * 4).problems == ()


def test_rows_of_all_tables_and_of_each() -> None:
    backups = [backup(hours) for hours in (10, 34, 58)]
    usual = {"public.orders": 50_000, "public.events": 1_000_000, "public.queue": 900, "public.jobs": 5000}
    assert judge(backups, [usual] * 3).problems == ()
    assert judge(backups, [usual] * 3).rows == 1_055_900
    emptied = {**usual, "public.orders": 0, "public.queue": 0, "public.jobs": 500}
    orders, jobs = reversed(judge(backups, [emptied, usual, usual]).problems)
    assert (
        orders
        == f"table public.orders has 0 rows in {backups[0].id}, 100 % less than the median of the last 2 (50,000)"
    )
    assert jobs.startswith("table public.jobs has 500 rows")
    allowing = FreshnessRules(max_age=timedelta(hours=26), allow_drop=("public.jobs", "*.ord?rs"))
    assert judge(backups, [emptied, usual, usual], allowing).problems == ()
    (total,) = judge(backups, [{"public.queue": 10}, usual, usual]).problems
    assert total == f"{backups[0].id} has 10 rows, 100 % less than the median of the last 2 (1,055,900)"


def test_a_dropped_table_is_noted_once() -> None:
    backups = [backup(hours) for hours in (10, 34, 58)]
    with_it, without = {"a.t": 5000, "a.u": 9000}, {"a.u": 9000}
    result = judge(backups, [without, with_it, with_it])
    assert result.problems == ()
    assert result.notes == (f"table a.t is missing from {backups[0].id}; it had 5,000 rows before",)
    assert judge(backups, [without, without, with_it]).notes == ()


def test_only_backups_of_one_kind_are_compared() -> None:
    backups = [backup(10, size=10), backup(34, size=1000), backup(58, size=12)]
    contents: dict[str, BackupContents] = {
        backups[0].id: BackupContents(kind="zstd", rows=None),
        backups[1].id: BackupContents(kind="none", rows=None),
        backups[2].id: BackupContents(kind="zstd", rows=None),
    }
    assert judge_series(backups, contents, RULES, NOW).problems == ()


def test_uncounted_rows_are_not_compared() -> None:
    backups = [backup(hours) for hours in (10, 34, 58)]
    assert judge(backups, [None, {"a": 5000}, None]).problems == ()
    assert judge(backups, [{"a": 5}, None, None]).problems == ()
    assert len(judge(backups, [{"a": 5}, {"a": 5000}, None]).problems) == 2


def test_a_newest_backup_with_an_invalid_manifest() -> None:
    unreadable = replace(backup(10), state="unreadable", level=None, problem="a manifest that is not JSON")
    result = judge_series([unreadable], {}, RULES, NOW)
    assert result.problems == (
        f"no backup verified at archive; the newest of 1, {unreadable.id}, cannot be read: a manifest that is not JSON",
    )
    older = backup(20)
    result = judge_series([unreadable, older], {}, RULES, NOW)
    assert (result.newest, result.problems) == (older, ())
    assert result.notes == (f"newer backup {unreadable.id} cannot be read: a manifest that is not JSON",)


def test_what_is_compared() -> None:
    many = [backup(hours) for hours in range(1, 20)] + [backup(0.5, state="written"), backup(-9)]
    assert [one.id for one in backups_compared(reversed(many), RULES, NOW)] == [one.id for one in many[:6]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"max_age": 26}, "invalid max_age 26"),
        ({"max_age": timedelta(0)}, "invalid max_age"),
        ({"minimum_level": "archived"}, "invalid minimum_level 'archived'"),
        ({"max_drop": 0}, "invalid max_drop 0"),
        ({"max_drop": 90}, "invalid max_drop 90"),
        ({"max_drop": float("nan")}, "invalid max_drop nan"),
        ({"max_drop": "0.9"}, "invalid max_drop '0.9'"),
        ({"max_drop": True}, "invalid max_drop True"),
        ({"compare_with": 0}, "invalid compare_with 0"),
        ({"minimum_rows": 0.5}, "invalid minimum_rows 0.5"),
        ({"allow_drop": "public.queue"}, "invalid allow_drop 'public.queue'"),
    ],
)
def test_an_invalid_value_is_refused(value: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FreshnessRules(**{"max_age": timedelta(hours=1), **value})  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.hint
