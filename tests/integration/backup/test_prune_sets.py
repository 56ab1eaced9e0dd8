"""Prune and backup sets: the newest complete set keeps its members, and an empty set is removed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup, write_verification
from nights import NOW, fail, night

import airflow_pgbackup.backup.kept_backups as kept_module
import airflow_pgbackup.backup.prune as prune_module
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.removal import remove_backup
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.backup_set import Absent, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.set_files import list_sets


def add_series(repository: Repository, database: str, *nights: int) -> None:
    for number in nights:
        start = NOW - timedelta(days=number, hours=1)
        write_backup(repository, Series("prod", database), start, looks=["archive-pass"], seed=f"{database}{number}")


def backups(repository: Repository, database: str) -> list[str]:
    return [one.id for one in read_catalogue(repository, series=[Series("prod", database)]).backups]


def run(repository: Repository, policy: Policy, **arguments: Any) -> dict[str, Any]:
    return prune(**{"repository": repository, "policy": policy, "dry_run": False, "now": NOW, **arguments})


def fail_at_first_removal(repository: Repository, member: SetMember, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a backup fail a verification when prune removes its first backup."""
    remove, failed = prune_module.remove_backup, list[str]()

    def failing(repository: Repository, backup: Any) -> Any:
        if not failed:
            failed.append(backup.id)
            fail(repository, member)
        return remove(repository, backup)

    monkeypatch.setattr(prune_module, "remove_backup", failing)


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


def test_a_set_that_lost_a_backup_is_not_the_only_one_that_is_kept(here: Repository) -> None:
    night(here, 3, "app", "crm")
    whole = night(here, 2, "app", "crm")
    newest = night(here, 0, "app", "crm")
    lost = newest.databases[1]
    remove_backup(here, read_evidence(here, lost.parsed_series, lost.id).backup)
    result = run(here, Policy(keep_last=1))
    kept = {(one["series"], one["id"]): one["reasons"] for one in result["decisions"] if one["keep"]}
    assert set(kept) == {(one.series, one.id) for one in (*whole.databases, newest.databases[0])}
    assert kept["prod/app", whole.databases[0].id] == [
        f"in the newest complete set {whole.id} that has all its backups"
    ]


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


def test_the_backups_of_a_dropped_database_age_down_to_the_last(here: Repository) -> None:
    for number in range(9, 4, -1):
        night(here, number, "app", "old")
    add_series(here, "beside", 8, 7, 6)  # not in any set: nothing says that it was dropped
    assert len(backups(here, "old")) == 5
    for number, left in ((4, 3), (3, 2), (2, 1), (1, 1), (0, 1)):
        night(here, number, "app")
        run(here, Policy(keep_daily=4), now=NOW - timedelta(days=number))
        assert len(backups(here, "old")) == left, f"{number} days ago"
    assert len(backups(here, "app")) == 4
    assert len(backups(here, "beside")) == 3
    assert len(sets(here)) == 5, "the last set that has it stays with its last backup"


def test_a_database_that_is_excluded_or_failed_is_not_dropped(here: Repository) -> None:
    for number in (5, 4, 3):
        night(here, number, "app", "crm", "excluded")
    for number in (2, 1, 0):
        night(here, number, "app", missing=("crm",))
    run(here, Policy(keep_daily=3))
    assert len(backups(here, "crm")) == len(backups(here, "excluded")) == 3, "no later set is complete"


def test_a_database_that_a_newer_set_misses_was_not_dropped(here: Repository) -> None:
    for number in (9, 8, 7):
        night(here, number, "app", "crm")
    for number in (6, 5, 4, 3, 2):
        night(here, number, "app")
    night(here, 0, "app", missing=("crm",))
    run(here, Policy(keep_daily=3))
    assert len(backups(here, "crm")) == 3


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


def test_a_set_of_which_a_backup_failed_is_not_the_only_one_that_is_kept(here: Repository) -> None:
    old = night(here, 3, "app", "crm")
    whole = night(here, 2, "app", "crm")
    newest = night(here, 0, "app", "crm")
    fail(here, newest.databases[1])
    run(here, Policy(keep_last=1))
    assert set(backups(here, "app")) == {whole.databases[0].id, newest.databases[0].id}
    assert set(backups(here, "crm")) == {whole.databases[1].id, newest.databases[1].id}
    assert old.id not in sets(here)


