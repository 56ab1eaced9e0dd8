"""``pgbackup adopt``: the plan, the question at a terminal, a script without ``--yes``, and a verification."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.local.repository import LocalRepository

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "dumb"}


def script(text: str) -> bytes:
    end = "--\n-- PostgreSQL database dump complete\n--\n\n"
    return f"--\n-- PostgreSQL database dump\n--\n\nSELECT '{text}';\n\n{end}".encode()


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    directory = tmp_path / "dumps"
    directory.mkdir()
    (directory / "crm_2025-03-01.sql").write_bytes(script("a"))
    (directory / "crm_2025-03-02_0213.sql.gz").write_bytes(gzip.compress(script("b")))
    (directory / "crm.sql").write_bytes(script("c"))
    (directory / "cut_2025-03-01.sql").write_bytes(script("d")[:60])
    return directory


def run(repository: LocalRepository, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "adopt", repository.uri, *map(str, arguments), "--server", "old"]
    done = subprocess.run(
        command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    return done


def at_terminal(repository: LocalRepository, answer: bytes, *arguments: str | Path) -> tuple[int, str]:
    """Run it on a terminal, and answer when it asks. :return: exit status, and what was shown."""
    command = [*PROGRAM, "adopt", repository.uri, *map(str, arguments), "--server", "old"]
    here, there = pty.openpty()
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=there, stdout=there, stderr=there) as process:
        os.close(there)
        shown, answered = b"", False
        while True:
            try:
                data = os.read(here, 4096)
            except OSError:  # Linux's end of a terminal
                break
            shown += data
            if not answered and b"[y/n]" in shown:
                os.write(here, answer)
                answered = True
        status = process.wait(60)
    os.close(here)
    return status, shown.decode().replace("\r\n", "\n")


def count(repository: LocalRepository) -> int:
    return len(read_catalogue(repository).backups)


def test_a_script_without_yes_changes_nothing_and_says_so(repository: LocalRepository, dumps: Path) -> None:
    done = run(repository, dumps)
    assert done.returncode == EXIT_STATUS["usage"]
    assert "nothing was changed: without a terminal to ask at, adopt needs --yes" in done.stderr
    assert "plan: 3 dumps of 1 series to adopt" in done.stdout
    assert count(repository) == 0
    as_json = run(repository, dumps, "--json")
    assert as_json.returncode == EXIT_STATUS["usage"]
    assert count(repository) == 0


def test_the_plan_says_where_each_time_and_name_comes_from(repository: LocalRepository, dumps: Path) -> None:
    done = run(repository, dumps, "--dry-run")
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("crm")}
    assert re.search(r"old/crm +2025-03-01 12:00 +name ", lines["crm_2025-03-01.sql"])
    assert re.search(r"old/crm +2025-03-02 02:13 +name ", lines["crm_2025-03-02_0213.sql.gz"])
    assert re.search(r"old/crm +2\S+ \S+ +file .*time of the file, which a copy changes", lines["crm.sql"])
    assert "database by name" in lines["crm.sql"]
    assert "skipped cut_2025-03-01.sql: cut_2025-03-01.sql is truncated after 60 bytes" in done.stdout
    assert "time pattern %Y-%m-%d_%H%M: 1 name\n" in done.stdout
    assert "warning: the time of 1 of 3 dumps is that of the file, which a copy changes" in done.stdout
    assert done.stdout.rstrip().endswith("dry run: nothing was changed")
    assert len(lines) == len([line for line in done.stdout.splitlines() if "old/crm" in line]) == 3, "a line for each"
    assert count(repository) == 0
    plan: Any = json.loads(run(repository, dumps, "--dry-run", "--json").stdout)
    assert [one["time_from"] for one in plan["found"]] == ["name", "name", "mtime"]


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x04"], ids=["no", "enter", "end of file"])
def test_a_terminal_is_asked_and_no_changes_nothing(repository: LocalRepository, dumps: Path, answer: bytes) -> None:
    status, shown = at_terminal(repository, answer, dumps)
    assert "Copy 3 dumps (" in shown
    assert "nothing was changed: the plan was not confirmed" in shown
    assert status == EXIT_STATUS["usage"]
    assert count(repository) == 0


def test_yes_at_a_terminal_adopts(repository: LocalRepository, dumps: Path) -> None:
    status, shown = at_terminal(repository, b"y\n", dumps, "--move")
    assert "Move 3 dumps (" in shown
    assert "3 dumps adopted, 1 skipped, 3 sources removed" in shown
    assert (status, count(repository)) == (0, 3)
    assert [path.name for path in dumps.iterdir()] == ["cut_2025-03-01.sql"]


def test_verified_in_the_same_run(repository: LocalRepository, dumps: Path) -> None:
    good, bad = dumps / "crm_2025-03-01.sql", dumps / "crm_2025-03-03.sql"
    bad.write_bytes(b"--\n-- PostgreSQL database dump\n--\n\n\\! id\n" + script("x")[-60:])
    done = run(repository, good, bad, "--yes", "--move", "--verify", "archive", "--json")
    result: Any = json.loads(done.stdout)
    assert done.returncode == EXIT_STATUS["check failed"]
    assert [(one["path"], one["status"]) for one in result["failed"]] == [(bad.name, "failed")]
    assert {one["artifact"]: one["verified"] for one in result["adopted"]} == {good.name: "archive", bad.name: None}
    assert result["removed"] == [good.name]
    assert bad.exists()
    assert {backup.state for backup in read_catalogue(repository).backups} == {"verified", "failed"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--verify", "full"), "full"),
        (("--time-pattern", "%H%M"), "does not give a date"),
        (("--database-pattern", "crm"), "does not name a database"),
        (("--time-zone", "Mars"), "Mars"),
    ],
)
def test_wrong_options(repository: LocalRepository, dumps: Path, arguments: tuple[str, str], error: str) -> None:
    done = run(repository, dumps, *arguments)
    assert done.returncode == EXIT_STATUS["usage"]
    assert error in done.stderr
    assert "HINT" in done.stderr or "hint: " in done.stderr
