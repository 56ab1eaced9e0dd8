"""The overview of a repository: each status, the worst first, one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from honest import manifest_of, write_backup
from nights import NOW, fail, night

from airflow_pgbackup.backup import set_retention
from airflow_pgbackup.backup.overview import Overview, SeriesStatus, Target, Targets, overview, series_detail
from airflow_pgbackup.backup.overview.model import LIMIT, by_database, sentence
from airflow_pgbackup.errors import ConfigurationError, RepositoryNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.set_files import read_listed_set

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = open_repository(f"file://{tmp_path / 'pg'}")
    made.init()
    return made


def see(repository: Repository, targets: Targets | None = None) -> Overview:
    found = overview(repository=repository, targets=targets, now=NOW)
    json.dumps(found.as_json(), allow_nan=False)
    return found


def statuses(found: Overview) -> dict[str, str]:
    return {one.database: one.status for one in found.series}


def add(repository: Repository, database: str | None, age: timedelta, *looks: str) -> str:
    return write_backup(repository, Series("prod", database), NOW - age, looks=looks, seed=f"{database}{age}").id


def test_each_status_the_worst_first(repository: Repository) -> None:
    add(repository, "late", 3 * DAY, "archive-pass")
    add(repository, "fine", HOUR, "archive-pass")
    add(repository, "broken", 2 * DAY, "archive-pass")
    add(repository, "broken", HOUR, "archive-pass", "restore-fail")
    add(repository, "never", HOUR)
    add(repository, "weak", HOUR, "integrity-pass")
    add(repository, "unproven", HOUR, "archive-notproven")
    add(repository, "lost", HOUR, "archive-fail")
    add(repository, None, HOUR, "restore-pass")
    found = see(repository)
    assert [(one.database, one.status) for one in found.series] == [
        ("lost", "failed"),
        ("never", "not verified"),
        ("unproven", "not verified"),
        ("weak", "not verified"),
        ("broken", "failed"),
        ("late", "late"),
        ("@cluster", "restorable"),
        ("fine", "restorable"),
    ]
    assert [one.database for one in found.in_danger] == ["lost", "never", "unproven", "weak", "broken", "late"]
    assert found.sentence == (
        "2 of 8 databases can be restored to a point less than 26 h old; 6 cannot: prod/lost (verification failed), "
        "prod/never (never verified), prod/unproven (never verified) and 3 more."
    )
    reasons = {one.database: one.reason for one in found.series}
    assert reasons["late"] == "the newest verified backup is 3 days old, more than 26 h"
    assert reasons["broken"] == (
        "the newest verified backup is 48 h old, more than 26 h; the newest failed verification"
    )
    assert reasons["weak"] == "no backup is verified at archive; the newest is verified at integrity only"
    assert reasons["fine"] == "verified at archive, 1 h old"


def test_a_failed_newest_backup_beside_a_young_verified_one(repository: Repository) -> None:
    good = add(repository, "app", 20 * HOUR, "archive-pass")
    bad = add(repository, "app", HOUR, "archive-fail")
    (one,) = see(repository).series
    assert one.status == "restorable"
    assert one.reason == "verified at archive, 20 h old; the newest failed verification"
    assert (one.verified and one.verified.id, one.newest and one.newest.id) == (good, bad)
    assert (one.backups, one.size) == (2, 10)
    assert [each.id for each in one.recent] == [good, bad]


def test_the_duration_of_a_dump_whose_files_were_copied_later(repository: Repository) -> None:
    add(repository, "app", HOUR, "archive-pass")
    assert [each.seconds for each in see(repository).series[0].recent] == [60]


def test_names_of_files_prove_nothing(repository: Repository, tmp_path: Path) -> None:
    forged = add(repository, "app", HOUR, "archive-pass")
    folder = tmp_path / "pg" / backup_folder(Series("prod", "app"), forged)
    (verification,) = folder.glob("verification-*")
    verification.write_bytes(b"{}")
    (one,) = see(repository).series
    assert (one.status, one.verified) == ("not verified", None)


def test_targets_of_some_series(repository: Repository) -> None:
    add(repository, "app", 30 * HOUR, "archive-pass")
    add(repository, "log", 30 * HOUR, "archive-pass")
    loose = Target(max_age=7 * DAY, level="integrity")
    targets = Targets(rules=((lambda series: series.database == "log", loose),))
    found = see(repository, targets)
    assert statuses(found) == {"app": "late", "log": "restorable"}
    assert found.sentence == (
        "1 of 2 databases can be restored to a point within their targets; 1 cannot: "
        "prod/app (last verified backup is 30 h old)."
    )
    with pytest.raises(ConfigurationError):
        Target(max_age=timedelta(0))
    with pytest.raises(ConfigurationError):
        Target(level="certain")


def test_figures_of_a_rehearsal_and_of_retention(repository: Repository) -> None:
    for number in range(5):
        add(repository, "app", number * DAY + HOUR, "archive-pass")
    rehearsed = add(repository, "app", 6 * DAY, "restore-pass")
    (one,) = see(repository, Targets(Target(policy=Policy(keep_last=3)))).series
    assert rehearsed
    assert one.rehearsed_at == NOW - 6 * DAY + timedelta(minutes=1)
    assert one.expiring == 3
    assert see(repository).series[0].expiring is None


def test_sets_show_databases_without_a_backup_and_dropped_ones(repository: Repository) -> None:
    night(repository, 3, "app", "old")
    night(repository, 1, "app")
    night(repository, 0, "app", missing=("new",))
    found = see(repository)
    assert statuses(found) == {"new": "no backup", "app": "restorable", "old": "dropped"}
    assert found.sentence.startswith(
        "1 of 2 databases can be restored to a point less than 26 h old; 1 cannot: prod/new"
    )
    (sets,) = found.sets
    assert (sets.server, sets.status, sets.databases) == ("prod", "partial", 1)
    assert sets.missing == (("new", "no backup was made"),)
    assert sets.complete != sets.newest


def test_globals_that_no_set_has_are_missed(repository: Repository) -> None:
    night(repository, 0, "app", globals_missing="no backup was made")
    found = see(repository)
    assert statuses(found) == {"@globals": "no backup", "app": "restorable"}
    assert "1 cannot: prod/@globals (no backup)" in found.sentence


def test_a_server_without_any_backup_is_shown(repository: Repository) -> None:
    write_backup(repository, Series("shop", "orders"), NOW - HOUR)
    night(repository, 0, missing=("accounts", "leads"))
    found = see(repository)
    assert statuses(found) == {"accounts": "no backup", "leads": "no backup", "orders": "restorable"}
    assert [(one.server, one.status) for one in found.sets] == [("prod", "partial")]
    assert found.sentence.startswith("1 of 3 databases")


def test_a_database_whose_backups_were_all_removed_is_shown(repository: Repository, tmp_path: Path) -> None:
    member, _ = night(repository, 0, "app", "crm").databases
    shutil.rmtree(tmp_path / "pg" / backup_folder(member.parsed_series, member.id))
    found = see(repository)
    assert statuses(found) == {"app": "no backup", "crm": "restorable"}
    assert f"backup {member.id} does not exist" in found.in_danger[0].reason


@pytest.mark.parametrize("damaged", [False, True], ids=["partial", "damaged"])
def test_a_database_that_a_newer_set_misses_is_not_dropped(
    repository: Repository, tmp_path: Path, damaged: bool
) -> None:
    night(repository, 3, "app", "web")
    night(repository, 2, "web")
    newest = night(repository, 0, "web", missing=("app",))
    if damaged:
        (tmp_path / "pg" / newest.location / newest.name.file).write_bytes(b"{}")
    found = see(repository)
    assert statuses(found) == {"app": "late", "web": "restorable"}
    if not damaged:
        assert found.in_danger[0].reason.endswith("lacks it: no backup was made")
    (row,) = [each for each in found.series if each.database == "app"]
    target = Target(policy=Policy(keep_last=1))
    detail = series_detail(repository=repository, series=Series("prod", "app"), target=target, now=NOW)
    assert (detail.status.status, row.status) == ("late", "late")


def test_a_database_with_a_newer_backup_than_the_complete_set_is_not_dropped(repository: Repository) -> None:
    night(repository, 3, "web")
    night(repository, 2, "web")
    add(repository, "app", 30 * HOUR, "archive-pass")
    assert statuses(see(repository)) == {"app": "late", "web": "late"}


@pytest.mark.parametrize("name", ["caf\udce9", "a\0b", "名" * 60], ids=["not UTF-8", "NUL", "long"])
def test_an_odd_name_in_a_set_hides_nothing(repository: Repository, name: str) -> None:
    night(repository, 0, "app", missing=("new", name))
    found = see(repository)
    assert statuses(found) == {"new": "no backup", "app": "restorable"}
    assert len(found.notes) == 1
    assert "lacks a database" in found.notes[0]


def test_a_database_named_like_a_series_of_pg_dumpall_hides_it_not(repository: Repository) -> None:
    add(repository, "@cluster", HOUR, "archive-pass")
    add(repository, None, HOUR, "archive-fail")
    assert [one.status for one in see(repository).in_danger] == ["failed"]


def test_a_set_with_a_failed_backup_is_not_the_complete_one(repository: Repository) -> None:
    whole, made = night(repository, 1, "app"), night(repository, 0, "app")
    fail(repository, made.databases[0])
    (sets,) = see(repository).sets
    assert (sets.complete, sets.complete_at, sets.damaged) == (whole.id, whole.started_at, made.id)


def test_a_database_with_a_copy_counts_once(repository: Repository, tmp_path: Path) -> None:
    copies = open_repository(f"file://{tmp_path / 'copies'}")
    copies.init()
    add(repository, "app", HOUR, "archive-pass")
    add(copies, "app", 3 * DAY, "archive-pass")
    add(copies, "lost", HOUR)
    add(repository, "lost", 3 * DAY, "archive-pass")
    add(copies, "never", HOUR)
    every = [*see(repository).series, *see(copies).series]
    best = by_database(every)
    assert [(one.database, one.status) for one in best] == [
        ("never", "not verified"),
        ("lost", "late"),
        ("app", "restorable"),
    ]
    assert sentence(best, NOW).startswith("1 of 3 databases can be restored to a point less than 26 h old; 2 cannot: ")


def test_databases_of_two_servers_with_the_same_name_count_each(repository: Repository, tmp_path: Path) -> None:
    def newest(age: timedelta, system: str | None) -> None:
        made = open_repository(f"file://{tmp_path / f'{system}'}")
        made.init()
        source = replace(manifest_of(made, app, NOW - age, {"app.dump": b""}).source, system_identifier=system)
        write_backup(made, app, NOW - age, source=source)
        every.extend(see(made).series)

    every: list[SeriesStatus] = []
    app = Series("prod", "app")
    newest(HOUR, "7300000000000000001")
    newest(10 * DAY, None)  # a role that may not read it
    assert [one.status for one in by_database(every)] == ["restorable"]
    newest(9 * DAY, "7300000000000000002")
    assert [one.status for one in by_database(every)] == ["late", "late", "restorable"]
    assert sentence(by_database(every[::2]), NOW) == (
        "1 of 2 databases can be restored to a point less than 26 h old; 1 cannot: "
        "prod/app (last verified backup is 9 days old)."
    )


def test_a_database_without_a_backup_is_not_restored_by_another_server(repository: Repository, tmp_path: Path) -> None:
    def add_to(repository: Repository, database: str, system: str, *looks: str) -> str:
        series, at = Series("prod", database), NOW - HOUR
        source = replace(manifest_of(repository, series, at, {"app.dump": b""}).source, system_identifier=system)
        return write_backup(repository, series, at, source=source, looks=looks).id

    other = open_repository(f"file://{tmp_path / 'other'}")
    other.init()
    for database in ("app", "crm", "web"):
        add_to(repository, database, "7300000000000000001", "archive-pass")
    night(other, 0, missing=("app",))
    add_to(other, "crm", "7300000000000000002", "archive-pass")
    broken = add_to(other, "web", "7300000000000000002")
    (tmp_path / "other" / backup_folder(Series("prod", "web"), broken) / "manifest.json").write_bytes(b"{}")
    every = by_database([*see(repository).series, *see(other).series])
    assert sentence(every, NOW) == (
        "4 of 6 databases can be restored to a point less than 26 h old; 2 cannot: prod/app (no backup), "
        "prod/web (never verified)."
    )


def test_a_database_is_dropped_only_if_it_is_dropped_everywhere(repository: Repository, tmp_path: Path) -> None:
    copies = open_repository(f"file://{tmp_path / 'copies'}")
    copies.init()
    night(repository, 9, "app", "web")
    night(repository, 0, "web")
    add(copies, "app", 5 * DAY, "archive-fail")
    first, second = see(repository).series, see(copies).series
    for series in ([*first, *second], [*second, *first]):
        assert [(one.database, one.status) for one in by_database(series)] == [
            ("app", "failed"),
            ("web", "restorable"),
        ]


def test_files_of_any_size_are_not_read(repository: Repository, tmp_path: Path) -> None:
    add(repository, "app", 2 * HOUR, "archive-pass")
    huge = add(repository, "app", HOUR, "archive-pass")
    folder = tmp_path / "pg" / backup_folder(Series("prod", "app"), huge)
    manifest = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(manifest + b" " * LIMIT)
    (one,) = see(repository).series
    assert (one.status, one.reason[:30]) == ("restorable", "verified at archive, 2 h old; ")  # the older one
    assert f"its manifest has {len(manifest) + LIMIT} bytes" in one.reason
    (folder / "manifest.json").write_bytes(manifest)
    (verification,) = folder.glob("verification-*")
    verification.write_bytes(verification.read_bytes() + b" " * LIMIT)
    (one,) = see(repository).series
    assert one.reason == "verified at archive, 2 h old; the newest is not verified yet"


def test_files_of_any_size_are_not_read_for_a_set(repository: Repository, tmp_path: Path) -> None:
    whole, made = night(repository, 1, "app"), night(repository, 0, "app")
    manifest = tmp_path / "pg" / backup_folder(Series("prod", "app"), made.databases[0].id) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" " * LIMIT)
    (sets,) = see(repository).sets
    assert (sets.complete, sets.damaged) == (whole.id, made.id)


def test_no_more_than_ten_sets_are_searched_for_usable_backups(repository: Repository) -> None:
    made = [night(repository, age, "app") for age in reversed(range(12))]
    for one in made[1:]:
        fail(repository, one.databases[0])
    found = see(repository)
    assert [one.complete for one in found.sets] == [None]
    assert "the newest 10 complete backup sets of prod have backups that cannot be used" in found.notes[0]


def test_sets_of_long_ago_are_read_only_for_a_retention_policy(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        night(repository, number, "app")
    add(repository, "adopted", 9 * DAY, "archive-pass")  # which never was in a set
    read: list[str] = []
    monkeypatch.setattr(
        set_retention,
        "read_listed_set",
        lambda repository, one, now: read.append(one.id) or read_listed_set(repository, one, now=now),
    )
    assert statuses(see(repository))["adopted"] == "dropped"
    assert len(read) == 1
    see(repository, Targets(Target(policy=Policy(keep_last=9))))
    assert len(set(read)) == 40
    assert len(read) == 41


def test_an_empty_repository_and_none(repository: Repository, tmp_path: Path) -> None:
    assert see(repository).sentence == "There is no backup."
    with pytest.raises(RepositoryNotFound):
        see(open_repository(f"file://{tmp_path / 'elsewhere'}"))


def test_backups_from_the_future_count_for_nothing(repository: Repository) -> None:
    add(repository, "app", -2 * DAY, "archive-pass")
    (one,) = see(repository).series
    assert (one.status, one.newest) == ("not verified", None)
    assert "clocks" in one.reason


def test_a_backup_by_a_clock_that_is_ahead_is_not_younger_than_now(repository: Repository) -> None:
    add(repository, "app", -timedelta(minutes=4), "archive-pass")
    assert see(repository).series[0].reason == "verified at archive, 0 s old"


def test_a_set_that_cannot_be_read_is_noted(repository: Repository, tmp_path: Path) -> None:
    made = night(repository, 1, "app")
    (tmp_path / "pg" / made.location / made.name.file).write_bytes(b"{")
    found = see(repository)
    assert statuses(found) == {"app": "restorable"}
    assert found.sets == ()
    assert "cannot be read" in found.notes[0]
    assert found.unknown == 1
    night(repository, 0, "app")
    assert see(repository).unknown == 0  # a newer set says all