@pytest.mark.parametrize("replace_after", [None, timedelta(hours=1)])
def test_a_backup_of_the_newest_set_that_fails_meanwhile_keeps_the_whole_set_before(
    here: Repository, monkeypatch: pytest.MonkeyPatch, replace_after: timedelta | None
) -> None:
    """Its series keeps its own backups; the others must do so, too, or no complete set remains."""
    before = night(here, 2, "app", "crm")
    newest = night(here, 1, "app", "crm")
    add_series(here, "beside", 2, 1)
    act = prune_module._Prune.act

    def late(self: prune_module._Prune) -> None:
        fail(here, newest.databases[1])
        act(self)

    monkeypatch.setattr(prune_module._Prune, "act", late)
    now = datetime.now(timezone.utc) + timedelta(days=1)
    result = run(here, Policy(keep_last=1, replace_after=replace_after), now=now)
    assert len(backups(here, "app")) == len(backups(here, "crm")) == len(backups(here, "beside")) == 2
    assert sets(here) == [newest.id, before.id]
    assert (result["removed"], result["sets"]) == (0, [])
    crm = newest.databases[1]
    why = f"prod: backup {crm.series}/{crm.id} of the newest complete set failed verification: nothing is deleted"
    assert why in result["notes"]


def test_a_backup_of_the_newest_set_that_fails_while_backups_are_deleted_stops_the_next_series(
    here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(here, 1, "app", "crm", "web")
    newest = night(here, 0, "app", "crm", "web")
    fail_at_first_removal(here, newest.databases[1], monkeypatch)
    assert run(here, Policy(keep_last=1))["removed"] == 1
    assert [len(backups(here, name)) for name in ("app", "crm", "web")] == [1, 2, 2]


def test_a_backup_of_the_newest_set_that_fails_while_older_ones_are_deleted_keeps_the_whole_set_before(
    here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(here, 3, "app", "crm", "web")
    lost = night(here, 2, "app", "crm", "web")
    before = night(here, 1, "app", "crm", "web")
    newest = night(here, 0, "app", "crm", "web")
    remove_backup(here, read_evidence(here, lost.databases[2].parsed_series, lost.databases[2].id).backup)
    fail_at_first_removal(here, newest.databases[1], monkeypatch)
    result = run(here, Policy(keep_last=1))
    assert result["removed"] == 2, "of app, those older than the set before"
    assert result["kept"] == len(read_catalogue(here).backups)
    assert [len(backups(here, name)) for name in ("app", "crm", "web")] == [2, 4, 3]
    assert before.databases[0].id in backups(here, "app")
    assert before.id in sets(here)


def test_the_set_before_is_deleted_last(here: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [night(here, number, "app", "crm") for number in (3, 2, 1, 0)]
    removed: list[str] = []
    remove = prune_module.remove_backup

    def removing(repository: Repository, backup: Any) -> Any:
        removed.append(backup.id)
        return remove(repository, backup)

    monkeypatch.setattr(prune_module, "remove_backup", removing)
    assert run(here, Policy(keep_last=1))["removed"] == 6
    nights = [[one.databases[at].id for one in made] for at in (0, 1)]
    assert removed == [*nights[0][:2], *nights[1][:2], nights[0][2], nights[1][2]]
    assert sets(here) == [made[3].id]


ONLY_APP = SeriesSelection(server="prod", databases=["app"])


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_prune_of_some_series_reads_what_the_others_have_in_the_newest_set(here: Repository, is_lost: bool) -> None:
    old = night(here, 3, "app", "crm")
    whole = night(here, 2, "app", "crm")
    newest = night(here, 0, "app", "crm")
    crm = newest.databases[1]
    if is_lost:
        remove_backup(here, read_evidence(here, crm.parsed_series, crm.id).backup)
    else:
        fail(here, crm)
    result = run(here, Policy(keep_last=1), series=ONLY_APP)
    assert set(backups(here, "app")) == {whole.databases[0].id, newest.databases[0].id}
    assert result["removed"] == 1
    assert old.databases[0].id not in backups(here, "app")


def test_a_prune_of_some_series_checks_the_others_again_before_it_deletes(
    here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(here, 1, "app", "crm")
    crm = night(here, 0, "app", "crm").databases[1]
    act = prune_module._Prune.act

    def late(self: prune_module._Prune) -> None:
        fail(here, crm)
        act(self)

    monkeypatch.setattr(prune_module._Prune, "act", late)
    result = run(here, Policy(keep_last=1), series=ONLY_APP)
    assert (result["removed"], len(backups(here, "app"))) == (0, 2)
    why = f"prod: backup {crm.series}/{crm.id} of the newest complete set failed verification: nothing is deleted"
    assert why in result["notes"]


@pytest.mark.parametrize("level", [None, "archive"])
@pytest.mark.parametrize("only", [None, ONLY_APP])
def test_a_failure_counts_however_long_after_the_start_it_was_recorded(
    here: Repository, monkeypatch: pytest.MonkeyPatch, level: str | None, only: SeriesSelection | None
) -> None:
    night(here, 1, "app", "crm")
    crm = night(here, 0, "app", "crm").databases[1]
    manifest = read_evidence(here, crm.parsed_series, crm.id, now=NOW).require_manifest()
    act = prune_module._Prune.act

    def an_hour_later(self: prune_module._Prune) -> None:
        write_verification(here, manifest, "archive", "fail", NOW + timedelta(hours=1))
        monkeypatch.setattr(kept_module, "current_time", lambda: datetime.now(timezone.utc) + timedelta(hours=1))
        act(self)

    monkeypatch.setattr(prune_module._Prune, "act", an_hour_later)
    result = run(here, Policy(keep_last=1, minimum_level=level), series=only)
    assert (result["removed"], len(backups(here, "app")), len(backups(here, "crm"))) == (0, 2, 2)


def age(repository: Repository) -> None:
    """Let all files be stored an hour after the backup or set that they belong to began."""
    root = Path(repository.uri.removeprefix("file://"))
    for path in (each for each in root.rglob("*") if each.is_file()):
        if found := re.search(r"/(\d{8}T\d{6})Z-", str(path)):
            at = datetime.strptime(found[1] + "+0000", "%Y%m%dT%H%M%S%z").timestamp() + 3600
            os.utime(path, (at, at))


@pytest.mark.usefixtures("utime_counts")
def test_a_file_added_to_an_old_set_does_not_end_its_protection(here: Repository) -> None:
    monthly = night(here, 25, "app", "crm")
    add_series(here, "app", 20, 15, 10, 5)
    add_series(here, "crm", 20, 15, 10, 5)
    age(here)
    forged = replace(monthly, status="partial", finished_at=NOW - timedelta(minutes=1), missing=(Absent("web", "x"),))
    here.write_bytes(f"{forged.location}/{forged.name.file}", forged.to_json())
    result = run(here, Policy(keep_last=1, replace_after=timedelta(days=7)))
    assert result["removed"] == 2 * 2
    assert {one.id for one in monthly.databases} <= {*backups(here, "app"), *backups(here, "crm")}


def test_a_set_stays_if_a_backup_of_it_was_pinned_meanwhile(here: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    old, *_ = [night(here, number, "app", "crm") for number in (2, 1, 0)]
    remove = prune_module.remove_backup

    def pinning(repository: Repository, backup: Any) -> Any:
        if backup.id == old.databases[0].id:
            pin(repository=repository, series=backup.series, id=backup.id, reason="audit")
        return remove(repository, backup)

    monkeypatch.setattr(prune_module, "remove_backup", pinning)
    result = run(here, Policy(keep_last=1))
    assert (result["removed"], result["kept"]) == (3, 3)
    assert old.databases[0].id in backups(here, "app")
    assert old.id in sets(here)
    assert old.location not in result["sets"]


def test_a_set_stays_if_a_backup_of_it_cannot_be_deleted(here: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    old, *_ = [night(here, number, "app", "crm") for number in (2, 1, 0)]
    remove = prune_module.remove_backup

    def refusing(repository: Repository, backup: Any) -> Any:
        if backup.id == old.databases[0].id:
            raise RepositoryError("access denied")
        return remove(repository, backup)

    monkeypatch.setattr(prune_module, "remove_backup", refusing)
    with pytest.raises(RepositoryError, match="1 of "):
        run(here, Policy(keep_last=1))
    assert len(sets(here)) == 2
    assert old.id in sets(here)


def refuse_to_read(repository: Repository, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store refuse to read the keys that contain a part."""
    read: Callable[..., AbstractContextManager[Any]] = type(repository).read

    @contextmanager
    def refusing(self: Repository, key: str, **arguments: Any) -> Iterator[Any]:
        if part in key:
            raise RepositoryError(f"cannot read {key}: access denied")
        with read(self, key, **arguments) as stream:
            yield stream

    monkeypatch.setattr(type(repository), "read", refusing)


@pytest.mark.parametrize("what", ["an old set", "the newest set", "a backup of the newest set"])
def test_one_file_that_cannot_be_read_does_not_stop_prune(
    here: Repository, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = [night(here, number, "app", "crm") for number in (4, 3, 2, 1, 0)]
    other = Series("other", "app")
    for number in (2, 1, 0):
        write_backup(here, other, NOW - timedelta(days=number, hours=1), looks=["archive-pass"], seed=f"o{number}")
    member = made[-1].databases[0]
    part = {
        "an old set": made[0].location,
        "the newest set": made[-1].location,
        "a backup of the newest set": f"{member.series}/{member.id}/verification",
    }[what]
    refuse_to_read(here, part, monkeypatch)
    result = run(here, Policy(keep_last=2))
    assert len(read_catalogue(here, server="other").backups) == 2, "another server is pruned"
    assert any("access denied" in note and made[-1].id[:4] in note for note in result["notes"])
    kept = {*backups(here, "app"), *backups(here, "crm")}
    assert {one.id for one in made[-1].databases} <= kept
    if what == "an old set":
        assert (len(kept), made[0].id in sets(here)) == (4, True)
    elif what == "the newest set":
        assert len(kept) == 10, "nobody knows what the newest set protects"
    else:
        assert {one.id for one in made[-2].databases} <= kept, "the newest set that is known to be complete"
