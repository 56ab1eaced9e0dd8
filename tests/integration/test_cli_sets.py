"""``dump-set``, ``list --sets`` and ``show`` of a set, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from nights import fail, night
from psycopg import sql

from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.set_files import list_sets

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]
ODD = 'Odd "n\'me" 数'

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests alone: they dump all its databases."""
    with PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server:
        with closing(server.params.connect()) as session:
            for name in ("app", ODD):
                session.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        with closing(server.params.with_database("app").connect()) as session:
            session.execute("CREATE TABLE film AS SELECT generate_series(1, 5000) AS id, repeat('x', 100) AS title")
        yield server


@pytest.fixture
def run(server: PostgresServer, here: Repository) -> Run:
    def run(*arguments: str, status: str = "done", **more: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PGHOST": server.params.host,
            "PGPORT": server.params.port,
            "PGUSER": server.params.user,
            "PGPASSWORD": "secret",
            "PGBACKUP_REPOSITORY": here.uri,
            "PGBACKUP_CLIENT_DIRS": str(postgres_bin_dir(18)),
            **more,
        }
        done = subprocess.run([*PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == EXIT_STATUS[status], done.stderr
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stdout + done.stderr
        return done

    return run


def test_a_set_is_made_listed_and_shown(run: Run, here: Repository) -> None:
    made = run("dump-set", "--server", "prod", "--exclude", "postgres", "--jobs", "2")
    (listed,) = list_sets(here)
    lines = made.stdout.splitlines()
    assert lines[0].split() == ["set", f"prod/@sets/{listed.id},", "complete"]
    assert lines[-1] == "the databases of a set are not one snapshot: each was dumped at its own time"
    members = [line.split()[0] for line in lines if line.startswith("prod/")]
    assert members == ["prod/@globals", "prod/app", "prod/Odd%20%22n%27me%22%20%E6%95%B0"]
    assert "left out: postgres (excluded)" in lines
    assert "left out: template1 (it is a template)" in lines
    shown = run("list", "--sets").stdout.splitlines()
    assert shown[0].split() == ["set", "age", "databases", "missing", "size", "status"]
    assert shown[1].split()[0] == f"prod/@sets/{listed.id}"
    assert shown[1].split()[-1] == "complete"
    assert shown[-1] == "1 backup set of 1 server"
    for name in ("prod/@sets", f"prod/@sets/{listed.id}"):
        assert run("show", name).stdout == made.stdout
    document = json.loads(run("show", "prod/@sets", listed.id, "--json").stdout)
    assert (document["status"], document["snapshot"], len(document["databases"])) == ("complete", False, 2)
    (one,) = json.loads(run("list", "--sets", "--json").stdout)
    assert one == {**document, "set": listed.location}
    app = next(each for each in document["databases"] if each["series"] == "prod/app")
    shutil.rmtree(Path(here.uri.removeprefix("file://")) / app["series"] / app["id"])
    shown = run("show", f"prod/@sets/{listed.id}").stdout.splitlines()
    assert shown[-1] == "cannot be used: app does not exist"
    document = json.loads(run("show", f"prod/@sets/{listed.id}", "--json").stdout)
    assert document["unusable"] == [{"database": "app", "reason": "does not exist"}]


def test_one_that_fails_holds_up_no_other_and_is_named(run: Run, here: Repository, server: PostgresServer) -> None:
    with closing(server.params.with_database(ODD).connect()) as session:
        session.execute("CREATE TABLE IF NOT EXISTS locked (id int)")
        session.execute("BEGIN")
        session.execute("LOCK TABLE locked")
        failed = run(
            "dump-set", "--server", "prod", "--no-globals", "-o", "lock_wait_timeout=1s", "--exclude", "postgres",
            status="failed",
        )  # fmt: skip
    (listed,) = list_sets(here)
    assert listed.status == "partial"
    assert f"backup set prod/@sets/{listed.id} in {here.uri} is partial: missing {ODD} (" in failed.stderr
    assert "hint: The lines above name the cause of each failure. Remove it, and run the command again" in failed.stderr
    assert "lock" in failed.stderr
    lines = run("show", f"prod/@sets/{listed.id}").stdout.splitlines()
    assert [line for line in lines if line.startswith(f"missing: {ODD} (")]
    run("show", "prod/@sets", status="failed")  # the default is the newest complete set
    assert run("list", "--sets").stdout.splitlines()[1].split()[-1] == "partial"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verify", "deep"], "invalid --verify 'deep'"),
        (["--jobs", "0"], "invalid number of jobs 0"),
        (["--database", "gone"], r"missing: gone (does not exist)"),
        (["-o", "no_such"], "unknown pg_dump option 'no_such'"),
    ],
)
def test_invalid_requests(run: Run, here: Repository, arguments: list[str], message: str) -> None:
    assert message in run("dump-set", "--server", "prod", *arguments, status="usage").stderr
    assert list_sets(here) == []


def test_a_set_restored_beside_the_databases_and_what_stops_it(
    run: Run, here: Repository, server: PostgresServer
) -> None:
    run("dump-set", "--server", "prod", "--database", "app", "--verify", "none")
    wrong = run("restore-set", "prod", status="failed", PGPASSWORD="wr0ng")
    assert "password authentication failed" in wrong.stderr
    assert "\nhint: " in wrong.stderr
    assert "wr0ng" not in wrong.stdout + wrong.stderr
    taken = run("restore-set", "prod", status="usage")
    assert "already has database app\n" in taken.stderr
    assert "hint: Give --prefix to restore beside them, name the databases to restore, or use " in taken.stderr
    assert "hint: PostgreSQL truncates names to 63 bytes: choose a shorter --prefix." in run(
        "restore-set", "prod", "--prefix", "x" * 61, status="usage"
    ).stderr  # fmt: skip
    try:
        for arguments, env in (("dump-set", {"NO_COLOR": "1"}), ("restore-set", {"TERM": "dumb"})):
            piped = run(*PLAIN[arguments], **env)
            assert piped.stdout
            assert not re.search(r"[^\x20-\U0010ffff\n]", piped.stdout + piped.stderr)
        with closing(server.params.with_database("restored_app").connect()) as session:
            assert session.execute("SELECT count(*) FROM film").fetchone() == (5000,)
    finally:
        with closing(server.params.connect()) as session:
            session.execute("DROP DATABASE IF EXISTS restored_app WITH (FORCE)")


PLAIN = {
    "dump-set": ["dump-set", "--server", "prod", "--database", "app", "--verify", "none"],
    "restore-set": ["restore-set", "prod", "--prefix", "restored_"],
}


def test_without_a_repository_nothing_is_dumped(run: Run, tmp_path: Path) -> None:
    failed = run("dump-set", (tmp_path / "unmounted").as_uri(), "--server", "prod", status="failed")
    assert "no repository at file://" in failed.stderr
    assert "dumping" not in failed.stderr


def test_a_set_with_a_failed_backup_is_listed_as_damaged(here: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    made = night(here, 0, "app", "crm")
    fail(here, made.databases[1])
    assert main(["list", "--sets", here.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-1] == "damaged"
    assert lines[2] == f"{made.location}: crm failed verification"
    assert main(["list", "--sets", here.uri, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["status"] == "damaged"
    assert one["unusable"] == [{"database": "crm", "reason": "failed verification"}]
    assert main(["show", here.uri, f"{made.location}"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-1] == "damaged"
