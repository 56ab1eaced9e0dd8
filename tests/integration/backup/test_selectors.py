"""Selectors: one rule for the command line and the operators, on a repository of small, real-looking backups."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from honest import manifest_of, write_backup, write_verification

from airflow_pgbackup.backup.choose_backup import choose_backup, choose_evidence, newest_backup
from airflow_pgbackup.backup.restore.plan import require_kind
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
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


def write_legacy(repository: Repository, at: datetime, options: dict[str, object]) -> Manifest:
    """A backup by pg_dumpall as releases before manifest 1.2 made it: all are in the series ``@cluster``."""
    series = Series("prod", None)
    written = write_backup(repository, series, at, members={"all.dump": str(options).encode()}, looks=())
    key = manifest_key(series, written.id)
    repository.delete([key])
    manifest = replace(written, options=options, format_version="1.1")
    repository.write_bytes(key, manifest.to_json())
    write_verification(repository, manifest, "archive", "pass", at + timedelta(minutes=1))
    return manifest


@pytest.fixture
def legacy(repository: Repository) -> dict[str, Manifest]:
    made = {"cluster": write_legacy(repository, TIMES[0], {})}
    for scope, at in zip(SCOPES, TIMES[1:4], strict=True):
        made[scope] = write_legacy(repository, at, {f"{scope}_only": True})
    return made


def test_roles_of_an_earlier_release_are_no_backup_of_a_cluster(
    repository: Repository, legacy: dict[str, Manifest]
) -> None:
    assert chosen(repository, "latest", "prod/@cluster") == legacy["cluster"].id
    for scope in SCOPES:
        series = f"prod/@{scope}"
        for selector in ("latest", "latest-verified", legacy[scope].id, legacy[scope].id[:13]):
            evidence = choose_evidence(repository, series, selector)
            assert evidence.require_manifest() == legacy[scope]
        with pytest.raises(BackupNotFound, match=f"backup {series}/{legacy['cluster'].id} does not exist"):
            chosen(repository, legacy["cluster"].id, series)
    assert chosen(repository, "2026-11-20", "prod/@roles") == legacy["roles"].id
    with pytest.raises(BackupNotFound, match=r"no backup of prod/@cluster .* started on 2026-11-20"):
        chosen(repository, "2026-11-20", "prod/@cluster")
    # its id still shows, verifies and copies it
    assert choose_evidence(repository, "prod/@cluster", legacy["roles"].id).require_manifest() == legacy["roles"]


def test_only_parts_of_a_cluster(repository: Repository) -> None:
    made = write_legacy(repository, TIMES[0], {"roles_only": True})
    with pytest.raises(BackupNotFound, match=f"is of a whole cluster; {made.id} contain") as raised:
        chosen(repository, "latest", "prod/@cluster")
    assert "prod/@globals, prod/@roles, prod/@tablespaces" in str(raised.value.hint)


def test_new_ones_come_before_those_of_earlier_releases(repository: Repository, legacy: dict[str, Manifest]) -> None:
    roles = Series("prod", None, "roles")
    new = write_backup(repository, roles, TIMES[4], members={"roles.dump": b"1"}, looks=())
    write_verification(repository, new, "archive", "pass", TIMES[4] + timedelta(minutes=1))
    assert chosen(repository, "latest", "prod/@roles") == new.id
    assert chosen(repository, "latest", "prod/@cluster") == legacy["cluster"].id
    assert read_evidence(repository, roles, new.id).require_manifest().contents_kind == "roles"


def test_a_restore_does_what_the_name_of_its_series_says(repository: Repository, legacy: dict[str, Manifest]) -> None:
    for scope, held in (("globals", "roles and tablespaces"), ("roles", "roles"), ("tablespaces", "tablespaces")):
        require_kind(legacy[scope], scope)
        with pytest.raises(ConfigurationError) as refused:
            require_kind(legacy[scope], "cluster")
        assert refused.value.message == (
            f"backup prod/@cluster/{legacy[scope].id} holds {held} only, not a whole cluster"
        )
        assert f"Restore it as prod/@{scope}, ID {legacy[scope].id}" in str(refused.value.hint)
        with pytest.raises(ConfigurationError, match=f"holds a whole cluster, not {held} only"):
            require_kind(legacy["cluster"], scope)
    require_kind(legacy["cluster"], "cluster")
    database = manifest_of(repository, APP, TIMES[0], {"app.dump": b"1"})
    require_kind(database, "database")
