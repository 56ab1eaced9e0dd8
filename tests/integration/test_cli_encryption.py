"""Keys of age and SQL checks on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyrage

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]


def test_from_a_dump_to_a_rehearsal(
    tmp_path: Path, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    database = fresh_database(server18, None, "create table film (id int)", "insert into film values (1)")
    owner = pyrage.x25519.Identity.generate()
    key, checks, into = tmp_path / "key.txt", tmp_path / "checks.yaml", tmp_path / "into"
    key.write_text(str(owner))
    key.chmod(0o600)
    checks.write_text("checks:\n  - {name: films, sql: select count(*) = 1 from film}\n")
    into.mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PGHOST": database.host,
        "PGPORT": database.port,
        "PGUSER": str(database.user),
        "PGPASSWORD": str(database.get_password()),
        "PGDATABASE": database.dbname,
    }
    repository = f"file://{tmp_path}/pg"

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == status, done.stderr
        assert str(owner) not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    run("init", repository)
    public = str(owner.to_public())
    made = run("dump", repository, "--server", "s", "--recipient", public, "--verify", "archive", "--json")
    assert json.loads(made.stdout)["verified"] == "archive"  # while it was written: no secret key was given
    series = f"s/{database.dbname}"
    assert public in run("show", repository, series).stdout
    rehearse = ("verify", repository, series, "--level", "restore", "--checks", str(checks))
    assert "no identity was given" in run(*rehearse, status=4).stderr
    assert "sql check 'films': true" in run(*rehearse, "--identity", str(key)).stderr
    typo = tmp_path / "typo.yaml"
    typo.write_text("checks:\n  - {name: films, sqll: select true}\n")
    refused = run("verify", repository, series, "--level", "restore", "--checks", str(typo), status=2)
    assert f"{typo}: a check has the unknown field 'sqll'" in refused.stderr
    assert "invalid --check" in run(*rehearse, "--check", "nonsense", status=2).stderr
    copied = run("get", repository, series, "--into", str(into), "--identity", str(key), "--json")
    assert not json.loads(copied.stdout)["path"].endswith(".age")
    wrong = run(*rehearse, "--identity", str(key), "--check", "more=select count(*) > 1, count(*) from film", status=3)
    assert "sql check 'more': false" in wrong.stderr
    assert "The backup restores, but" in wrong.stderr
    run("dump", repository, "--server", "plain", "--verify", "integrity")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("get", repository, f"plain/{database.dbname}", "--into", str(elsewhere), "--identity", "/nonexistent")
    key.chmod(0o644)
    assert "Run chmod 600 on it." in run(*rehearse, "--identity", str(key), status=2).stderr
    assert (
        "a secret key was given as a recipient"
        in run("dump", repository, "--server", "s", "--recipient", str(owner), status=2).stderr
    )
