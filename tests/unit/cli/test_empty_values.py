"""An option whose value is empty, as of an unset shell variable, is an error where leaving it out protects less."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_pgbackup.cli import main

REPOSITORY = "file:///nowhere"


@pytest.mark.parametrize(
    ("line", "option"),
    [
        (f"refresh {REPOSITORY} prod/app -d staging --yes --rules", "--rules"),
        (f"refresh {REPOSITORY} prod/app -d staging --yes --checks", "--checks"),
        (f"check {REPOSITORY} -d", "--dbname"),
        (f"verify {REPOSITORY} prod/app --level restore --checks", "--checks"),
        (f"prune {REPOSITORY} --keep-daily 7 --keep-within", "--keep-within"),
        (f"prune {REPOSITORY} --keep-daily 7 --replace-after", "--replace-after"),
        (f"dump {REPOSITORY} -d app --recipient", "--recipient"),
        (f"dump {REPOSITORY} -d app --server", "--server"),
        (f"dump {REPOSITORY} -d app --identity", "--identity"),
        (f"restore {REPOSITORY} prod/app --mode replace -H", "--host"),
        (f"restore {REPOSITORY} prod/app -p", "--port"),
        (f"restore {REPOSITORY} prod/app -U", "--username"),
        (f"restore {REPOSITORY} prod/app --service", "--service"),
        (f"restore {REPOSITORY} prod/app --globals", "--globals"),
        (f"restore {REPOSITORY} prod/app --maintenance-db", "--maintenance-db"),
        (f"restore {REPOSITORY} prod/app -t film -t", "--table"),
        (f"upload {REPOSITORY} prod/app --to", "--to"),
        (f"adopt {REPOSITORY} /nowhere --server", "--server"),
        (f"verify {REPOSITORY} --all", "SERIES"),
    ],
)
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value(
    line: str,
    option: str,
    value: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PGHOST", str(tmp_path))
    assert main([*line.split(), value]) == 2
    error = capsys.readouterr().err
    assert f"{option} is empty" in error
    assert "hint: " in error


def test_a_value_that_is_empty_by_default(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["pin", f"file://{tmp_path}/pg", "prod/app", "latest", "--reason", ""]) == 1
    assert "is empty" not in capsys.readouterr().err
