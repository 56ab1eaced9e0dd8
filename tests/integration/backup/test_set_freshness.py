"""Freshness of backup sets: a recent complete set of each server, with all its backups."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from nights import NOW, fail, night

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.removal import remove_backup
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import find_backup

DAY = FreshnessRules(max_age=timedelta(hours=26), max_drop=None)


def run(repository: Repository, **arguments: Any) -> Any:
    return freshness(**{"repository": repository, "rules": DAY, "sets": True, "now": NOW, **arguments})


def test_a_recent_complete_set_is_fresh(here: Repository) -> None:
    made = night(here, 0, "app", "crm")
    found = run(here)
    assert (found["fresh"], found["problems"]) == (True, [])
    (one,) = found["sets"]
    assert one == {
        "server": "prod",
        "fresh": True,
        "id": made.id,
        "started_at": made.started_at.isoformat(),
        "age_seconds": 3600.0,
        "databases": 2,
        "unusable": [],
        "problems": [],
        "notes": [],
    }


def test_a_partial_set_does_not_count_though_its_backups_are_fresh(here: Repository) -> None:
    old = night(here, 2, "app", "crm")
    partial = night(here, 0, "app", missing=("crm", "web"))
    lines: list[str] = []
    found = run(here, series=SeriesSelection(server="prod"), context=RunContext(log=lines.append))
    problem = f"prod: the newest complete backup set, {old.id}, is 49.0 h old, more than 26.0 h"
    assert problem in found["problems"]
    assert found["sets"][0]["notes"] == [f"backup set {partial.id} is partial: missing crm, web"]
    assert problem in lines
    assert f"prod: backup set {partial.id} is partial: missing crm, web" in lines
    assert run(here, sets=False)["sets"] == []


def test_without_a_complete_set_a_server_is_not_fresh(here: Repository) -> None:
    assert "no backup set is in" in run(here)["problems"][0]
    night(here, 0, "app", missing=("crm",))
    assert "prod: none of 1 backup set is complete" in run(here)["problems"]
    assert "other: it has no backup set" in run(here, series=SeriesSelection(server="other"))["problems"]


def test_a_set_whose_backups_were_deleted_is_not_fresh(here: Repository) -> None:
    made = night(here, 0, "app", "crm")
    lost = made.databases[1]
    remove_backup(here, find_backup(here, lost.parsed_series, lost.id))
    assert f"prod: 1 backup of backup set {made.id} does not exist: crm" in run(here)["problems"]


def test_a_set_with_a_failed_backup_is_not_fresh(here: Repository) -> None:
    night(here, 1, "app", "crm")
    made = night(here, 0, "app", "crm")
    fail(here, made.databases[1])
    problem = f"prod: 1 backup of backup set {made.id} cannot be used: crm failed verification"
    for series in (None, SeriesSelection(server="prod", databases=("app", "crm"))):
        found = run(here, series=series)
        assert (found["fresh"], found["problems"]) == (False, [problem])


def test_an_older_set_describes_a_server_whose_newest_failed(here: Repository) -> None:
    night(here, 3, "app", "crm")
    whole = night(here, 2, "app", "crm")
    fail(here, night(here, 1, "app", "crm").databases[1])
    fail(here, night(here, 0, "app", "crm").databases[1])
    (one,) = run(here)["sets"]
    assert (one["id"], one["fresh"]) == (whole.id, False)
    assert one["unusable"] == [{"database": "crm", "reason": "failed verification"}]


def test_without_a_set_that_can_be_used(here: Repository) -> None:
    fail(here, night(here, 0, "app").databases[0])
    (one,) = run(here)["sets"]
    assert (one["id"], one["started_at"], one["fresh"]) == (None, None, False)
