"""replace_after: what was stored a moment ago replaces nothing, by the clock of the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series, VerificationName, backup_id
from airflow_pgbackup.repository.replacement import as_stored, delayed
from airflow_pgbackup.repository.retention import Policy, plan

NOW = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
SERIES = Series("prod", "app")
WEEK = timedelta(days=7)


def backup(days: float, *, stored: float | None = None, verified: float | None = None) -> Backup:
    """One that started `days` ago, by its id; `stored` and `verified` as long ago, by the clock of the store."""
    at = NOW - timedelta(days=days)
    name = VerificationName(at, "archive", "pass")
    stored = days if stored is None else stored
    return Backup(
        series=SERIES,
        id=backup_id(at, seed=""),
        started_at=at,
        committed_at=NOW - timedelta(days=stored),
        size=1,
        state="verified",
        level="archive",
        verifications=(name,),
        stored_at={name: NOW - timedelta(days=stored if verified is None else verified)},
    )


def deleted(backups: list[Backup], span: timedelta = WEEK) -> list[Backup]:
    decide = partial(plan, policy=Policy(keep_last=2), now=NOW)
    return [one.backup for one in delayed(decide(backups), decide, NOW, span) if not one.keep]


def test_each_is_kept_until_those_that_replace_it_have_been_stored_for_long() -> None:
    nights = [backup(days) for days in range(1, 21)]
    # The two newest of a week ago are those of the nights 7 and 8.
    assert deleted(nights) == nights[8:]
    assert deleted(nights, timedelta(hours=1)) == nights[2:]


@pytest.mark.parametrize("forged", [{"stored": 1}, {"stored": 30, "verified": 1}], ids=["a backup", "a verification"])
def test_what_was_added_lately_replaces_nothing_whatever_it_says(forged: dict[str, float]) -> None:
    good = [backup(days) for days in (21, 22)]
    assert deleted([*(backup(days, **forged) for days in (18, 19, 20)), *good]) == []
    assert deleted([*(backup(days) for days in (18, 19, 20)), *good]) == [backup(20), *good]


def test_a_backup_as_it_was_stored() -> None:
    late = backup(10, stored=9, verified=2)
    assert as_stored(late, NOW) is late
    earlier = as_stored(late, NOW - timedelta(days=3))
    assert earlier is not None
    assert (earlier.state, earlier.level, earlier.verifications) == ("written", None, ())
    assert as_stored(late, NOW - timedelta(days=9, hours=1)) is None


@pytest.mark.parametrize("days", [20, 40], ids=["invalid", "from before the backup"])
def test_a_failure_that_evidence_ignores_revokes_the_passes_of_that_time(days: float) -> None:
    passed, failed, forged = (
        VerificationName(NOW - timedelta(days=at), "archive", result)
        for at, result in ((30, "pass"), (days, "fail"), (0, "pass"))
    )
    stored = {passed: NOW - timedelta(days=30), failed: NOW - timedelta(days=20), forged: NOW}
    late = replace(backup(30), verifications=(passed, forged), stored_at=stored)
    earlier = as_stored(late, NOW - WEEK)
    assert earlier is not None
    assert (earlier.state, earlier.level) == ("notproven", None)
    before = as_stored(late, NOW - timedelta(days=21))
    assert before is not None
    assert before.state == "verified"


@pytest.mark.parametrize("span", [timedelta(0), timedelta(days=40_000), 7])
def test_invalid_spans(span: object) -> None:
    with pytest.raises(ConfigurationError, match="invalid replace_after"):
        Policy(keep_last=1, replace_after=span)  # type: ignore[arg-type]


def test_a_policy_describes_it_in_seconds() -> None:
    assert Policy(keep_last=1, replace_after=WEEK).describe()["replace_after"] == 604_800
