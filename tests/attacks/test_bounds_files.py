"""What a directory of somebody else can make a repository do: nothing blocks, each ends in one line with a cause."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from unittest.mock import ANY

import bombs
import pytest

from airflow_pgbackup import private_directory
from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.errors import ConfigurationError, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

BACKUP = "server/db/20261122T020000Z-3f9ac1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(root: Path) -> Repository:
    repository = open_repository(f"file://{root}")
    repository.init()
    (root / BACKUP).mkdir(parents=True)
    return repository


SPECIAL: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "directory": os.mkdir,
    "link": lambda path: path.symlink_to("/dev/zero"),
}

DOINGS: dict[str, Callable[[Repository, str], object]] = {
    "read": lambda repository, key: repository.read_bytes(key),
    "write": lambda repository, key: repository.write_bytes(key, b"x"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("doing", ["read", "write"])
def test_what_is_no_file_is_not_opened(repository: Repository, root: Path, kind: str, doing: str) -> None:
    key = f"{BACKUP}/manifest.json"
    SPECIAL[kind](root / key)
    with pytest.raises(RepositoryError) as caught:  # a pipe would wait for somebody who writes to it
        DOINGS[doing](repository, key)
    assert "\n" not in str(caught.value)
    assert str(root / key) in str(caught.value)


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_not_listed(repository: Repository, root: Path, kind: str) -> None:
    SPECIAL[kind](root / BACKUP / "manifest.json")
    (root / BACKUP / "a.dump").touch()
    assert [entry.key for entry in repository.list(BACKUP)] == [f"{BACKUP}/a.dump"]
    assert read_catalogue(repository).backups == ()


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "directory"])
def test_a_repository_file_that_is_no_file(tmp_path: Path, kind: str) -> None:
    SPECIAL[kind](tmp_path / "repository.json")
    with pytest.raises(RepositoryError):
        open_repository(f"file://{tmp_path}").uuid  # noqa: B018


def test_a_huge_small_file_is_not_read(repository: Repository, root: Path) -> None:
    with (root / BACKUP / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RepositoryError, match="is larger than") as caught:
        repository.read_bytes(f"{BACKUP}/manifest.json")
    assert "\n" not in str(caught.value)
    assert read_catalogue(repository, series=[Series("server", "db")]).backups[0].state == "incomplete"


def test_directories_as_deep_as_the_kernel_allows(repository: Repository, root: Path) -> None:
    """And deeper: a path has 4,095 bytes at most, and so many more directories than Python has frames."""
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    for look in (lambda: list(repository.list()), lambda: repository.unfinished_writes(timedelta(0))):
        with pytest.raises(RepositoryError, match="file name too long") as caught:
            look()
        assert len(str(caught.value)) < 500
    assert list(repository.list("server")) == [], "what lies elsewhere is in nobody's way"
    _remove_deep(root)


def _remove_deep(folder: Path) -> None:
    """pytest's own removal is not made for that."""
    while (below := folder / "d" / "d").is_dir():
        below.rename(folder / "e")
        (folder / "d").rmdir()
        (folder / "e").rename(folder / "d")


def test_a_listing_of_a_million_names_takes_a_bound(tmp_path: Path) -> None:
    code = """
import os
from datetime import timedelta
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository import listing_limits
from airflow_pgbackup.repository.local import tree
from airflow_pgbackup.repository.open import open_repository
listing_limits.MOST_KEYS = tree.MOST_KEYS = 2_000
repository = open_repository("file://" + sys.argv[1])
ready()
for look in (repository.list, repository.folders, lambda: repository.unfinished_writes(timedelta(0))):
    try:
        look()
    except RepositoryError as error:
        print(error.message)
"""
    open_repository(f"file://{tmp_path}").init()
    (tmp_path / "many").mkdir()
    for n in range(8_000):
        (tmp_path / "many" / f"{n}").mkdir()
    said, mib = bombs.grown(code, str(tmp_path))
    assert said.splitlines() == [f"cannot list {tmp_path}: it holds more than 2,000 files"] * 2
    assert mib < 20


def test_the_flag_ends_a_listing(root: Path, repository: Repository) -> None:
    class Stopped(Exception):
        pass

    class Flag:
        def check(self) -> None:
            if next(numbers) > 10:
                raise Stopped

    numbers = itertools.count()
    for n in range(100):
        (root / BACKUP / f"{n}").touch()
    with pytest.raises(Stopped):
        open_repository(f"file://{root}", cancel=Flag()).list()


def test_names_that_are_not_ours_are_passed_over(repository: Repository, root: Path) -> None:
    odd = [b"\xff\xfe", b"a\nb", b"a\x1bb", b"x" * 255, "\u202e".encode()]
    for name in odd:
        (root / BACKUP / os.fsdecode(name)).touch()
    listed = [entry.key.removeprefix(f"{BACKUP}/") for entry in repository.list(BACKUP)]
    assert listed == sorted([os.fsdecode(b"\xff\xfe"), "x" * 255, "\u202e"], key=os.fsencode)
    with pytest.raises(ConfigurationError):
        repository.stat(f"{BACKUP}/a\nb")


def test_nothing_in_a_directory_keeps_the_rest_of_it_from_being_adopted(repository: Repository, tmp_path: Path) -> None:
    """Directories deeper than Python's stack, a name that is too long for a repository, a window that is too large."""
    directory = tmp_path / "dumps"
    directory.mkdir()
    with ExitStack() as at_the_end:
        at_the_end.callback(private_directory.remove, directory)  # pytest cannot remove directories of such depth
        inner = os.open(directory, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("a", dir_fd=inner)
            outer, inner = inner, os.open("a", os.O_RDONLY, dir_fd=inner)
            os.close(outer)
        os.close(inner)
        head = "--\n-- PostgreSQL database dump\n--\n\n"
        end = "--\n-- PostgreSQL database dump complete\n--\n\n"
        (directory / "b.sql").write_text(f"{head}\\connect {'x' * 300}\n{end}")
        (directory / "c.sql.zst").write_bytes(bytes.fromhex("28b52ffd00f8") + bytes(20))
        (directory / "d.sql").write_text(f"{head}\\connect app\n{end}")
        done = adopt(repository=repository, sources=[directory], server="s", dry_run=True)
        assert done["skipped"] == [
            {"path": "c.sql.zst", "source": str(directory), "reason": ANY},
            {"path": "b.sql", "source": str(directory), "reason": ANY},
        ]
        assert done["found"] == [ANY]
