"""Selectors: one rule for the command line and the operators, on a repository of small, real-looking backups."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from honest import write_backup, write_verification

from airflow_pgbackup.backup.choose_backup import choose_backup, choose_evidence, newest_backup
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, ManifestError, PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import SCOPES, Series, manifest_key
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository

APP = Series("prod", "app")
TIMES = (
    datetime(2026, 11, 19, 2, tzinfo=timezone.utc),
    datetime(2026, 11, 20, 2, tzinfo=timezone.utc),
    datetime(2026, 11, 20, 14, tzinfo=timezone.utc),
    datetime(2026, 11, 20, 23, 59, 59, tzinfo=timezone.utc),
    datetime(2026, 11, 21, 2, tzinfo=timezone.utc),
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = open_repository(f"file://{tmp_path}/repository")
    repository.init()
    return repository


@pytest.fixture
def backups(repository: Repository) -> list[Manifest]:
    """Oldest first; the second and the third are verified, the fourth failed, the fifth is not verified."""
    made = [write_backup(repository, APP, at, members={"app.dump": str(at).encode()}, looks=()) for at in TIMES]
    for number, result in ((1, "pass"), (2, "pass"), (3, "fail")):
        write_verification(repository, made[number], "archive", result, TIMES[number] + timedelta(minutes=1))
    return made


def chosen(repository: Repository, selector: str, series: str = "prod/app", **more: str | None) -> str:
    reference = choose_backup(repository, series, selector, **more)  # type: ignore[arg-type]
    return str(reference["id"])


def test_each_form_of_a_selector(repository: Repository, backups: list[Manifest]) -> None:
    for backup in backups:
        assert chosen(repository, backup.id) == backup.id
        assert chosen(repository, backup.id[:-1]) == backup.id
        assert chosen(repository, backup.id[:13].lower()) == backup.id
    assert chosen(repository, "20261119") == backups[0].id
    assert chosen(repository, "20261121") == backups[4].id
    assert chosen(repository, "latest") == chosen(repository, "latest-verified") == backups[2].id
    assert chosen(repository, "latest", minimum_level=None) == backups[4].id
    assert chosen(repository, "latest-verified", minimum_level=None) == backups[2].id
    assert newest_backup(repository, "prod/app").backup.id == backups[4].id
    assert chosen(repository, "2026-11-19") == backups[0].id
    assert chosen(repository, "2026-11-21") == backups[4].id


def test_a_date_is_the_newest_of_that_day_and_a_verified_one_is_named(
    repository: Repository, backups: list[Manifest]
) -> None:
    said: list[str] = []
    evidence = choose_evidence(repository, "prod/app", "2026-11-20", log=said.append)
    assert evidence.backup.id == backups[3].id
    assert said == [
        f"warning: the newest backup of prod/app of that day, {backups[3].id}, failed verification; "
        f"{backups[2].id} is verified at level archive"
    ]


@pytest.mark.parametrize(
    ("selector", "error", "message", "hint"),
    [
        (
            "20261120",
            ConfigurationError,
            "3 backups of prod/app begin with 20261120",
            "Write more of the id: {3}, {2}, {1}.",
        ),
        ("2", ConfigurationError, "5 backups of prod/app begin with 2", "{4}, {3}, {2} and 2 more."),
        ("20261122", BackupNotFound, "backup prod/app/20261122 does not exist", "The nearest of 5 are {4}, {3}, {2}."),
        ("20261119T02000", BackupNotFound, None, None),
        (
            "20261119T020001Z-000000",
            BackupNotFound,
            "backup prod/app/20261119T020001Z-000000 does not exist",
            "are {0}, ",
        ),
        ("2026-11-22", BackupNotFound, "started on 2026-11-22 (UTC)", "The nearest are {4}, {3}, {2}."),
        ("2026-02-30", ConfigurationError, "2026-02-30 is not a date", "Write year, month and day"),
        ("newest", ConfigurationError, "'newest' does not select a backup", "a date as 2026-11-20, latest or"),
        ("", ConfigurationError, "'' does not select a backup", "an id or the beginning of one"),
        ("../x", ConfigurationError, "'../x' does not select a backup", "an id or the beginning of one"),
    ],
)
def test_what_selects_no_backup_or_several_names_candidates(
    repository: Repository,
    backups: list[Manifest],
    selector: str,
    error: type[PgBackupError],
    message: str | None,
    hint: str | None,
) -> None:
    if message is None:
        assert chosen(repository, selector) == backups[0].id
        return
    with pytest.raises(error) as raised:
        chosen(repository, selector)
    assert message in raised.value.message
    assert (hint or "").format(*(backup.id for backup in backups)) in str(raised.value.hint)


def test_a_series_without_a_backup_names_those_there_are(repository: Repository, backups: list[Manifest]) -> None:
    for series, near in (("prod/ap", "prod/app"), ("prdo/app", "prod/app"), ("prod/@cluster", "prod/app")):
        for selector in ("latest", "20261120", "2026-11-20", backups[0].id):
            with pytest.raises(BackupNotFound, match=f"no backup of {series} is in ") as raised:
                chosen(repository, selector, series)
            assert str(raised.value.hint).startswith(f"There is {near}. Run pgbackup list")
    with pytest.raises(ConfigurationError, match="is not a series") as refused:
        chosen(repository, "latest", "prod/@nothing")
    assert "server/@cluster, server/@globals, server/@roles, server/@tablespaces" in str(refused.value.hint)


# -- what pg_dumpall makes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_a_backup_whose_options_are_not_those_of_its_series_is_refused(repository: Repository, scope: str) -> None:
    cluster = Series("prod", None)
    good, wrong = (write_backup(repository, cluster, at, members={"all.dump": b"1"}) for at in TIMES[:2])
    key = manifest_key(cluster, wrong.id)
    repository.delete([key])
    repository.write_bytes(key, replace(wrong, options={f"{scope}_only": True}).to_json())
    assert chosen(repository, "latest", "prod/@cluster") == good.id
    for selector in (wrong.id, wrong.id[:13]):
        with pytest.raises(ManifestError, match="contradicts itself: the series prod/@cluster is not of this dump"):
            chosen(repository, selector, "prod/@cluster")
    with pytest.raises(BackupNotFound):
        chosen(repository, wrong.id, f"prod/@{scope}")
