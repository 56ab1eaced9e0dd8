"""Each row of the exit-status table, and what ``--json`` prints then."""

from __future__ import annotations

import errno
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import botocore.exceptions
import psycopg
import pytest
from honest import write_backup

from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

DOCS = Path(__file__).parents[2] / "docs/reference/cli.md"
NOW = datetime.now(timezone.utc).replace(microsecond=0)
APP = Series("prod", "app")

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def instead(patch: Patch, command: str, action: Callable[[], object]) -> None:
    """Let a command do this instead of its work."""
    module = SimpleNamespace(run=lambda session: action())
    patch.setitem(sys.modules, f"airflow_pgbackup.cli.cmd_{command}", module)  # type: ignore[arg-type]


def raising(error: BaseException) -> Callable[..., object]:
    def action(**given: object) -> None:
        raise error

    return action


def damage(repository: Repository) -> None:
    (path,) = repository.local_path(f"prod/app/{repository.folders('prod/app')[0]}").glob("*.dump")  # type: ignore[union-attr]
    path.write_bytes(b"other")


def copy_of(repository: Repository) -> str:
    return f"{repository.uri}-copy"


def damage_and_make_copy(repository: Repository) -> None:
    damage(repository)
    open_repository(copy_of(repository)).init()


# What ends each way: the arguments, with names for places, and what is done before.
ROWS: dict[str, list[tuple[str, Callable[[Patch, Repository], object]]]] = {
    "done": [("list REPOSITORY", lambda patch, repository: None)],
    "failed": [
        ("list file:///no/such/directory", lambda patch, repository: None),
        ("show REPOSITORY prod/nothing", lambda patch, repository: None),
    ],
    "usage": [
        ("verify REPOSITORY prod/app --level best", lambda patch, repository: None),
        ("list REPOSITORY --nonsense", lambda patch, repository: None),
        ("list", lambda patch, repository: None),
    ],
    "check failed": [
        ("verify REPOSITORY prod/app", lambda patch, repository: damage(repository)),
        ("verify REPOSITORY --all", lambda patch, repository: damage(repository)),
        ("drill REPOSITORY", lambda patch, repository: damage(repository)),
        ("fsck REPOSITORY --read 100%", lambda patch, repository: damage(repository)),
        ("get REPOSITORY prod/app 20 --into DIRECTORY", lambda patch, repository: damage(repository)),
        ("upload REPOSITORY prod/app 20 --to COPY", lambda patch, repository: damage_and_make_copy(repository)),
        ("freshness REPOSITORY --max-age 1h", lambda patch, repository: None),
        ("check REPOSITORY -H 127.0.0.1 -p 1 -d app -U u", lambda patch, repository: None),
    ],
    "not proven": [
        ("verify REPOSITORY prod/app", lambda patch, repository: instead(patch, "verify", raising(NotProven("no")))),
        (
            "drill REPOSITORY",
            lambda patch, repository: patch.setattr("airflow_pgbackup.backup.bulk.verify", raising(NotProven("no"))),
        ),
    ],
    "internal error": [
        ("list REPOSITORY", lambda patch, repository: instead(patch, "list", raising(ValueError("no such thing")))),
    ],
    "interrupted": [
        (f"{command} REPOSITORY", lambda patch, repository, number=number, command=command: instead(  # type: ignore[misc]
            patch, command, lambda: signal.raise_signal(number)
        ))
        for command, number in (("init", signal.SIGINT), ("list", signal.SIGTERM), ("fsck", signal.SIGHUP))
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """As on a terminal: under nohup SIGHUP is ignored, and in the background of a shell SIGINT."""
    wanted = {signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    previous = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def repository(here: Repository) -> Repository:
    write_backup(here, APP, NOW - timedelta(hours=2))
    return here


def test_the_table_in_the_documentation_has_these_rows() -> None:
    section = DOCS.read_text().partition("## Exit status")[2]
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == list(EXIT_STATUS.values())


def test_each_row_has_a_test() -> None:
    assert [row for row, cases in ROWS.items() if cases] == list(EXIT_STATUS)


@pytest.mark.parametrize(("row", "case"), [(row, case) for row, cases in ROWS.items() for case in range(len(cases))])
def test_each_row(row: str, case: int, repository: Repository, monkeypatch: Patch, capsys: Capture) -> None:
    arguments, before = ROWS[row][case]
    before(monkeypatch, repository)
    named = {"REPOSITORY": repository.uri, "DIRECTORY": repository.uri.removeprefix("file://")}
    named["COPY"] = copy_of(repository)
    given = [named.get(part, part) for part in arguments.split()]
    status = main([*given, "--json"])
    out, err = capsys.readouterr()
    assert status == EXIT_STATUS[row], (out, err)
    assert "Traceback" not in err
    document = json.loads(out)
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        error = document["error"]
        assert error.keys() - {"problems"} == {"kind", "message", "hint", "exit_status"}
        assert error["exit_status"] == EXIT_STATUS[row] != 0
        assert f": {error['message']}\n" in err
        assert error["hint"] is None or f"hint: {error['hint']}\n" in err


def test_a_failed_verification_has_its_problems(repository: Repository, capsys: Capture) -> None:
    damage(repository)
    assert main(["verify", repository.uri, "prod/app", "--json"]) == EXIT_STATUS["check failed"]
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "VerificationFailed"
    (problem,) = error["problems"]
    assert problem.startswith("integrity: ")
    assert problem in error["message"]


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_wrong_arguments_of_each_command(command: str, capsys: Capture) -> None:
    assert main([command, "--json", "--no-such-option"]) == EXIT_STATUS["usage"]
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["kind"], error["exit_status"]) == ("UsageError", 2)
    assert error["hint"].endswith(f"Run pgbackup {command} --help to see the arguments.")
    assert err.endswith(f"pgbackup {command}: {error['message']}\nhint: {error['hint']}\n")


# -- errors that no layer has translated -------------------------------------------------------------------------------

CONNECTION_LOST = psycopg.OperationalError("server closed the connection\nDETAIL:  a row: secret")
REFUSED = botocore.exceptions.EndpointConnectionError(endpoint_url="https://s3.example")


@pytest.mark.parametrize(
    ("error", "kind", "message", "status"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "/x/y"), "OSError", "/x/y: no such file", "failed"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "/x", None, "/y"), "OSError", "/x -> /y: invalid", "failed"),
        (OSError("no number"), "OSError", "oserror", "failed"),
        (MemoryError(), "MemoryError", "out of memory", "failed"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError", "the input is nested too", "failed"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates"), "UnicodeError", "text that cannot be", "failed"),
        (UnicodeDecodeError("utf-8", b"a\xff", 1, 2, ""), "UnicodeError", r"bytes that are not utf-8: '\xff", "failed"),
        (CONNECTION_LOST, "psycopg", "PostgreSQL reports: server closed the connection", "failed"),
        (REFUSED, "botocore", "the S3 client failed: Could not connect", "failed"),
        (ModuleNotFoundError("No module named 'boto3'", name="boto3"), "ImportError", "cannot import boto3", "failed"),
        (KeyError("x"), "InternalError", "internal error: KeyError: 'x'", "internal error"),
        (AssertionError(), "InternalError", "internal error: AssertionError: no message", "internal error"),
    ],
)  # fmt: skip
def test_an_error_that_slipped(
    error: Exception, kind: str, message: str, status: str, monkeypatch: Patch, capsys: Capture
) -> None:
    instead(monkeypatch, "list", raising(error))
    assert main(["list", "file:///x", "--json"]) == EXIT_STATUS[status]
    out, err = capsys.readouterr()
    found = json.loads(out)["error"]
    assert found["kind"] == kind
    assert found["message"].startswith(message)
    assert "secret" not in out + err
    assert len(err.splitlines()) == (2 if found["hint"] else 1), err


