"""The check of the disk on which a dump in directory format is written before it is uploaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_pgbackup.backup.check.repository import check_space
from airflow_pgbackup.backup.findings import Finding, Findings
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.settings import Settings

APP = Series("prod", "app")
STORE: Any = SimpleNamespace(uri="s3://backups", free_bytes=lambda prefix: None)
LAST: Any = SimpleNamespace(size=2000, series=APP)


@pytest.mark.parametrize(("full", "expected"), [("the system's", []), ("the setting's", ["temp_full"])])
def test_the_disk_of_temp_dir_is_measured(
    full: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(directory: str) -> SimpleNamespace:
        return SimpleNamespace(free=1000 if (directory == str(tmp_path)) == (full == "the setting's") else 10**6)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = check(tmp_path)
    assert [finding.code for finding in found] == expected
    assert all(str(tmp_path) in finding.message and "temp_dir" in finding.hint for finding in found)


def test_a_temp_dir_that_does_not_exist(tmp_path: Path) -> None:
    (found,) = check(tmp_path / "missing")
    assert (found.code, found.severity) == ("temp_full", "error")
    assert "missing: No such file" in found.message


def test_without_a_writable_directory_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    (found,) = check("")
    assert found.code == "temp_full"
    assert found.message == "no writable directory for temporary files: No usable temporary directory found in ['/tmp']"
    assert "Set TMPDIR" in found.hint


def check(temp_dir: Path | str) -> list[Finding]:
    findings = Findings()
    settings = Settings(temp_dir=str(temp_dir))
    check_space(STORE, APP, [LAST], None, DumpOptions(format="directory"), settings, findings)
    return findings.all
