"""A failed verification counts, whatever the clocks of the workers say: the one that dumped, verified or prunes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from honest import verification_of, write_backup, write_verification
from jumping_clock import JumpingClock

from airflow_pgbackup.backup import reading_record
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, artifact_key
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import Policy

APP = Series("prod", "app")
NOW = datetime.now(timezone.utc)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LAST = Policy(keep_last=1, minimum_level="integrity")
END = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)


@pytest.fixture
def repository(either_repository: Repository) -> Repository:
    return either_repository


def nights(repository: Repository, *, ahead: timedelta = timedelta()) -> list[Manifest]:
    """Three backups, the newest first, made an hour ago by a clock that is ahead."""
    return [
        write_backup(repository, APP, NOW + ahead - HOUR - timedelta(days=night), members={"app.dir/1.dat": b"rows"})
        for night in range(3)
    ]


def left(repository: Repository) -> set[str]:
    return {backup.id for backup in read_catalogue(repository).backups}


def state(repository: Repository, manifest: Manifest, now: datetime | None = None) -> tuple[str, str | None]:
    backup = read_evidence(repository, APP, manifest.id, now=now).backup
    return backup.state, backup.level


@pytest.mark.parametrize("ahead", [SKEW + MINUTE, timedelta(days=365)])
def test_a_failure_from_the_future(repository: Repository, ahead: timedelta) -> None:
    newest, *sound = nights(repository)
    write_verification(repository, newest, "restore", "fail", datetime.now(timezone.utc) + ahead)
    assert state(repository, newest) == ("notproven", None)
    problem = read_evidence(repository, APP, newest.id).backup.problem
    assert problem and problem.endswith("-restore-fail.json: it is from the future")
    prune(repository=repository, policy=LAST, dry_run=False)
    assert sound[0].id in left(repository)
    assert state(repository, newest, NOW + ahead + HOUR) == ("failed", None)


def test_a_failure_from_the_future_as_a_slow_worker_sees_it(repository: Repository) -> None:
    newest, *sound = nights(repository)
    write_verification(repository, newest, "restore", "fail", datetime.now(timezone.utc))
    with JumpingClock(-600).installed():
        assert state(repository, newest) == ("notproven", None)
        prune(repository=repository, policy=LAST, dry_run=False)
    assert sound[0].id in left(repository)


def test_a_failure_from_before_its_backup(repository: Repository) -> None:
    newest, *sound = nights(repository, ahead=2 * HOUR)
    write_verification(repository, newest, "restore", "fail", NOW + 10 * MINUTE)
    later = NOW + 3 * HOUR
    assert state(repository, newest, later) == ("notproven", None)
    prune(repository=repository, policy=LAST, dry_run=False, now=later)
    assert sound[0].id in left(repository)


def test_a_pass_out_of_time_proves_nothing_and_revokes_nothing(repository: Repository) -> None:
    [newest, *_] = nights(repository)
    for at in (newest.started_at - HOUR, NOW + 24 * HOUR):
        write_verification(repository, newest, "restore", "pass", at)
    assert state(repository, newest) == ("verified", "archive")


def test_a_failure_within_time_is_still_a_failure(repository: Repository) -> None:
    [newest, *_] = nights(repository)
    write_verification(repository, newest, "archive", "fail", NOW - 10 * MINUTE)
    write_verification(repository, newest, "restore", "fail", NOW + 24 * HOUR)
    assert state(repository, newest) == ("failed", None)


@pytest.mark.parametrize("seconds", [-600.0, -7200.0, 1800.0])
def test_damage_that_a_worker_with_a_wrong_clock_finds(seconds: float, tmp_path: Path) -> None:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    newest, *sound = nights(repository)
    reference = reference_of(repository, read_evidence(repository, APP, newest.id))
    verify(reference=reference, repository=repository, level="integrity")
    path = repository.local_path(artifact_key(APP, newest.id, "app.dir/1.dat", newest.artifact.attempt))
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"rowX")
    with JumpingClock(seconds).installed(), pytest.raises(VerificationFailed):
        verify(reference=reference, repository=repository, level="integrity")
    found = read_evidence(repository, APP, newest.id).backup
    assert found.state == ("notproven" if seconds > 0 else "failed")
    assert state(repository, newest, datetime.now(timezone.utc) + HOUR) == ("failed", None)
    prune(repository=repository, policy=LAST, dry_run=False)
    assert sound[0].id in left(repository)


@pytest.mark.every_value
@pytest.mark.parametrize("passed", [NOW, NOW + HOUR, NOW + timedelta(days=9999), END])
def test_a_failure_is_written_later_than_every_pass(
    repository: Repository, passed: datetime, write: Callable[[Repository, Manifest, str, datetime], datetime]
) -> None:
    [newest, *_] = nights(repository)
    write_verification(repository, newest, "archive", "pass", passed)
    at = write(repository, newest, "fail", NOW - 2 * HOUR)
    assert at >= passed
    assert state(repository, newest)[1] is None
    if passed < END:
        assert state(repository, newest, max(passed, NOW + HOUR)) == ("failed", None)


def test_a_pass_is_written_later_than_every_failure_but_not_than_a_forged_pass(
    repository: Repository, write: Callable[[Repository, Manifest, str, datetime], datetime]
) -> None:
    [newest, *_] = nights(repository)
    write_verification(repository, newest, "archive", "fail", NOW - MINUTE)
    write_verification(repository, newest, "archive", "pass", END)
    assert write(repository, newest, "pass", NOW - HOUR) == NOW - MINUTE + timedelta(microseconds=1)
    assert state(repository, newest) == ("verified", "archive")


def test_a_failure_is_not_written_before_its_backup(
    repository: Repository, write: Callable[[Repository, Manifest, str, datetime], datetime]
) -> None:
    newest = write_backup(repository, APP, NOW, looks=[])
    assert write(repository, newest, "fail", NOW - HOUR) == newest.started_at
    assert state(repository, newest) == ("failed", None)


@pytest.fixture
def write() -> Callable[[Repository, Manifest, str, datetime], datetime]:
    """Write a verification as this package does; return the time that it got."""

    def written(repository: Repository, manifest: Manifest, result: str, at: datetime) -> datetime:
        before = set(read_evidence(repository, APP, manifest.id).backup.stored_at)
        reading_record.write_verification(repository, manifest, verification_of(manifest, "archive", result, at))
        [new] = set(read_evidence(repository, APP, manifest.id).backup.stored_at) - before
        return new.at

    return written