@pytest.mark.parametrize("how", ["before", "behind", "variable"])
def test_debug_shows_the_trace(how: str, monkeypatch: Patch, capsys: Capture) -> None:
    instead(monkeypatch, "list", raising(ValueError("no such thing")))
    if how == "variable":
        monkeypatch.setenv("PGBACKUP_DEBUG", "1")
    arguments = {"before": ["--debug", "list", "file:///x"], "behind": ["list", "file:///x", "--debug"]}
    assert main([*arguments.get(how, ["list", "file:///x"]), "--json"]) == EXIT_STATUS["internal error"]
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["kind"] == "InternalError"
    assert err.startswith("Traceback (most recent call last):\n")
    assert "\nValueError: no such thing\n" in err
    monkeypatch.setenv("PGBACKUP_DEBUG", "0")
    assert main(["list", "file:///x"]) == EXIT_STATUS["internal error"]
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_in_a_thread_is_one_line(monkeypatch: Patch, capsys: Capture) -> None:
    def work() -> None:
        thread = threading.Thread(target=raising(ValueError("in a thread")))
        thread.start()
        thread.join()

    instead(monkeypatch, "list", work)
    assert main(["list", "file:///x"]) == EXIT_STATUS["done"]
    assert capsys.readouterr().err == "warning: internal error: ValueError: in a thread\n"
