"""Requests that were ignored with exit status 0 are errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_pgbackup.cli import main
from airflow_pgbackup.repository.open import open_repository


@pytest.fixture
def uri(tmp_path: Path) -> str:
    repository = open_repository(f"file://{tmp_path}/pg")
    repository.init()
    return repository.uri


@pytest.mark.parametrize("flag", ["--drop-old", "--keep-sessions"])
@pytest.mark.parametrize("mode", [[], ["--mode", "create"]])
def test_an_option_of_another_mode(flag: str, mode: list[str], uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", uri, "prod/app", flag, *mode]) == 2
    assert f"{flag} is only for --mode replace" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["init", "check"])
def test_masking_rules_need_a_database(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    rules = tmp_path / "rules.yaml"
    if action == "check":
        rules.write_text("tables_without_rules: keep\ncolumns: {public.t.a: keep}\n")
    assert main(["mask", action, str(rules), "-H", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no database given for " in error
    assert "hint: Set --dbname or PGDATABASE." in error


@pytest.mark.parametrize("command", ["prune --keep-last 1", "fsck --repair"])
@pytest.mark.parametrize(
    ("grace", "says"), [("0h", "Give at least 1 hour: a shorter"), ("30min", "'30min' is not a time span")]
)
def test_a_grace_that_is_none(
    command: str, grace: str, says: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *options = command.split()
    assert main([verb, uri, *options, "--grace", grace]) == 2
    assert says in capsys.readouterr().err


def test_help_that_cannot_be_written() -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())", "--help"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (1, "pgbackup: cannot write to stdout\n")


# -- adopt -------------------------------------------------------------------------------------------------------------


def test_a_named_file_that_is_skipped(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "old"
    directory.mkdir()
    (directory / "app.dump").write_bytes(b"not a dump")
    assert main(["adopt", uri, str(directory), "--server", "s", "--yes"]) == 0
    assert main(["adopt", uri, str(directory / "*.dump"), "--server", "s", "--yes"]) == 0
    assert main(["adopt", uri, str(directory / "app.dump"), "--server", "s", "--yes"]) == 1
    assert main(["adopt", uri, str(directory / "app.dump"), "--server", "s", "--dry-run"]) == 1
    assert "skipped app.dump: not a dump of PostgreSQL" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["*.dump", "*/x", "**/*.sql"])
def test_a_glob_that_matches_nothing(
    pattern: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    assert main(["adopt", uri, f"{tmp_path}/old/{pattern}", "--server", "s", "--yes"]) == 2
    assert f"nothing matches {tmp_path}/old/{pattern}" in capsys.readouterr().err
