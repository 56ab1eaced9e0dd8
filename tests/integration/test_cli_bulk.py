"""``verify --all``, ``upload --all``, ``drill``, ``freshness``, ``pin`` and ``unpin`` as a user meets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from honest import write_backup, write_verification

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.open import open_repository

APP, OTHER, SHOP = Series("prod", "app"), Series("prod", "other"), Series("test", "shop")
PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def repository_at(path: Path) -> Repository:
    made = open_repository(f"file://{path}")
    made.init()
    return made


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return repository_at(tmp_path / "pg")


@pytest.fixture
def now() -> datetime:
    """The start of the test: ages are printed, and the tests of a module can be hours apart."""
    return datetime.now(timezone.utc).replace(microsecond=0)


@pytest.fixture
def run() -> Run:
    def run(*arguments: str, status: str = "done", **more: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}
        done = subprocess.run([*PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == EXIT_STATUS[status], done.stderr
        assert "Traceback" not in done.stderr
        assert not [character for character in done.stdout + done.stderr if character < " " and character != "\n"]
        return done

    return run


def of_outcome(document: dict[str, Any], outcome: str) -> list[str]:
    return [f"{one['series']}/{one['id']}" for one in document["results"] if one["outcome"] == outcome]


# -- verify --all, drill -----------------------------------------------------------------------------------------------


@pytest.fixture
def dumped(
    repository: Repository, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> dict[str, dict[str, Any]]:
    """Four backups: good, damaged, one that cannot be rehearsed, and one of another server; by the name of each."""
    database = fresh_database(
        server18, None, "create table film (id int)", "insert into film select generate_series(1, 500)"
    )
    made: dict[str, dict[str, Any]] = {}
    for name, server, options in (
        ("damaged", "a-damaged", DumpOptions()),
        ("good", "b-good", DumpOptions()),
        ("data only", "c-data-only", DumpOptions(data_only=True)),
        ("small", "d-small", DumpOptions(tables=["film"])),
    ):
        made[name] = dump_database(connection=database, server=server, repository=repository, options=options)
    path = repository.local_path(str(made["damaged"]["key"]))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return made


def test_verify_all_continues_after_failures_and_ends_with_the_worst(
    run: Run, repository: Repository, dumped: dict[str, dict[str, Any]]
) -> None:
    name = {key: f"{one['series']}/{one['id']}" for key, one in dumped.items()}
    done = run("verify", repository.uri, "--all", "--level", "restore", status="check failed")
    assert f"failed: {name['damaged']}: backup" in done.stderr
    assert f"not proven: {name['data only']}: " in done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "4 backups: 2 verified, 1 failed, 1 not proven, 0 skipped"
    assert lines[1].startswith(f"failed      {name['damaged']}")
    assert lines[2].startswith(f"not proven  {name['data only']}")

    again = run(
        "verify", repository.uri, "--all", "--unverified", "--level", "restore", "--json", status="check failed"
    )
    document = json.loads(again.stdout)
    assert document["summary"] == {"failed": 1, "error": 0, "not proven": 1, "done": 0, "skipped": 2}
    assert set(of_outcome(document, "skipped")) == {name["good"], name["small"]}
    (skipped,) = [one for one in document["results"] if one["series"].startswith("b-good")]
    assert skipped["reason"] == "it is verified at level restore already"

    sound = run("verify", repository.uri, "--all", "--server", "b-good", "--json")
    (one,) = json.loads(sound.stdout)["results"]
    assert (one["outcome"], one["reference"]["verified"]) == ("done", "restore")
    unproven = run(
        "verify", repository.uri, str(dumped["data only"]["series"]), "--all", "--level", "restore", status="not proven"
    )
    assert unproven.stdout.splitlines()[-1] == "1 backup: 0 verified, 0 failed, 1 not proven, 0 skipped"
    archive = run("verify", repository.uri, "--all", "--server", "c-data-only")
    assert archive.stdout == "1 backup: 1 verified, 0 failed, 0 not proven, 0 skipped\n"


def test_a_drill_comes_round_to_every_series(
    run: Run, repository: Repository, dumped: dict[str, dict[str, Any]]
) -> None:
    seen: dict[str, str] = {}
    sizes = {name: int(one["size"]) for name, one in dumped.items()}
    for name in sorted(sizes, key=lambda name: sizes[name]):
        status = {"damaged": "check failed", "data only": "not proven"}.get(name, "done")
        # This size lets one series in at a time: the smallest of those that were never rehearsed.
        done = run("drill", repository.uri, "--max-size", "1", "--json", status=status)
        (result,) = json.loads(done.stdout)["results"]
        seen[result["series"]] = result["outcome"]
    assert seen == {
        str(dumped["good"]["series"]): "done",
        str(dumped["small"]["series"]): "done",
        str(dumped["data only"]["series"]): "not proven",
        str(dumped["damaged"]["series"]): "failed",
    }
    everything = json.loads(run("drill", repository.uri, "--json", status="not proven").stdout)
    assert everything["summary"] == {"failed": 0, "error": 0, "not proven": 1, "done": 2, "skipped": 0}
    run("drill", repository.uri, "--max-size", "much", status="usage")
    run("drill", repository.uri, "--max-size", "0", status="usage")


def test_newest_is_counted_in_each_series(run: Run, repository: Repository, now: datetime) -> None:
    for hours in (1, 2, 3):
        write_backup(repository, APP, now - timedelta(hours=hours))
        write_backup(repository, SHOP, now - timedelta(hours=hours))
    found = json.loads(
        run(
            "verify", repository.uri, "--all", "--newest", "2", "--level", "integrity", "--json", status="check failed"
        ).stdout
    )
    ids = {series: sorted(repository.folders(series.path))[1:] for series in (APP, SHOP)}
    assert of_outcome(found, "failed") == [f"{s.path}/{id}" for s in (APP, SHOP) for id in reversed(ids[s])]
    for arguments, said in (
        (["--all", "--newest", "0"], "invalid number of backups 0"),
        (["prod/app", "--newest", "1"], "--newest is only for --all"),
        (["prod/app", "--unverified"], "--unverified is only for --all"),
        ([], "neither a series nor --all"),
        (["prod/app", ids[APP][0], "--all"], "--all cannot be combined with the ID"),
        (["--all", "--level", "much"], "invalid --level 'much'"),
        (["--all", "--scratch"], "cannot be combined with level archive"),
    ):
        assert said in run("verify", repository.uri, *arguments, status="usage").stderr


def test_nothing_to_verify(run: Run, repository: Repository) -> None:
    assert run("verify", repository.uri, "--all").stdout == "0 backups: 0 verified, 0 failed, 0 not proven, 0 skipped\n"


# -- upload --all ------------------------------------------------------------------------------------------------------


def test_upload_all(run: Run, repository: Repository, tmp_path: Path, now: datetime) -> None:
    there = repository_at(tmp_path / "there")
    good = [write_backup(repository, series, now - timedelta(hours=1)) for series in (APP, SHOP)]
    unverified = write_backup(repository, OTHER, now - timedelta(hours=1), looks=())
    damaged = write_backup(repository, OTHER, now - timedelta(hours=2))
    path = repository.local_path(damaged.artifact_key)
    assert path is not None
    path.write_bytes(b"54321")
    done = run("upload", repository.uri, "--all", "--to", there.uri, status="check failed")
    lines = done.stdout.splitlines()
    assert lines[-1] == "4 backups: 2 uploaded, 1 failed, 1 skipped"
    assert f"prod/other/{damaged.id}" in lines[2]
    assert f"skipped  prod/other/{unverified.id}" in lines[1]
    assert "it is not verified yet, and archive is required" in lines[1]
    for manifest in good:
        assert there.folders(manifest.series.path) == [manifest.id]
    again = json.loads(run("upload", repository.uri, "--all", "--to", there.uri, "--server", "test", "--json").stdout)
    (one,) = again["results"]
    assert (one["outcome"], one["reason"]) == ("skipped", f"it is already in {there.uri}")
    assert (
        "source and destination are the same repository"
        in run("upload", repository.uri, "--all", "--to", repository.uri, status="usage").stderr
    )


def test_upload_all_copies_the_failure_of_what_it_skips(
    run: Run, repository: Repository, tmp_path: Path, now: datetime
) -> None:
    there = repository_at(tmp_path / "there")
    manifest = write_backup(repository, APP, now - timedelta(hours=1))
    run("upload", repository.uri, "--all", "--to", there.uri)
    write_verification(repository, manifest, "restore", "fail", now)
    done = run("upload", repository.uri, "--all", "--to", there.uri)
    assert "it failed verification, and archive is required" in done.stdout
    assert read_evidence(there, APP, manifest.id).backup.state == "failed"


def test_upload_all_reports_a_damaged_copy_of_what_it_skips(
    run: Run, repository: Repository, tmp_path: Path, now: datetime
) -> None:
    there = repository_at(tmp_path / "there")
    manifest = write_backup(repository, APP, now - timedelta(hours=1))
    run("upload", repository.uri, "--all", "--to", there.uri)
    write_verification(there, manifest, "archive", "fail", now)
    again = ("upload", repository.uri, "--all", "--to", there.uri, "--minimum-level", "restore")
    done = run(*again, status="check failed")
    assert done.stdout.splitlines()[-1] == "1 backup: 0 uploaded, 1 failed, 0 skipped"
    assert "is a copy that failed verification" in done.stdout


def test_an_error_of_one_backup_is_not_that_of_the_run(
    run: Run, repository: Repository, tmp_path: Path, now: datetime
) -> None:
    there = repository_at(tmp_path / "there")
    manifest = write_backup(repository, APP, now - timedelta(hours=1))
    write_backup(repository, SHOP, now - timedelta(hours=1))
    # Another dump of that id.
    write_backup(there, APP, now - timedelta(hours=1), members={"app.dump": b"other"})
    done = run("upload", repository.uri, "--all", "--to", there.uri, status="failed")
    assert done.stdout.splitlines()[-1] == "2 backups: 1 uploaded, 0 failed, 1 error, 0 skipped"
    assert f"error  prod/app/{manifest.id}" in done.stdout


# -- freshness ---------------------------------------------------------------------------------------------------------


def test_freshness(run: Run, repository: Repository, now: datetime) -> None:
    fresh = write_backup(repository, APP, now - timedelta(hours=5))
    stale = write_backup(repository, SHOP, now - timedelta(hours=50))
    done = run("freshness", repository.uri, status="check failed")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["series", "newest", "verified", "age", "level", "target", "state"]
    assert lines[1] == ["prod/app", fresh.id, "5", "h", ANY, "min", "archive", "26h", "fresh"]
    assert lines[2] == ["test/shop", stale.id, "2", "d", "2", "h", "archive", "26h", "NOT", "FRESH"]
    assert re.search(rf"test/shop: the newest backup verified at archive, {stale.id}, is 50\.[0-9] h old", done.stdout)
    assert done.stdout.splitlines()[-1] == "2 series: 1 fresh, 1 not fresh"
    run("freshness", repository.uri, "--max-age", "3d")
    run("freshness", repository.uri, "--server", "prod")
    run("freshness", repository.uri, "--exclude", "test/*")
    found = json.loads(run("freshness", repository.uri, "--json", status="check failed").stdout)
    assert [one["fresh"] for one in found["series"]] == [True, False]


def test_freshness_of_named_databases(run: Run, repository: Repository, now: datetime) -> None:
    write_backup(repository, APP, now - timedelta(hours=5))
    run("freshness", repository.uri, "--server", "prod", "--database", "app")
    missing = run("freshness", repository.uri, "--server", "prod", "--database", "gone", status="check failed")
    assert missing.stdout.splitlines()[1].split() == ["prod/gone", "-", "-", "-", "26h", "NOT", "FRESH"]
    assert "prod/gone: no backup" in missing.stdout
    assert (
        "prod/@cluster"
        in run("freshness", repository.uri, "--server", "prod", "--cluster", status="check failed").stdout
    )
    run("freshness", repository.uri, "--minimum-level", "restore", status="check failed")
    run("freshness", repository.uri, "--max-age", "soon", status="usage")
    run("freshness", repository.uri, "--max-drop", "2", status="usage")
    run("freshness", repository.uri, "--database", "app", status="usage")


def test_freshness_of_an_empty_repository(run: Run, repository: Repository) -> None:
    done = run("freshness", repository.uri, status="check failed")
    assert f"no backup is in {repository.uri}" in done.stdout


# -- pin, unpin --------------------------------------------------------------------------------------------------------


def test_pin_and_unpin(run: Run, repository: Repository, now: datetime) -> None:
    old, new = (write_backup(repository, APP, now - timedelta(hours=hours)) for hours in (50, 1))
    assert (
        run("pin", repository.uri, "prod/app", old.id, "--reason", "audit").stdout == f"prod/app/{old.id} is pinned\n"
    )
    pin = json.loads(repository.read_bytes(f"{backup_folder(APP, old.id)}/{PIN_FILE}", limit=10_000))
    assert pin["reason"] == "audit"
    assert "is pinned already" in run("pin", repository.uri, "prod/app", old.id, "--reason", "other").stdout
    prune = ("prune", repository.uri, "--keep-last", "1", "--delete", "--json")
    assert json.loads(run(*prune).stdout)["removed"] == 0
    assert json.loads(run("unpin", repository.uri, "prod/app", old.id, "--json").stdout)["pinned"] is False
    assert json.loads(run(*prune).stdout)["removed"] == 1
    assert repository.folders(APP.path) == [new.id]
    changed = json.loads(run("pin", repository.uri, "prod/app", "latest", "--json").stdout)
    assert (changed["id"], changed["changed"]) == (new.id, True)
    for command in ("pin", "unpin"):
        run(command, repository.uri, "prod/app", old.id, status="failed")
        run(command, repository.uri, "prod/app", status="usage")
