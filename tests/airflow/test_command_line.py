"""``airflow pgbackup``: Airflow's connections and settings, JSON alone on stdout, errors as those of ``pgbackup``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.airflow import with_connections
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(airflow_db: Path, assert_no_canary: Callable[[object], None], s3: S3Server) -> Run:
    """``run(*arguments, **variables)``: ``airflow pgbackup``; no secret is in what it prints."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow", "pgbackup", *arguments]
        done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, timeout=600)
        assert_no_canary(done.stdout + done.stderr)
        assert s3.secret_key not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def as_json(done: subprocess.CompletedProcess[str], status: str = "done") -> Any:
    """The one document on stdout."""
    assert done.returncode == EXIT_STATUS[status], done.stderr
    return json.loads(done.stdout)


def test_airflows_connections(
    run: Run,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    s3: S3Server,
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, "create table film as select n from generate_series(1, 10) n")
    postgres_connection("prod_pg", database)
    aws_connection("store")
    here = f"s3://{s3.bucket()}/pg"
    store = ("--aws-conn-id", "store", "--json")
    server = ("--postgres-conn-id", "prod_pg")
    assert as_json(run("init", here, *store))["repository"] == here
    dumped = run("dump", here, *server, *store, "--verify", "archive")
    reference = as_json(dumped)
    assert reference["series"] == f"prod_pg/{database.dbname}", "the series of a connection is named by its id"
    assert "AWS Connection" in dumped.stderr, "Airflow's own log goes to stderr"

    local = f"file://{tmp_path}"
    as_json(run("init", local, "--json"))
    as_json(run("upload", here, reference["series"], "--to", local, *store))
    listed = run("list", here, "--aws-conn-id", "store")
    assert (listed.returncode, reference["id"] in listed.stdout) == (0, True)
    assert "AWS Connection" not in listed.stdout

    copy = f"{database.dbname}_copy"
    restore = ("restore", local, reference["series"], *server, "-d", copy, "--mode", "create", "--json")
    assert as_json(run(*restore))["target"].endswith(f"/{copy}")
    with server18.params.with_database(copy).connect() as session:
        assert session.execute("select count(*) from film").fetchone() == (10,)
    with server18.params.connect() as session:
        session.execute(f'drop database "{copy}"')

    artifact = next(tmp_path.glob("*/*/*/*/*.dump"))
    artifact.write_bytes(artifact.read_bytes()[:-1])
    error = as_json(run("verify", local, reference["series"], "--json"), "check failed")["error"]
    assert (error["kind"], error["exit_status"]) == ("VerificationFailed", 3)
    assert error["problems"] and error["problems"][0].startswith("integrity: ")


def test_connections_that_cannot_be_used(run: Run, postgres_connection: Callable[..., None], server18: Any) -> None:
    postgres_connection("prod_pg", server18.params)
    for arguments, message in (
        (("check", "--postgres-conn-id", "nosuch"), "Airflow has no connection 'nosuch'"),
        (("list", "s3://bucket/pg", "--aws-conn-id", "nosuch"), "Airflow has no connection 'nosuch'"),
        (
            ("check", "--postgres-conn-id", "prod_pg", "--host", "other"),
            "--host cannot be combined with --postgres-conn-id",
        ),
    ):
        done = run(*arguments, "--json")
        error = as_json(done, "usage")["error"]
        assert (error["kind"], error["message"]) == ("ConfigurationError", message)
        assert f"airflow pgbackup {arguments[0]}: {message}\n" in done.stderr


@pytest.mark.parametrize("where", ["variable", "airflow.cfg"])
def test_airflows_settings(run: Run, tmp_path: Path, where: str) -> None:
    if where == "variable":
        more = {"AIRFLOW__PGBACKUP__VERIFY_DEADLINE": "soon"}
    else:
        config = tmp_path / "airflow.cfg"
        config.write_text("[pgbackup]\nverify_deadline = soon\n")
        more = {"AIRFLOW_CONFIG": str(config)}
    error = as_json(run("list", f"file://{tmp_path}", "--json", **more), "usage")["error"]
    assert error["message"] == "setting verify_deadline is 'soon'"
    assert "[pgbackup] verify_deadline" in error["hint"]


def test_wrong_arguments(run: Run, tmp_path: Path) -> None:
    for arguments, message in (
        (("list",), "the following arguments are required: REPOSITORY"),
        (("list", "file:///x", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("prune", "file:///x", "--keep-last", "many"), "argument --keep-last: invalid int value: 'many'"),
    ):
        done = run(*arguments, "--json")
        error = as_json(done, "usage")["error"]
        assert (error["kind"], error["message"]) == ("UsageError", message)
        assert error["hint"] == f"Run airflow pgbackup {arguments[0]} --help to see the arguments."
        assert done.stderr.endswith(f"airflow pgbackup {arguments[0]}: {message}\nhint: {error['hint']}\n")
    here = f"file://{tmp_path}"
    as_json(run("init", "--json", PGBACKUP_REPOSITORY=here))
    assert as_json(run("list", "--aws-conn-id", "aws_default", "--json", PGBACKUP_REPOSITORY=here)) == []


def test_options_of_one_program_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """pgbackup knows no Airflow, so it has no option for its connections; each command of Airflow's has its own."""
    ours = {"--postgres-conn-id": "--host", "--aws-conn-id": "repository", "--destination-aws-conn-id": "--to"}
    for command in COMMANDS:
        flags = {flag for argument in command.arguments for flag in argument.flags}
        all_flags = {flag for argument in with_connections(command).arguments for flag in argument.flags}
        assert all_flags - flags == {flag for flag, beside in ours.items() if beside in flags}, command.name
    assert main(["list", "file:///x", "--aws-conn-id", "a"]) == EXIT_STATUS["usage"]
    assert "unrecognized arguments: --aws-conn-id a" in capsys.readouterr().err
