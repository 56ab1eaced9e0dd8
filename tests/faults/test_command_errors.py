"""Each command meets each error of the file system at each call, and its user meets no Python exception.

``make test`` tries a sample of both, ``make test ALL=1`` all of them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty_files import FaultyFiles

from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from tests.sampling import all_combinations, sample

ERRORS = (
    "EACCES", "EPERM", "ENOSPC", "EROFS", "EIO", "ENOENT", "ENOTDIR", "EISDIR", "EMFILE", "ENFILE", "ENAMETOOLONG",
    "ELOOP", "ESTALE", "EDQUOT", "ETIMEDOUT", "EBUSY", "EEXIST", "EINVAL", "ENOMEM", "ENXIO", "ENOTSUP", "EXDEV",
    "ENOTEMPTY", "EINTR", "EAGAIN", "EFBIG", "EOVERFLOW", "EHOSTDOWN",
)  # fmt: skip
NUMBERS = [getattr(errno, name) for name in ERRORS]

# What each command does here; {directory} holds the repository, another one, and what else they read or write.
ARGUMENTS: dict[str, str] = {
    "init": "file://{directory}/new",
    "list": "{here} --all --label *",
    "show": "{here} prod/app",
    "diff": "{here} prod/app",
    "check": "{here} --server prod",
    "dump": "{here} --server prod --verify integrity",
    "verify": "{here} prod/app",
    "drill": "{here}",
    "upload": "{here} prod/app --to {there}",
    "rewrap": "{here} prod/app --recipient age1jj3walya49nny598a9t8f27wkaszedrzfujfvns6l0t2suyz9e2spp806z",
    "get": "{here} prod/app --into {directory}/into",
    "restore": "{here} prod/app -d postgres --mode into_existing --use-list {directory}/use.list --dry-run",
    "refresh": "{here} prod/app -d staging --dry-run",
    "prune": "{here} --keep-last 1 --minimum-level integrity --delete",
    "freshness": "{here}",
    "metrics": "{here} --output {directory}/pgbackup.prom",
    "report": "{here} --html {directory}/report.html --plot {directory}/report.png",
    "pin": "{here} prod/app latest --reason why",
    "unpin": "{here} prod/app latest",
    "undelete": "{here}",
    "fsck": "{here} --read 100% --repair",
    "adopt": "{here} {directory}/old --server old --yes --verify integrity",
    "dump-set": "{here} --server prod --database app --verify integrity",
    "restore-set": "{here} prod --prefix copy_ --dry-run",
    "mask": "init {directory}/masking.yaml",
    "demo": "--dump {directory}/use.list",
    "completion": "bash",
}
# Commands that talk to servers meet the errors at fewer calls.
SLOW = {
    "drill": 6,
    "dump": 20,
    "dump-set": 10,
    "refresh": 20,
    "restore": 20,
    "restore-set": 10,
    "check": 15,
    "mask": 10,
}


def test_every_command_is_tried() -> None:
    assert ARGUMENTS.keys() == {command.name for command in COMMANDS}


@pytest.fixture(scope="module")
def database(server18: PostgresServer) -> Iterator[ConnectionParams]:
    with server18.params.connect() as session:
        session.execute("create database app")
        session.execute("create database staging")
    database = server18.params.with_database("app")
    with database.connect() as session:
        session.execute("create table film as select n from generate_series(1, 100) n")
    yield database
    with server18.params.connect() as session:
        session.execute("drop database app with (force)")
        session.execute("drop database staging with (force)")


@pytest.fixture
def variables(database: ConnectionParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection in the environment, as a user gives it."""
    for name, value in variables_of(database).items():
        monkeypatch.setenv(name, value)


def variables_of(database: ConnectionParams) -> dict[str, str]:
    return {
        "PGHOST": database.host,
        "PGPORT": database.port,
        "PGUSER": database.user,
        "PGDATABASE": database.dbname,
        "PGPASSWORD": str(database.password),
    }


