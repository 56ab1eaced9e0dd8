"""Freshness of backup sets: a recent complete set of each server, with all its backups."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from nights import NOW, night

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
