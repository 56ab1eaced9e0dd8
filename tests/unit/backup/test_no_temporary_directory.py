"""A container with a read-only root file system, which has no writable directory for temporary files."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.errors import DiskError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.settings import Settings


@pytest.fixture(autouse=True)
def _none_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']")

    monkeypatch.setattr("tempfile.gettempdir", none)


def test_leftovers_are_swept_where_the_setting_says(tmp_path: Path) -> None:
    with PrivateDirectory(tmp_path) as left:
        (left / ".lock").unlink()
        (left / ".lock").touch()  # of a process that does not exist any more
        swept = sweep_leftovers(RunContext(settings=Settings(temp_dir=str(tmp_path))))
    assert str(left) in swept


def test_a_tool_needs_one_and_the_hint_says_how_to_name_it() -> None:
    environment = client_environment(ConnectionParams(keywords={"host": "db"}))
    with pytest.raises(DiskError, match="no writable directory for temporary files") as caught, environment:
        pass
    assert caught.value.hint
    assert "Set TMPDIR" in caught.value.hint
    assert "temp_dir" not in caught.value.hint
