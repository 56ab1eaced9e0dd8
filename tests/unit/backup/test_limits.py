"""Freshness, the pure part: which series is fresh, and what is said of one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_pgbackup.backup.limits import Contents, Finding, Limits, compared, evaluate
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series, backup_id

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
LIMITS = Limits(max_age=timedelta(hours=26))


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
    backups: list[Backup], rows: list[Mapping[str, int] | None] | None = None, limits: Limits = LIMITS
) -> Finding:
    """With these rows in the backups, in the order given."""
    contents: dict[str, Contents] = {
        one.id: Contents(kind="custom", rows=counted) for one, counted in zip(backups, rows or [], strict=False)
    }
    return evaluate(backups, contents, limits, NOW)


def test_young_and_verified_is_fresh() -> None:
    finding = judge([backup(10), backup(34)])
    assert finding == Finding(problems=(), newest=backup(10))


def test_the_age_is_that_of_the_data() -> None:
    assert judge([backup(26)]).problems == ()
    (problem,) = judge([backup(26.5)]).problems
    assert problem == (
        "the newest backup verified at archive, 20261121T093000Z-2d7116, is 26.5 h old, at most 26.0 h is allowed"
    )
    assert "5.0 days old" in judge([backup(120)]).problems[0]


def test_no_backup_at_all() -> None:
    assert judge([]) == Finding(problems=("there is no backup",))


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
def test_only_good_backups_are_fresh(newer: Backup, standing: str) -> None:
    (problem,) = judge([newer, newer]).problems
    assert problem == f"there is no backup verified at archive among 2: the newest, {newer.id}, {standing}"
    finding = judge([newer, backup(25)])
    assert finding.problems == ()
    assert finding.newest == backup(25)
    assert finding.notes == (f"{newer.id}, which is newer, {standing}",)
    assert judge([newer, backup(27)]).problems


def test_any_level_when_none_is_asked_for() -> None:
    limits = Limits(max_age=timedelta(hours=26), minimum_level=None)
    assert judge([backup(1, state="written")], limits=limits).problems == ()
    (problem,) = judge([backup(1, state="failed")], limits=limits).problems
    assert "there is no backup that has not failed among 1" in problem


def test_a_clock_that_was_ahead_is_not_fresh_for_ever() -> None:
    ahead = backup(-100)
    (problem,) = judge([ahead]).problems
    assert problem == "there is no backup"
    finding = judge([ahead, backup(30)])
    assert "is 30.0 h old" in finding.problems[0]
    assert finding.notes == (f"{ahead.id} starts in the future and is passed over: a clock was wrong",)
    # Workers' clocks differ by seconds.
    assert judge([backup(-0.05)]).problems == ()


def test_a_drop_of_ninety_percent_in_size() -> None:
    before = [backup(hours, size=1000) for hours in (34, 58, 82)]
    assert judge([backup(10, size=101), *before], [{}] * 4).problems == ()
    (problem,) = judge([backup(10, size=100), *before], [{}] * 4).problems
    assert problem.endswith("has 100 bytes, 90 % less than the median of the last 3, 1000 bytes")
    allowed = Limits(max_age=timedelta(hours=26), max_drop=0.95)
    assert judge([backup(10, size=100), *before], [{}] * 4, allowed).problems == ()
    assert (
        judge([backup(10, size=0), *before], limits=Limits(max_age=timedelta(hours=26), max_drop=None)).problems == ()
    )


def test_one_odd_backup_is_no_measure() -> None:
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
        orders == f"table public.orders has 0 rows in {backups[0].id}, 100 % less than the median of the last 2, 50,000"
    )
    assert jobs.startswith("table public.jobs has 500 rows")
    allowing = Limits(max_age=timedelta(hours=26), allow_drop=("public.jobs", "*.ord?rs"))
    assert judge(backups, [emptied, usual, usual], allowing).problems == ()
    (total,) = judge(backups, [{"public.queue": 10}, usual, usual]).problems
    assert total == f"{backups[0].id} has 10 rows, 100 % less than the median of the last 2, 1,055,900"


def test_a_dropped_table_is_said_once() -> None:
    backups = [backup(hours) for hours in (10, 34, 58)]
    with_it, without = {"a.t": 5000, "a.u": 9000}, {"a.u": 9000}
    finding = judge(backups, [without, with_it, with_it])
    assert finding.problems == ()
    assert finding.notes == (f"table a.t, which had 5,000 rows, is no more in {backups[0].id}",)
    assert judge(backups, [without, without, with_it]).notes == ()


def test_only_like_is_compared_with_like() -> None:
    backups = [backup(10, size=10), backup(34, size=1000), backup(58, size=12)]
    contents: dict[str, Contents] = {
        backups[0].id: Contents(kind="zstd", rows=None),
        backups[1].id: Contents(kind="none", rows=None),
        backups[2].id: Contents(kind="zstd", rows=None),
    }
    assert evaluate(backups, contents, LIMITS, NOW).problems == ()


def test_rows_that_nobody_counted_are_not_compared() -> None:
    backups = [backup(hours) for hours in (10, 34, 58)]
    assert judge(backups, [None, {"a": 5000}, None]).problems == ()
    assert judge(backups, [{"a": 5}, None, None]).problems == ()
    assert len(judge(backups, [{"a": 5}, {"a": 5000}, None]).problems) == 2


def test_a_newest_backup_whose_manifest_cannot_be_believed() -> None:
    unreadable = replace(backup(10), state="unreadable", level=None, problem="a manifest that is not JSON")
    finding = evaluate([unreadable], {}, LIMITS, NOW)
    assert finding.problems == (
        f"there is no backup verified at archive among 1: the newest, {unreadable.id}, cannot be read: "
        "a manifest that is not JSON",
    )
    older = backup(20)
    finding = evaluate([unreadable, older], {}, LIMITS, NOW)
    assert (finding.newest, finding.problems) == (older, ())
    assert finding.notes == (f"{unreadable.id}, which is newer, cannot be read: a manifest that is not JSON",)


def test_what_is_compared() -> None:
    many = [backup(hours) for hours in range(1, 20)] + [backup(0.5, state="written"), backup(-9)]
    assert [one.id for one in compared(reversed(many), LIMITS, NOW)] == [one.id for one in many[:6]]


@pytest.mark.parametrize(
    ("nonsense", "message"),
    [
        ({"max_age": 26}, "max_age is 26"),
        ({"max_age": timedelta(0)}, "max_age is"),
        ({"minimum_level": "archived"}, "no verification level 'archived'"),
        ({"max_drop": 0}, "max_drop is 0"),
        ({"max_drop": 90}, "max_drop is 90"),
        ({"max_drop": float("nan")}, "max_drop is nan"),
        ({"max_drop": "0.9"}, "max_drop is '0.9'"),
        ({"max_drop": True}, "max_drop is True"),
        ({"compare_with": 0}, "compare_with is 0"),
        ({"minimum_rows": 0.5}, "minimum_rows is 0.5"),
        ({"allow_drop": "public.queue"}, "allow_drop is 'public.queue'"),
    ],
)
def test_nonsense_is_refused(nonsense: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits(**{"max_age": timedelta(hours=1), **nonsense})  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.hint
