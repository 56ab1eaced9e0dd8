"""A volume is unmounted, or another one mounted, while many backups are worked on: nothing is written to what is there
now, nothing is removed elsewhere, and the run does not end as if all were well."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup

from airflow_pgbackup.backup.adopt import carry_out, open_sources, plan_adoption
from airflow_pgbackup.backup.bulk import BackupResult, upload_all, verify_all, worst
from airflow_pgbackup.errors import RepositoryMismatch, RepositoryNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository

NOW = datetime.now(timezone.utc)
each_way = pytest.mark.parametrize("now", ["nothing", "an empty directory", "another repository"])


def repository_at(path: Path, backups: int = 0) -> Repository:
    repository = LocalRepository(path)
    repository.init()
    for night in range(backups):
        write_backup(repository, Series("prod", "app"), NOW - timedelta(days=night + 1))
    return repository


def unmount(repository: Repository, now: str) -> list[Path]:
    """Put something else in the place of the repository; return what is in it."""
    root = Path(repository.uri.removeprefix("file://"))
    root.rename(root.with_name("unmounted"))
    if now != "nothing":
        root.mkdir()
    if now == "another repository":
        repository_at(root)
    return files(repository)


def files(repository: Repository) -> list[Path]:
    return sorted(Path(repository.uri.removeprefix("file://")).rglob("*"))


def rest(results: Iterator[BackupResult], repository: Repository, now: str) -> list[BackupResult]:
    """Take one result, then the others while something else is there."""
    next(results)
    before = unmount(repository, now)
    found = list(results)
    assert files(repository) == before
    return found


@each_way
def test_many_verifications(tmp_path: Path, now: str) -> None:
    repository = repository_at(tmp_path / "pg", backups=3)
    results = rest(verify_all(repository=repository, level="integrity"), repository, now)
    assert [one.outcome for one in results] == ["error", "error"]
    assert worst(results) == "error"


@each_way
@pytest.mark.parametrize("end", ["source", "destination"])
def test_many_uploads(tmp_path: Path, now: str, end: str) -> None:
    source, destination = repository_at(tmp_path / "source" / "pg", backups=3), repository_at(tmp_path / "to" / "pg")
    results = upload_all(source=source, destination=destination, minimum_level=None)
    found = rest(results, source if end == "source" else destination, now)
    assert [one.outcome for one in found] == ["error", "error"]


@each_way
@pytest.mark.parametrize("when", ["before a copy", "before a removal"])
def test_a_move_into_it(tmp_path: Path, now: str, when: str) -> None:
    repository = repository_at(tmp_path / "pg")
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    for day in (1, 2):
        text = (
            f"--\n-- PostgreSQL database dump\n--\n\nSELECT {day};\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
        )
        (dumps / f"crm_2025-03-0{day}.sql").write_text(text)
    plan = plan_adoption(repository=repository, sources=open_sources([dumps]), server="s")
    calls: list[Any] = []
    there: list[Path] = []

    def verify(reference: Any) -> dict[str, object]:
        calls.append(reference)
        if when == "before a removal":
            there.extend(unmount(repository, now))
        return dict(reference)

    if when == "before a copy":
        there.extend(unmount(repository, now))
    with pytest.raises((RepositoryNotFound, RepositoryMismatch)):
        carry_out(plan, move=True, verify=verify)
    assert len(calls) == (when == "before a removal")
    assert len(list(dumps.iterdir())) == 2
    assert files(repository) == there
