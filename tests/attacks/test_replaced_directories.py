"""Somebody puts other directories, or links, in the place of a repository's directories while a backup is written."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.entry import UnfinishedWrite
from airflow_pgbackup.repository.layout import TEMP_PREFIX
from airflow_pgbackup.repository.local import repository as local
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.local.root import Root
from airflow_pgbackup.repository.nofollow import make_directories_below

KEY = "server/db/backup/dump"

Replace = Callable[[Path, Path], None]


def by_a_link(directory: Path, outside: Path) -> None:
    directory.rename(directory.with_name("moved"))
    directory.symlink_to(outside)


def by_another_directory(directory: Path, outside: Path) -> None:
    moved = directory.rename(directory.with_name("moved"))
    for path in [moved, *moved.rglob("*")]:
        if path.is_dir():
            (directory / path.relative_to(moved)).mkdir()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    (directory / "db" / "backup").mkdir(parents=True)
    (directory / "backup").mkdir()
    return directory


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    return repository


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


replaced = pytest.mark.parametrize("where", ["server", "server/db", "server/db/backup"])
how = pytest.mark.parametrize("replace", [by_a_link, by_another_directory])


@replaced
@how
def test_while_a_stream_is_written(
    repository: LocalRepository, tmp_path: Path, outside: Path, where: str, replace: Replace
) -> None:
    class Replacing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if data:
                replace(tmp_path / "pg" / where, outside)
            return data

    with pytest.raises(RepositoryError, match=r"was replaced while dump was written. HINT: Give the directories"):
        repository.write(KEY, Replacing(b"a secret"))
    assert files(tmp_path) == ["repository.json"], "neither outside nor in the directory that was moved away"


@replaced
def test_between_the_check_of_the_path_and_the_write(
    repository: LocalRepository, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    repository.write_bytes("server/db/backup/older", b"1")
    temporary_name = local.temporary_name

    def replacing() -> str:
        by_a_link(tmp_path / "pg" / where, outside)
        return temporary_name()

    monkeypatch.setattr(local, "temporary_name", replacing)
    with pytest.raises(RepositoryError, match="cannot write"):
        repository.write_bytes(KEY, b"a secret")
    assert files(outside) == []
    assert files(tmp_path) == ["older", "repository.json"]


@replaced
def test_while_a_directory_is_brought_in(
    repository: LocalRepository, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "toc.dat").write_bytes(b"a secret")
    make_private = local.make_private

    def replacing(path: Path) -> None:
        make_private(path)
        if path.name == "toc.dat":
            by_a_link(tmp_path / "pg" / where, outside)

    monkeypatch.setattr(local, "make_private", replacing)
    with pytest.raises(RepositoryError):
        repository.write_directory(KEY, dump)
    assert files(outside) == []


def test_while_leftovers_are_removed(
    repository: LocalRepository, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = UnfinishedWrite(f"server/{TEMP_PREFIX}1", datetime.now(timezone.utc))
    for directory in (tmp_path / "pg/server", outside):
        (directory / f"{TEMP_PREFIX}1").mkdir(parents=True)
        (directory / f"{TEMP_PREFIX}1" / "precious").touch()
    path = Root.path

    def replacing(root: Root, key: str) -> Path:
        checked = path(root, key)
        by_a_link(tmp_path / "pg/server", outside)
        return checked

    monkeypatch.setattr(Root, "path", replacing)
    with pytest.raises(RepositoryError, match=r"cannot remove .*: not a directory"):
        repository.remove_unfinished([left])
    assert files(outside) == ["precious"]


def test_while_a_directory_is_written(repository: LocalRepository, tmp_path: Path, outside: Path) -> None:
    with repository.scratch(KEY) as scratch:
        (outside / scratch.name).mkdir()
        (outside / scratch.name / "precious").touch()
        by_a_link(scratch.parent, outside)
    assert files(outside) == ["precious"]


def test_directories_are_made_through_no_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        make_directories_below(tmp_path / "root", "link/below/deeper")
    assert not (outside / "below").exists()
