"""The assertions of the campaign notice each violation: one that notices nothing would prove nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from tests.campaign import aftermath as checks
from tests.campaign.aftermath import Outcome, Scene, Snapshot, aftermath, snapshot

SECRET = "s3cret of: the 'campaign'"
Case = tuple[Scene, Snapshot]


@pytest.fixture
def case(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository) -> Iterator[Case]:
    database = fresh_database(server18, None, "create table t as select 1 as a")
    dump_database(connection=database, server="s", repository=here, options=DumpOptions())
    with tempfile.TemporaryDirectory(prefix="a-") as tmp:
        scene = Scene(repositories=[here], tmp=Path(tmp), servers=[server18.params], secrets=[SECRET])
        yield scene, snapshot(scene)


def folder_of(case: Case) -> Path:
    (repository,) = case[0].repositories
    (backup,) = read_catalogue(repository).backups
    path = repository.local_path(f"{backup.folder}/manifest.json")
    assert path is not None
    return path.parent


def test_nothing_is_violated(case: Case) -> None:
    assert aftermath(*case, Outcome(status=0)) == []
    refused = RepositoryError("no space left on device", hint="Free some space.")
    assert aftermath(*case, Outcome.of(refused)) == []


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        (Outcome(status=1, stderr="Traceback (most recent call last):\n"), "a traceback"),
        (Outcome(status=1, stderr="pgbackup dump: failed\n"), "0 hints"),
        (Outcome(status=1, stderr="hint: Do something.\n"), "0 causes"),
        (Outcome(status=1, stderr="pgbackup dump: a\npgbackup dump: b\nhint: c\n"), "2 causes"),
        (Outcome(status=70, stderr="pgbackup dump: internal error: KeyError\nhint: c\n"), "an internal error"),
        (Outcome(status=0, stdout=f"password {SECRET}"), "a secret is in stdout"),
        (Outcome(status=0, stderr="s3cret%20of%3A%20the%20%27campaign%27"), "a secret is in stderr"),
    ],
)
def test_an_outcome_that_is_not_clear(outcome: Outcome, what: str, tmp_path: Path) -> None:
    scene = Scene(repositories=[], tmp=tmp_path, secrets=[SECRET])
    assert any(what in line for line in checks.check_outcome(scene, outcome))


def test_a_new_backup_that_is_damaged(case: Case, server18: PostgresServer) -> None:
    scene, _ = case
    none = Snapshot({}, [], [], [])
    assert list(checks.check_new(scene, none)) == []
    (artifact,) = folder_of(case).rglob("*.dump")
    artifact.chmod(0o600)
    artifact.write_bytes(bytes(artifact.stat().st_size))
    assert "does not verify" in "".join(checks.check_new(scene, none))


def test_an_older_backup_that_is_damaged_or_removed(case: Case) -> None:
    folder = folder_of(case)
    (artifact,) = folder.rglob("*.dump")
    artifact.chmod(0o600)
    with artifact.open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    found = list(checks.check_older(*case))
    assert [line for line in found if line.endswith("differs")]
    assert "does not verify" in found[-1]
    (folder / "manifest.json").unlink()
    assert "is no longer listed" in "".join(checks.check_older(*case))
    assert list(checks.check_older(*case, lambda folder: True)) == []


def test_what_a_listing_shows(case: Case) -> None:
    folder = folder_of(case)
    (artifact,) = folder.rglob("*.dump")
    artifact.unlink()
    assert "not complete" in "".join(checks.check_listing(case[0]))
    (folder / "manifest.json").unlink()
    assert list(checks.check_listing(case[0])) == [], "a repair removes it"


def test_a_process_that_survives(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = case
    monkeypatch.setattr(checks, "PATIENCE", 0.0)
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={"TMPDIR": str(scene.tmp)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert f"{process.pid} survives" in "".join(checks.check_processes(scene))
        process.communicate()
    assert list(checks.check_processes(scene)) == []


def test_a_session_that_survives(case: Case, server18: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATIENCE", 0.0)
    with server18.params.connect() as session:
        session.execute("set application_name = 'pg_dump'")
        assert "a session survives: pg_dump" in "".join(checks.check_processes(case[0]))


def test_what_is_left(case: Case, server18: PostgresServer) -> None:
    scene, before = case
    (scene.tmp / "pgbackup-private-0").mkdir(mode=0o700)  # a leftover that the sweep removes
    (scene.tmp / "file").touch()
    (folder_of(case) / "verification-20260101T000000Z-archive-pass.json").write_text(f'"{SECRET}"')
    with server18.params.connect() as session:
        for statement in ("create database pgbackup_tmp_0123456789ab_0", "create database other", "create role other"):
            session.execute(statement.encode())
    try:
        found = list(checks.check_leftovers(scene, before))
        expected = ["temporary files: ", "a new database: other", "a new role: other", "a secret is in "]
        assert [line.startswith(start) for line, start in zip(found, expected, strict=True)] == [True] * 4
        assert [line for line in checks.check_leftovers(scene, before, lambda name: True) if "database" in line] == []
    finally:
        with server18.params.connect() as session:
            session.execute("drop database other")
            session.execute("drop role other")
