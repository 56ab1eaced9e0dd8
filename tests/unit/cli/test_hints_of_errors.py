"""Hints for names and URIs that are nearly right."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from honest import write_backup

from airflow_pgbackup.backup.series_selection import nearest
from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.wording import CommandWording
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.time_spans import seconds_of_lag
from airflow_pgbackup.wording import spoken

AT = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    repository = open_repository(f"file://{tmp_path}/pg")
    repository.init()
    for series in (Series("pr/od", "app"), Series("prod", 'we"ird')):
        write_backup(repository, series, AT)
    return repository.uri


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("list {uri} --server nope", "no backup of server nope", "The servers there include prod, pr/od."),
        ("show {uri} pr/od/app", "is not a series", "as pgbackup list shows them: pr%2Fod/app."),
        ('show {uri} prod/we"ird', "is not a series", "as pgbackup list shows them: prod/we%22ird."),
        ("show {uri} pr/od/@cluster", "is not a series", "as pgbackup list shows them: pr%2Fod/@cluster."),
        ("show {uri} prod/app/20261122T020000Z-3f9ac1", "is not a series", "Write server/database, or for backups by"),
        ("freshness {uri} --database app", "without their server", "Give --server, the first part of the series."),
        (
            "restore {uri} prod/app -d x -o dbname=x",
            "dbname",
            "Name the option as its flag: -o no_owner for --no-owner.",
        ),
        ("init file://~/repo", "with the host '~'", "write three slashes: file:///home/me/repo."),
        ("restore-set {uri} pr%2Fod", "has no backup set of pr/od", ""),
    ],
)
def test_hints(
    uri: str, line: str, error: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert main(line.format(uri=uri).split()) in (1, 2)
    shown = capsys.readouterr().err
    assert error in shown
    assert hint in shown


def test_the_nearest_name_ignores_case() -> None:
    assert nearest("upper", ["app", "crm", "UPPER"], most=1) == ["UPPER"]


def test_the_replay_lag_is_an_option_of_the_command_line() -> None:
    (command,) = [one for one in COMMANDS if one.name == "dump"]
    wording = CommandWording(command, program="pgbackup")
    with spoken(wording), pytest.raises(ConfigurationError, match="invalid --max-replay-lag 'x'"):
        seconds_of_lag("x")
