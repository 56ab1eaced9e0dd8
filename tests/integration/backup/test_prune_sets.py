"""Prune and backup sets: the newest complete set keeps its members, and an empty set is removed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from honest import write_backup

from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.repository.backup_set import Absent, BackupSet, SetMember, list_sets
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_id
from airflow_pgbackup.repository.retention import Policy

NOW = datetime.now(timezone.utc).replace(microsecond=0)


def night(repository: Repository, number: int, *databases: str, missing: tuple[str, ...] = ()) -> BackupSet:
    """The backups and the set of that many nights ago, written at its time."""
    start = NOW - timedelta(days=number, hours=1)
    members = []
    for name in databases:
        backup = write_backup(
            repository,
            Series("prod", name),
            start + timedelta(minutes=1),
            looks=["archive-pass"],
            seed=f"{name}{number}",
        )
        manifest = read_evidence(repository, Series("prod", name), backup.id, now=NOW).require_manifest()
        members.append(
            SetMember(
                series=manifest.series.path,
                id=manifest.id,
                database=name,
                size=manifest.artifact.size,
                sha256=manifest.artifact.sha256,
                key=manifest.artifact_key,
                level="archive",
            )
        )
    made = BackupSet(
        id=backup_id(start, f"set {number}"),
        server="prod",
        status="partial" if missing else "complete",
        started_at=start,
        finished_at=start + timedelta(minutes=30),
        server_version="18.1",
        globals=None,
        databases=tuple(members),
        missing=tuple(Absent(name, "no backup was made") for name in missing),
    )
    repository.write_bytes(f"{made.location}/{made.name.file}", made.to_json())
    return made


def run(repository: Repository, policy: Policy, **arguments: Any) -> dict[str, Any]:
    return prune(**{"repository": repository, "policy": policy, "dry_run": False, "now": NOW, **arguments})


def sets(repository: Repository) -> list[str]:
    return [one.id for one in list_sets(repository)]


def test_the_newest_complete_set_keeps_its_members(here: Repository) -> None:
    old = night(here, 5, "app", "crm")
    complete = night(here, 3, "app", "crm")
    night(here, 1, "app", missing=("crm",))
    night(here, 0, "app", missing=("crm",))
    result = run(here, Policy(keep_last=1))
    kept = {(str(backup.series), backup.id) for backup in read_catalogue(here).backups}
    assert {(member.series, member.id) for member in complete.members} <= kept
    assert not {(member.series, member.id) for member in old.databases} & kept
    (decision,) = [
        one for one in result["decisions"] if one["series"] == "prod/app" and one["id"] == complete.databases[0].id
    ]
    assert decision["reasons"] == [f"in the newest complete set {complete.id}"]


def test_a_set_without_backups_is_removed_with_its_last_one(here: Repository) -> None:
    made = [night(here, number, "app", "crm") for number in (4, 3, 2, 1, 0)]
    plan = run(here, Policy(keep_last=2), dry_run=True)
    assert plan["sets"] == [one.location for one in made[:3]]
    assert len(sets(here)) == 5
    assert run(here, Policy(keep_last=2))["sets"] == plan["sets"]
    assert sets(here) == [made[4].id, made[3].id]
    assert not list(here.list(made[0].location))
    assert run(here, Policy(keep_last=2))["sets"] == []


def test_a_set_with_one_backup_left_stays(here: Repository) -> None:
    first = night(here, 2, "app", "rare")
    night(here, 1, "app")
    last = night(here, 0, "app")
    result = run(here, Policy(keep_last=1))
    assert sets(here) == [last.id, first.id], "rare has no newer backup, so its last one is kept, and the set with it"
    assert len(result["sets"]) == 1


def test_a_prune_of_some_series_removes_no_set(here: Repository) -> None:
    for number in (2, 1, 0):
        night(here, number, "app", "crm")
    result = run(here, Policy(keep_last=1), series=SeriesSelection(server="prod", databases=["app"]))
    assert (result["removed"], result["sets"]) == (2, [])
    assert len(sets(here)) == 3


def test_partial_sets_and_an_unreadable_one_keep_nothing_and_the_newest_stays(here: Repository, tmp_path: Path) -> None:
    made = [night(here, number, "app", missing=("crm",)) for number in (2, 1, 0)]
    path = here.local_path(f"{made[0].location}/{made[0].name.file}")
    assert path is not None
    path.write_bytes(b"{}")
    result = run(here, Policy(keep_last=1))
    assert result["removed"] == 2
    assert sets(here) == [made[2].id, made[0].id], "what cannot be read is not removed"
    assert any(f"{made[0].location}: backup set" in line for line in result["notes"])
