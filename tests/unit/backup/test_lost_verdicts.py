"""A verdict is reported although it cannot be recorded, and a pass is no success where the backup counts as failed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest
from honest import write_backup

from airflow_pgbackup.backup.bulk import verify_all
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli import main
from airflow_pgbackup.errors import BackupNotFound, NotProven, RepositoryError, VerificationFailed
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository

AT = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
APP = Series("prod", "app")
ARCHIVE = b"PGDMP\1\x10\0\4\x08\1"  # the header of a custom archive
READ_ONLY = "cannot write verification.json: Read-only file system"


@pytest.fixture
def here(tmp_path: Path) -> LocalRepository:
    repository = open_repository(f"file://{tmp_path}/pg")
    repository.init()
    assert isinstance(repository, LocalRepository)
    return repository


def backup(here: LocalRepository, at: datetime = AT, looks: tuple[str, ...] = ()) -> Manifest:
    return write_backup(here, APP, at, looks=looks, members={"app.dump": ARCHIVE})


def damage(here: LocalRepository, manifest: Manifest) -> None:
    here.local_path(f"prod/app/{manifest.id}/app.dump").write_bytes(ARCHIVE[:-1] + b"?")


def look(here: LocalRepository, manifest: Manifest) -> dict[str, object]:
    reference = reference_of(here, read_evidence(here, APP, manifest.id))
    return verify(reference=reference, repository=here, level="integrity")


def refuse(monkeypatch: pytest.MonkeyPatch, error: RepositoryError) -> None:
    def write_bytes(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(LocalRepository, "write_bytes", write_bytes)


# -- a repository that cannot be written -------------------------------------------------------------------------------


def test_a_damaged_backup_fails_where_nothing_can_be_recorded(
    here: LocalRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = backup(here)
    damage(here, manifest)
    refuse(monkeypatch, RepositoryError(READ_ONLY))
    assert main(["verify", here.uri, "prod/app", "--level", "integrity"]) == 3
    error = capsys.readouterr().err
    assert f"backup prod/app/{manifest.id} in {here.uri} failed verification at level integrity: " in error
    assert "checksum mismatch" in error
    assert f"; the result could not be recorded: {READ_ONLY}" in error
    assert "hint: The bytes changed since the dump." in error


def test_several_faults_that_cannot_be_recorded_are_counted(
    here: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_backup(here, APP, AT, looks=(), members={"app.dir/toc.dat": b"1", "app.dir/1.dat": b"2"})
    for name in ("toc.dat", "1.dat"):
        here.local_path(f"prod/app/{manifest.id}/app.dir/{name}").write_bytes(b"3")
    refuse(monkeypatch, RepositoryError(READ_ONLY))
    with pytest.raises(VerificationFailed, match=r" \(and 1 more\); the result could not be recorded: "):
        look(here, manifest)


def test_a_sound_backup_passes_with_an_error_where_nothing_can_be_recorded(
    here: LocalRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = backup(here)
    refuse(monkeypatch, RepositoryError(READ_ONLY, hint="Remount it.", retry="never"))
    assert main(["verify", here.uri, "prod/app", "--level", "integrity"]) == 1
    passed = f"backup prod/app/{manifest.id} passed verification at level integrity, but that could not be recorded"
    assert f"{passed}: {READ_ONLY}" in capsys.readouterr().err
    with pytest.raises(RepositoryError) as raised:
        look(here, manifest)
    assert (raised.value.hint, raised.value.retry) == ("Remount it.", "never")


def test_what_could_not_be_proven_stays_so_where_nothing_can_be_recorded(
    here: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = backup(here)
    refuse(monkeypatch, RepositoryError(READ_ONLY))

    def unproven(*_: object) -> NoReturn:
        raise NotProven("no room here", hint="Make room.", retry="never")

    monkeypatch.setattr("airflow_pgbackup.backup.verification_run.VerificationRun._integrity", unproven)
    with pytest.raises(NotProven) as raised:
        look(here, manifest)
    assert raised.value.message == f"no room here; the result could not be recorded: {READ_ONLY}"
    assert (raised.value.hint, raised.value.retry) == ("Make room.", "never")


def test_all_backups_keep_their_verdicts_where_nothing_can_be_recorded(
    here: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(here, backup(here))
    backup(here, AT + timedelta(days=1))
    refuse(monkeypatch, RepositoryError(READ_ONLY))
    results = list(verify_all(repository=here, level="integrity"))
    assert [one.outcome for one in results] == ["error", "failed"]
    assert "passed verification at level integrity" in str(results[0].reason)


def test_a_backup_that_was_removed_meanwhile_is_not_damaged(
    here: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = backup(here)
    damage(here, manifest)
    refuse(monkeypatch, BackupNotFound("it was removed"))
    with pytest.raises(BackupNotFound):
        look(here, manifest)


# -- a pass that does not make up for a failure ------------------------------------------------------------------------


def test_a_pass_below_an_earlier_failure_is_a_failure(
    here: LocalRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = backup(here, looks=("archive-pass", "restore-fail"))
    assert main(["verify", here.uri, "prod/app", "--level", "integrity", "--json"]) == 3
    error: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == (
        f"backup prod/app/{manifest.id} passes level integrity, but still counts as failed, "
        "since it failed at level restore on 2026-11-22 02:02 UTC"
    )
    assert error["hint"] == "Verify it at level restore, or use another backup."
    assert [seen.result for seen in read_evidence(here, APP, manifest.id).verifications] == ["pass", "fail", "pass"]
    [one] = verify_all(repository=here, level="integrity")
    assert (one.outcome, one.reference) == ("failed", None)


def test_the_failure_that_stands_is_named_and_not_a_later_one_that_a_pass_revoked(here: LocalRepository) -> None:
    manifest = backup(here, looks=("restore-fail", "archive-fail", "integrity-pass"))
    with pytest.raises(VerificationFailed, match="since it failed at level restore on 2026-11-22 02:01 UTC"):
        look(here, manifest)


def test_a_pass_that_does_not_count_proves_nothing(here: LocalRepository) -> None:
    manifest = backup(here, datetime.now(timezone.utc) + timedelta(days=1))
    with pytest.raises(NotProven) as raised:
        look(here, manifest)
    assert raised.value.message.startswith(f"backup prod/app/{manifest.id} passes level integrity, but does not count")
    assert raised.value.message.endswith("-integrity-pass.json: it is from the future")
    assert raised.value.hint == "Check the file that is named, and the clocks of the machines that dump and verify."


def test_a_pass_at_the_level_of_the_failure_makes_up_for_it(here: LocalRepository) -> None:
    assert look(here, backup(here, looks=("integrity-fail",)))["verified"] == "integrity"
