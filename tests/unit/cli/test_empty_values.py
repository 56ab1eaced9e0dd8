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
