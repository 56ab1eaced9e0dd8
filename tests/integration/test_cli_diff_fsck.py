"""``pgbackup diff`` and ``pgbackup fsck`` as a user meets them: lines, JSON, exit statuses, pipes, terminals."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup, write_verification

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.open import open_repository

NOW = datetime.now(timezone.utc).replace(microsecond=0)
APP, OTHER = Series("prod", "app"), Series("prod", "\x1b[31mred")
PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]
UTIME_COUNTS = "from airflow_pgbackup.repository.local import tree; tree._grown = lambda status: status.st_mtime; "

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = open_repository(f"file://{tmp_path}/pg")
    made.init()
    for night, series in ((2, APP), (1, APP), (1, OTHER)):
        write_backup(made, series, NOW - timedelta(days=night))
    return made


@pytest.fixture
def run() -> Run:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}
        done = subprocess.run([*PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr
        assert "\x1b[31mred" not in done.stdout + done.stderr
        return done

    return run


def ids(repository: Repository, series: Series = APP) -> list[str]:
    return sorted(repository.folders(series.path))


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


# -- diff --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "60"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_the_last_two_by_default(repository: Repository, run: Run, environment: dict[str, str]) -> None:
    done = run("diff", repository.uri, "prod/app", **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    old, new = ids(repository)
    assert lines[0].startswith(f"before: prod/app {old}, custom, verified: archive; rows: verification archive of ")
    assert lines[1].startswith(f"after:  prod/app {new}, custom, verified: archive; ")
    assert "tables: 0 dropped, 0 added, 0 changed, 1 unchanged" in lines
    assert "not compared:" in lines
    assert any(line.startswith("  definitions: the table of contents of") for line in lines)
    named = run("diff", repository.uri, "prod/app", old, new)
    assert named.stdout == run("diff", repository.uri, "prod/app", old).stdout


def test_the_json_of_diff(repository: Repository, run: Run) -> None:
    found = as_json(run("diff", repository.uri, "prod/app", "--json"))
    assert [found["before"]["id"], found["after"]["id"]] == ids(repository)
    assert (found["same"], found["same_series"], found["tables_unchanged"]) == (None, True, 1)
    assert {one["what"] for one in found["not_compared"]} >= {"definitions", "bytes by table", "locale"}


def test_a_backup_of_another_series(repository: Repository, run: Run) -> None:
    (other,) = ids(repository, OTHER)
    done = run("diff", repository.uri, "prod/app", ids(repository)[0], f"{OTHER.path}/{other}")
    assert done.returncode == 0, done.stderr
    assert "note: the backups are of two series, prod/app and prod/\\x1b[31mred" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["prod/nosuch"], 1, "has 0 backups of prod/nosuch that can be read; two are needed"),
        (["prod/app", "20200101T000000Z-abcdef"], 1, "backup prod/app/20200101T000000Z-abcdef does not exist"),
        (["prod/app", "nope", "nope"], 2, "nope"),
        (["nothing"], 2, "nothing"),
    ],
)
def test_errors_of_diff(repository: Repository, run: Run, arguments: list[str], status: int, said: str) -> None:
    done = run("diff", repository.uri, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "hint:" in done.stderr


def test_names_of_a_database_are_shown_and_obeyed_by_no_terminal(
    run: Run, tmp_path: Path, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    evil = "\x1b[31mred\u202e\nline"
    database = fresh_database(server18, None, "create table a (id int)")
    repository = open_repository(f"file://{tmp_path}/real")
    repository.init()

    def dump() -> None:
        options = DumpOptions(format="directory")
        made = dump_database(connection=database, server="s", repository=repository, options=options)
        verify(reference=made, repository=repository)

    dump()
    with database.connect() as session:
        session.execute(f'create table "{evil}" (id int)')
        session.execute(f'alter table a add column "{evil}" int')
    dump()
    done = run("diff", repository.uri, f"s/{database.dbname}")
    assert done.returncode == 0, done.stderr
    assert not {"\x1b", "\u202e"} & set(done.stdout)
    shown = "\\x1b[31mred\\u202e\\nline"
    assert sum(shown in line for line in done.stdout.splitlines()) >= 2
    found = as_json(run("diff", repository.uri, f"s/{database.dbname}", "--json"))
    assert evil in {one["name"] for one in found["tables"]}


# -- fsck --------------------------------------------------------------------------------------------------------------


def test_a_sound_repository(repository: Repository, run: Run) -> None:
    done = run("fsck", repository.uri, "--read", "100%")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "read 3 of 3 files (100%), 15 bytes of 15 bytes",
        done.stdout.splitlines()[1],
        "no problems found",
    ]
    assert done.stdout.splitlines()[1].startswith("3 backups in 2 series, 9 files, ")


def test_faults_are_named_and_the_status_is_3(repository: Repository, run: Run) -> None:
    folder = f"{APP.path}/{ids(repository)[0]}"
    path = repository.local_path(f"{folder}/app.dump")
    assert path is not None
    path.write_bytes(b"1234")
    done = run("fsck", repository.uri)
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"error[artifact_size] {folder}/app.dump: has 4 bytes, expected 5. HINT: ")
    assert lines[-1] == "1 error, 0 warnings"
    report = run("fsck", repository.uri, "--json")
    assert report.returncode == 3
    found = as_json(report)
    assert (found["sound"], found["errors"], found["findings"][0]["code"]) == (False, 1, "artifact_size")
    path.write_bytes(b"1234x")
    assert run("fsck", repository.uri).returncode == 0
    read = run("fsck", repository.uri, "--read", "1/1")
    assert read.returncode == 3
    assert read.stdout.startswith(f"error[checksum] {folder}/app.dump: checksum mismatch: expected sha256 ")


def test_a_repair(repository: Repository, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", [*PROGRAM[:2], UTIME_COUNTS + PROGRAM[2]])
    left = write_backup(repository, APP, NOW - timedelta(days=9), committed=False)
    folder = backup_folder(left.series, left.id)
    young = run("fsck", repository.uri, "--repair")
    assert young.stdout.startswith(f"note[running] {folder}: no manifest, ")
    old = (NOW - timedelta(days=3)).timestamp()
    path = repository.local_path(folder)
    assert path is not None
    for file in path.iterdir():
        os.utime(file, (old, old))
    before = run("fsck", repository.uri)
    assert before.returncode == 0
    assert before.stdout.splitlines()[-1] == "0 errors, 1 warning; 1 can be repaired (--repair)"
    slow = run("fsck", repository.uri, "--repair", "--grace", "4d")
    assert slow.stdout.startswith(f"note[running] {folder}: no manifest, ")
    for grace, found in ("4d", []), ("2d", [folder]):
        pruned = as_json(run("prune", repository.uri, "--keep-last", "9", "--grace", grace, "--json"))
        assert [one["key"] for one in pruned["leftovers"]] == found
    repaired = run("fsck", repository.uri, "--repair")
    assert repaired.stdout.startswith(f"repaired[incomplete] {folder}: ")
    assert repaired.stdout.splitlines()[-1] == "0 errors, 0 warnings; 1 repaired"
    assert repaired.stderr.startswith(f"removed {folder}, ")
    assert run("fsck", repository.uri).stdout.splitlines()[-1] == "no problems found"


def test_names_are_shown_and_obeyed_by_no_terminal(repository: Repository, run: Run) -> None:
    path = repository.local_path("prod")
    assert path is not None
    (path / "\x1b[31mred").touch()
    done = run("fsck", repository.uri)
    assert "\\x1b[31mred" in done.stdout
    assert as_json(run("fsck", repository.uri, "--json"))["findings"][0]["key"] == "prod/\x1b[31mred"


@pytest.mark.parametrize("share", ["few", "5", "0%", "4/3"])
def test_a_share_that_is_none(repository: Repository, run: Run, share: str) -> None:
    done = run("fsck", repository.uri, "--read", share)
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid share" in done.stderr


def test_no_repository(tmp_path: Path, run: Run) -> None:
    done = run("fsck", f"file://{tmp_path}/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no repository at" in done.stderr


def test_head_takes_one_line(repository: Repository) -> None:
    manifest = read_manifest(repository, APP, ids(repository)[0])
    write_verification(repository, manifest, "archive", "pass", NOW - timedelta(days=30))
    command = shlex.join([*PROGRAM, "fsck", repository.uri]) + " | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("warning[verification_time] ")
