"""What a local repository removes with the files of an interrupted write."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_pgbackup.repository.open import open_repository

KEY = "prod/app/20261120T010203Z-0badca/a1b2c3d4/app.dump"


@pytest.mark.parametrize(
    "made", ["prod/app/20261120T010203Z-0badca/a1b2c3d4", "prod/app/20261120T010203Z-0badca", "prod"]
)
def test_directories_that_a_write_made_before_its_file_are_removed(tmp_path: Path, made: str) -> None:
    repository = open_repository(f"file://{tmp_path}/r")
    repository.init()
    before = sorted(path for path in (tmp_path / "r").rglob("*"))
    (tmp_path / "r" / made).mkdir(parents=True)
    repository.delete([KEY])
    assert sorted(path for path in (tmp_path / "r").rglob("*")) == before
