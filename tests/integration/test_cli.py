"""The command line as a new user meets it, in processes of its own, where no Airflow is configured."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup import cli
from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]


def environment(database: ConnectionParams, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PGHOST": database.host,
        "PGPORT": database.port,
        "PGUSER": database.user,
        "PGDATABASE": database.dbname,
        "PGPASSWORD": str(database.password),
        **more,
    }


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table film (film_id int primary key, title text)",
        "insert into film select n, 'film ' || n from generate_series(1, 1000) n",
    )


@pytest.fixture
def run(database: ConnectionParams, assert_no_canary: Callable[[object], None]) -> Run:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*PROGRAM, *arguments], env=environment(database, **more), capture_output=True, text=True, timeout=120
        )
        assert_no_canary(done.stdout + done.stderr)
        assert "Traceback" not in done.stderr
        return done

    return run


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_asks_no_server_starts_without_the_driver(tmp_path: Path) -> None:
    """psycopg takes as long to import as all the rest of such a command."""
    loaded = "import sys; from airflow_pgbackup.cli import main; main(); print({'psycopg', 'airflow'} & {*sys.modules})"
    for arguments in (["init"], ["list"], ["fsck"], ["prune", "--keep-last", "1"]):
        command = [sys.executable, "-c", loaded, arguments[0], f"file://{tmp_path}/r", *arguments[1:]]
        done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120)
        assert done.stdout.splitlines()[-1] == "set()", done


def test_from_init_to_restore(run: Run, tmp_path: Path, database: ConnectionParams, server18: PostgresServer) -> None:
    here = f"file://{tmp_path}/repository"
    assert as_json(run("init", here, "--json"))["repository"] == here
    dumped = as_json(run("dump", here, "--server", "prod", "-o", "format=directory", "-o", "jobs=2", "--json"))
    series = dumped["series"]
    assert (dumped["format"], dumped["verified"]) == ("directory", None)
    assert as_json(run("verify", here, series, "--json"))["verified"] == "archive"

    listed = run("list", here)
    assert series in listed.stdout
    assert "verified: archive" in listed.stdout
    shown = as_json(run("show", here, series, "--json"))
    assert shown["verifications"][0]["tables"][0]["rows"] == 1000
    assert shown["manifest"]["restore_command"] in run("show", here, series, COLUMNS="300").stdout

    there = f"file://{tmp_path}/other"
    run("init", there)
    assert as_json(run("upload", here, series, "--to", there, "--json"))["verified"] == "archive"

    (tmp_path / "out").mkdir()
    got = as_json(run("get", there, series, "--into", str(tmp_path / "out"), "--json"))
    assert (Path(got["path"]) / "toc.dat").is_file()
    refused = run("get", there, series, "--into", "/proc")
    assert "cannot make a private directory in /proc" in refused.stderr
    assert "--into" in refused.stderr.partition("hint")[2].splitlines()[0]

    copy = f"{database.dbname}_copy"
    plan = run("restore", there, series, "-d", copy, "--mode", "create", "--dry-run")
    assert "this would be done" in plan.stdout
    restored = run("restore", there, series, "-d", copy, "--mode", "create")
    assert "next: " in restored.stdout
    with server18.params.with_database(copy).connect() as session:
        assert session.execute("select count(*) from film").fetchone() == (1000,)
    with server18.params.connect() as session:
        session.execute(f'drop database "{copy}" with (force)')


def test_a_cluster_rehearsed(run: Run, tmp_path: Path) -> None:
    here = f"file://{tmp_path}"
    run("init", here)
    done = run("dump", here, "--server", "prod", "--cluster", "-o", "compress=zstd", "--verify", "restore", "--json")
    assert as_json(done)["verified"] == "restore"
    assert as_json(done)["artifact"].endswith(".sql.zst")


def test_in_s3(run: Run, s3: S3Server) -> None:
    here = f"s3://{s3.bucket()}/pg"
    settings = {
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    as_json(run("init", here, "--json", **settings))
    as_json(run("dump", here, "--server", "prod", "--verify", "archive", "--json", **settings))
    assert "verified: archive" in run("list", here, **settings).stdout
    store = {**settings, "PGBACKUP_S3": json.dumps({"extra_args": {"CacheControl": "no-store"}})}
    copied = f"{here}-copied"
    as_json(run("init", copied, "--json", **store))
    (series,) = {one["series"] for one in as_json(run("list", here, "--json", **settings))}
    as_json(run("upload", here, series, "--to", copied, "--json", **store))
    bucket, _, prefix = copied.removeprefix("s3://").partition("/")
    keys = [one["Key"] for one in s3.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{series}")["Contents"]]
    assert {s3.client().head_object(Bucket=bucket, Key=key)["CacheControl"] for key in keys} == {"no-store"}
    for nonsense, said in (
        ("[]", "the variable PGBACKUP_S3 is not a JSON object"),
        ("{", "the variable PGBACKUP_S3 is not a JSON object"),
        ("[" * 100_000, "the variable PGBACKUP_S3 is not a JSON object"),
        ('{"acl": 1}', "the variable PGBACKUP_S3 has unknown keys: acl"),
        ('{"extra_args": ["ACL"]}', "extra_args is a list, not a mapping"),
        ('{"max_parts": Infinity}', "max_parts is inf"),
    ):
        refused = run("list", here, **{**settings, "PGBACKUP_S3": nonsense})
        assert refused.returncode == EXIT_STATUS["usage"]
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) <= 2, "what was found, and a hint"
    wrong = run("list", here, **{**settings, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert wrong.returncode == EXIT_STATUS["failed"]
    assert "hint: " in wrong.stderr


def test_temporary_files_for_s3_are_in_temp_dir(run: Run, s3: S3Server, tmp_path: Path) -> None:
    here, there = f"s3://{s3.bucket()}/pg", f"s3://{s3.bucket()}/copy"
    settings = {
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    nowhere = {**settings, "PGBACKUP_TEMP_DIR": str(tmp_path / "nowhere")}
    as_json(run("init", here, "--json", **settings)), as_json(run("init", there, "--json", **settings))
    dump = ("dump", here, "--server", "prod", "-o", "format=directory")
    series = as_json(run(*dump, "--verify", "integrity", "--json", **settings))["series"]
    upload = ("upload", here, series, "--to", there, "--minimum-level", "integrity")
    for command in (dump, upload):
        refused = run(*command, **nowhere)
        assert refused.returncode == EXIT_STATUS["failed"]
        assert f"cannot make a private directory in {tmp_path}/nowhere" in refused.stderr
    as_json(run(*upload, "--json", **settings, PGBACKUP_TEMP_DIR=str(tmp_path)))


def test_invalid_settings_are_one_line(run: Run, tmp_path: Path) -> None:
    for name, value in (("DUMP_DEADLINE", "inf"), ("VERIFY_DEADLINE", "nan"), ("LOCK_WAIT_TIMEOUT", "1e300")):
        refused = run("list", f"file://{tmp_path}", **{f"PGBACKUP_{name}": value})
        assert refused.returncode == EXIT_STATUS["usage"]
        assert f"setting {name.lower()} is '{value}'" in refused.stderr


def test_a_reader_of_the_output_may_leave(run: Run, tmp_path: Path, database: ConnectionParams) -> None:
    """As with ``| head``: the work is done, and the exit status is that of the work."""
    here = f"file://{tmp_path}/here"
    run("init", here)

    def unread(*arguments: str, stderr: bool = False) -> subprocess.CompletedProcess[str]:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return subprocess.run(
                [*PROGRAM, *arguments],
                env=environment(database),
                stdout=writer,
                stderr=writer if stderr else subprocess.PIPE,
                text=True,
                timeout=240,
            )
        finally:
            os.close(writer)

    dumped = unread("dump", here, "--server", "p", "--verify", "archive", stderr=True)
    assert dumped.returncode == 0
    (backup,) = as_json(run("list", here, "--json"))
    assert backup["verified"] == "archive"
    for command in (("list", here), ("list", here, "--json"), ("show", here, backup["series"])):
        done = unread(*command)
        assert (done.returncode, done.stderr) == (0, "")
    (artifact,) = tmp_path.glob("here/*/*/*/*/*.dump")
    artifact.write_bytes(b"")
    assert unread("verify", here, backup["series"]).returncode == EXIT_STATUS["check failed"]


def test_a_broken_pipe_of_the_work_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(session: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("airflow_pgbackup.cli.cmd_list.run", broken)
    assert main(["list", f"file://{tmp_path}"]) == EXIT_STATUS["failed"]
    assert capsys.readouterr().err == "pgbackup list: broken pipe\n"


def test_latest_is_the_newest_verified_one_and_a_newer_one_is_named(
    run: Run, tmp_path: Path, database: ConnectionParams
) -> None:
    here, there, series = f"file://{tmp_path}/here", f"file://{tmp_path}/there", f"p/{database.dbname}"
    run("init", here), run("init", there)

    def dump(*options: str) -> str:
        time.sleep(1 - time.time() % 1)  # two of one second are none after the other
        return str(as_json(run("dump", here, "--server", "p", "--json", *options))["id"])

    first = dump()
    none = run("show", here, series)
    assert none.returncode == EXIT_STATUS["failed"]
    assert f"is verified at level integrity; the newest of 1, {first}, is not verified yet" in none.stderr
    assert f"such as {first}" in none.stderr
    assert as_json(run("show", here, series, first, "--json"))["state"] == "written"
    assert as_json(run("verify", here, series, "--json"))["id"] == first, "what is not verified yet is to be verified"

    second = dump()
    assert " unverified" in run("list", here).stdout
    for command in (("show", here, series), ("upload", here, series, "--to", there), ("get", here, series)):
        into = ("--into", str(tmp_path)) if command[0] == "get" else ()
        done = run(*command, *into, "--json")
        assert done.returncode == 0, done.stderr
        assert f"warning: newer backup {series}/{second} is not verified yet; using {first}" in done.stderr
        assert second not in done.stdout
    (artifact,) = (tmp_path / f"here/{series}/{second}").glob("*/*.dump")
    artifact.write_bytes(artifact.read_bytes()[:-1])
    assert run("verify", here, series).returncode == EXIT_STATUS["check failed"], "the newest, whatever its state"
    plan = run("restore", here, series, "-d", "copy", "--mode", "create", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert f"warning: newer backup {series}/{second} failed verification; using {first}" in plan.stderr
    assert "states are by file names; show, verify and restore read the files" in run("list", here).stdout


@pytest.fixture
def tampered(run: Run, tmp_path: Path) -> Callable[..., tuple[str, str, str]]:
    """``tampered(field=value)``: a repository whose one backup has a manifest with other fields; its series and id."""

    def make(**changes: Any) -> tuple[str, str, str]:
        here = f"file://{tmp_path}/here"
        run("init", here)
        dumped = as_json(run("dump", here, "--server", "p", "--verify", "archive", "--json"))
        file = tmp_path / "here" / dumped["series"] / dumped["id"] / "manifest.json"
        content = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps(content).replace('"1e999"', "1e999"))
        return here, dumped["series"], dumped["id"]

    return make


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"client": {"tool": "pg_dump", "version": "abc", "path": ""}},
            "violates its schema at client/version: 'abc' does not match",
        ),
        ({"duration_seconds": 1e300}, "violates its schema at duration_seconds"),
        ({"duration_seconds": "1e999"}, "the number 1e999 is not finite"),
    ],
)
def test_a_manifest_with_absurd_values_is_refused_in_one_line(
    run: Run, tmp_path: Path, tampered: Callable[..., tuple[str, str, str]], changes: dict[str, Any], said: str
) -> None:
    backup = tampered(**changes)
    for command in (("show",), ("get", "--into", str(tmp_path)), ("restore", "--dry-run"), ("verify",)):
        done = run(command[0], *backup, *command[1:])
        assert done.returncode == EXIT_STATUS["failed"]
        assert said in done.stderr
        assert len(done.stderr.splitlines()) <= 2, "what was found, and a hint"


def test_the_command_in_a_manifest_is_not_shown(
    run: Run, tmp_path: Path, tampered: Callable[..., tuple[str, str, str]]
) -> None:
    backup = tampered(restore_command="touch /tmp/marker; pg_restore")
    shown, got = run("show", *backup, "--json"), run("get", *backup, "--into", str(tmp_path), "--json")
    command = as_json(got)["restore_command"]
    assert command.startswith("createdb --template template0 -- ")
    assert as_json(shown)["manifest"]["restore_command"] == command
    assert "marker" not in shown.stdout + got.stdout + run("show", *backup).stdout


def test_prune_deletes_only_with_delete(run: Run, tmp_path: Path) -> None:
    here = f"file://{tmp_path}"
    run("init", here)
    ids = [as_json(run("dump", here, "--server", "p", "--verify", "integrity", "--json"))["id"] for _ in range(2)]
    policy = ("--keep-last", "1", "--minimum-level", "integrity")
    assert "1 would be deleted" in run("prune", here, *policy).stdout
    assert len(as_json(run("list", here, "--all", "--json"))) == 2
    assert as_json(run("prune", here, *policy, "--delete", "--json"))["removed"] == 1
    assert [one["id"] for one in as_json(run("list", here, "--all", "--json"))] == [max(ids)]
    nonsense = run("prune", here)
    assert nonsense.returncode == EXIT_STATUS["usage"]
    assert "no rule" in nonsense.stderr


def test_adopt(run: Run, tmp_path: Path, database: ConnectionParams, server18: PostgresServer) -> None:
    old, here = tmp_path / "old", f"file://{tmp_path}/repository"
    old.mkdir()
    subprocess.run(
        [server18.bin_dir / "pg_dump", "-Fc", "-f", old / "nightly.dump"], env=environment(database), check=True
    )
    (old / "notes.txt").write_text("not a dump")
    run("init", here)
    adopted = as_json(run("adopt", here, str(old), "--server", "old", "--yes", "--json"))
    assert [one["series"] for one in adopted["adopted"]] == [f"old/{database.dbname}"]
    assert as_json(run("verify", here, f"old/{database.dbname}", "--json"))["verified"] == "archive"


def test_check_finds_what_prevents_a_backup(run: Run, tmp_path: Path) -> None:
    fine = run("check", "--server", "prod")
    assert fine.returncode == 0
    stopped = run("check", f"file://{tmp_path}", "--server", "prod")
    assert stopped.returncode == EXIT_STATUS["check failed"]
    assert "HINT: " in stopped.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "commands:"),
        (("list",), 2, "required: REPOSITORY"),
        (("list", "/var/backups"), 2, "Write file:///var/backups."),
        (("list", "file:///no/such/folder"), 1, "pgbackup init"),
        (("dump", "file:///x", "-d", "postgres://u:p@h/x"), 2, "not a connection string"),
        (("dump", "file:///x", "--password", "p"), 2, "unrecognized arguments"),
        (("dump", "file:///x", "-o", "job=2"), 2, "Did you mean 'jobs'?"),
        (("verify", "file:///x", "nonsense"), 2, "is not a series"),
        (("verify", "file:///x", "a/b", "--level", "best"), 2, "invalid --level 'best'"),
        (("restore", "file:///x", "a/b", "--mod", "create"), 2, "unrecognized arguments"),
    ],
)
def test_an_invalid_request_is_refused(run: Run, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert said in done.stderr


def test_a_wrong_password(run: Run, tmp_path: Path) -> None:
    here = f"file://{tmp_path}"
    run("init", here)
    done = run("dump", here, "--server", "p", PGPASSWORD="wrong")
    assert done.returncode == EXIT_STATUS["failed"]
    assert "password authentication failed" in done.stderr
    assert "hint: " in done.stderr


def test_interrupted_half_way(database: ConnectionParams, tmp_path: Path, run: Run) -> None:
    here = f"file://{tmp_path}"
    run("init", here)
    with database.connect(autocommit=False) as session:
        session.execute("lock table film in access exclusive mode")
        process = subprocess.Popen(
            [*PROGRAM, "dump", here, "--server", "p"],
            env=environment(database),
            stderr=subprocess.PIPE,
            text=True,
        )
        with database.connect() as other:
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"
            end = time.monotonic() + 60
            while other.execute(waiting, [database.dbname]).fetchone() == (0,):
                assert time.monotonic() < end
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == EXIT_STATUS["interrupted"]
    assert "Traceback" not in said
    assert as_json(run("list", here, "--all", "--json")) == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["repository.json"]


def test_every_command_has_help_and_a_module(run: Run) -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("cmd_*.py")}
    assert {command.module for command in COMMANDS} == modules
    for command in COMMANDS:
        done = run(command.name, "--help")
        assert done.returncode == 0
        assert command.name in done.stdout


def test_nothing_of_airflow_is_loaded() -> None:
    code = "import sys; from airflow_pgbackup.cli import main, run; print('airflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