@pytest.fixture(scope="module")
def original(database: ConnectionParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two repositories; the first one has two backups, verified. And files to adopt and to use."""
    directory = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables_of(database).items():
            environment.setenv(name, value)
        here, there = f"file://{directory}/here", f"file://{directory}/there"
        assert main(["init", here]) == main(["init", there]) == 0
        for _ in range(2):
            assert main(["dump", here, "--server", "prod", "--verify", "archive"]) == 0
        assert main(["dump-set", here, "--server", "prod", "--database", "app"]) == 0
    (directory / "into").mkdir()
    dump = next(directory.glob("here/prod/app/*/*/*.dump"))
    listed = subprocess.run([postgres_bin_dir(18) / "pg_restore", "--list", dump], capture_output=True, check=True)
    (directory / "use.list").write_bytes(listed.stdout)
    (directory / "old").mkdir()
    script = "--\n-- PostgreSQL database dump\n--\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
    (directory / "old/app_2026-11-20.sql").write_text(script)
    return directory


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def run(
    variables: None, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[Ended, FaultyFiles]]]:
    """``run(command, number, fails)``: run it on a copy of the original where calls fail with this error number."""
    directory = tmp_path / "case"

    def run(command: str, number: int, fails: Callable[[int], bool]) -> tuple[Ended, FaultyFiles]:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(original, directory)
        here, there = f"file://{directory}/here", f"file://{directory}/there"
        given = ARGUMENTS[command].format(directory=directory, here=here, there=there).split()
        capsys.readouterr()
        files = FaultyFiles(directory, number, fails)
        with files.at_work():
            status = main([command, *given, "--json"])
        return Ended(status, *capsys.readouterr()), files

    yield run
    shutil.rmtree(directory.parent, ignore_errors=True)


def check_end(ended: Ended, what: str) -> None:
    """Check what a user sees, whatever happened."""
    seen = f"{what}\n{ended}"
    assert "Traceback" not in ended.err, seen
    assert "internal error" not in ended.err + ended.out, seen
    assert ended.status in set(EXIT_STATUS.values()) - {EXIT_STATUS["internal error"]}, seen
    document = ended.document
    if isinstance(document, dict) and "error" in document and "exit_status" in document["error"]:
        error = document["error"]
        assert error["exit_status"] == ended.status != 0, seen
        assert error["message"] and error["message"][-1] not in ".\n", seen
        assert error["hint"] is None or error["hint"].endswith("."), seen
        assert "Errno" not in error["message"], seen
        assert f": {error['message']}\n" in ended.err, seen
    else:
        assert ended.status in (EXIT_STATUS[name] for name in ("done", "failed", "check failed", "not proven")), seen


@pytest.mark.parametrize("command", ARGUMENTS)
def test_each_call_fails_once(command: str, run: Callable[..., tuple[Ended, FaultyFiles]]) -> None:
    good, files = run(command, 0, lambda call: False)
    check_end(good, command)
    # The demo refuses this file; its own files are in a directory that it makes.
    assert good.status == EXIT_STATUS["usage" if command == "demo" else "done"], good
    calls = range(1, len(files.calls) + 1)
    for call in calls[:: max(1, len(calls) // SLOW[command])] if command in SLOW else sample(calls, 7):
        number = NUMBERS[call % len(NUMBERS)]
        ended, files = run(command, number, lambda now, call=call: now == call)
        check_end(ended, f"{command}: {os.strerror(number)} at call {call}: {files.calls[call - 1 :][:1]}")


@pytest.mark.parametrize(
    "command", [command for command in ARGUMENTS if command not in ("completion", "demo", "drill")]
)
def test_each_error_from_some_call_on(command: str, run: Callable[..., tuple[Ended, FaultyFiles]]) -> None:
    _, files = run(command, 0, lambda call: False)
    half = len(files.calls) // 2
    for number in sample(NUMBERS, 3):
        for first in (1, half) if command not in SLOW and all_combinations() else (1,):
            ended, files = run(command, number, lambda call, first=first: call >= first)
            check_end(ended, f"{command}: {os.strerror(number)} from call {first} on: {files.calls[first - 1 :][:1]}")
            assert first > 1 or ended.status != EXIT_STATUS["done"], ended
