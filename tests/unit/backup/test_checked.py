"""Artifacts read again after their check, and their private copies: full disks, and bytes that change."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pytest
from honest import write_backup

from airflow_pgbackup.backup import file_check
from airflow_pgbackup.backup.artifact import open_checked
from airflow_pgbackup.backup.checked import PIECE, Marks
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.errors import ConfigurationError, DiskError, RepositoryError
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Manifest

DATA = random.Random(1).randbytes(3 * PIECE + PIECE // 2)
SCRIPT = b"--\n-- PostgreSQL database dump\n--\n\n"
NOW = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)


def marks_of(data: bytes) -> Marks:
    marks = Marks(Entry(key="a", size=len(data), modified=NOW))
    for start in range(0, len(data), PIECE):
        marks.add(data[start : start + PIECE])
    return marks


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(DATA)])
def test_the_same_bytes_again(size: int) -> None:
    data = DATA[:size]
    marks = marks_of(data)
    assert marks.sha256 == hashlib.sha256(data).hexdigest()
    assert b"".join(marks.again(io.BytesIO(data), "it", lambda: None)) == data
    # What was added behind the end was not hashed, and is not given.
    again = marks.again(io.BytesIO(data + b"more"), "it", lambda: None)
    if size % PIECE:
        with pytest.raises(RepositoryError, match="it changed after its digest was checked"):
            list(again)
    else:
        assert b"".join(again) == data


@pytest.mark.parametrize("at", [0, 1, PIECE - 1, PIECE, 2 * PIECE + 5, len(DATA) - 1])
def test_other_bytes_are_not_given(at: int) -> None:
    changed = DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]
    for data in (changed, DATA[:at]):
        again = marks_of(DATA).again(io.BytesIO(data), "it", lambda: None)
        whole = at // PIECE
        assert b"".join(islice(again, whole)) == DATA[: whole * PIECE]
        with pytest.raises(RepositoryError, match="it changed after its digest was checked") as raised:
            next(again)
        assert raised.value.hint == ("Find out what else writes to the repository; a retry checks the backup again.")


@pytest.fixture
def backup(repository: LocalRepository) -> tuple[LocalRepository, Manifest]:
    return repository, write_backup(repository, Series("s", "app"), NOW, looks=(), members={"app.sql": SCRIPT})


def test_the_version_that_was_checked_is_read_again(
    backup: tuple[LocalRepository, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that keeps versions then cannot give another one."""
    repository, manifest = backup
    read, pins = repository.read, []

    def recorded(key: str, *, pin: Entry | None = None) -> AbstractContextManager[BinaryIO]:
        pins.append(pin)
        return read(key, pin=pin)

    monkeypatch.setattr(repository, "read", recorded)
    with open_checked(repository, manifest, as_path=False) as (_, checked), checked.stream() as stream:
        assert stream.read() == SCRIPT
    assert pins == [repository.stat(manifest.artifact_key)] * 2


def test_a_copy_is_private_and_gone_afterwards(backup: tuple[LocalRepository, Manifest], tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with open_checked(*backup, as_path=True, temp_dir=str(temporary)) as (wrong, checked):
        assert wrong == []
        assert (checked.private_path.stat().st_mode & 0o777, checked.private_path.stat().st_nlink) == (0o600, 1)
        (directory,) = temporary.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory in checked.private_path.parents
    assert list(temporary.iterdir()) == []


def test_a_copy_that_does_not_fit_is_not_begun(
    backup: tuple[LocalRepository, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used._replace(free=3))
    monkeypatch.setattr("airflow_pgbackup.backup.private_copy.clone", lambda source, target: False)
    with (
        pytest.raises(DiskError, match=f"needs 35 bytes in {tmp_path}, which has 3 bytes free") as caught,
        open_checked(*backup, as_path=True, temp_dir=str(tmp_path)),
    ):
        pass
    assert "temp_dir" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pg"]


def test_a_disk_that_fills_up_meanwhile(
    backup: tuple[LocalRepository, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_check, "create", lambda path: open("/dev/full", "w+b", buffering=0))  # noqa: PTH123, SIM115
    with pytest.raises(DiskError, match=f"cannot write to {tmp_path}.*: no space left on device"):
        download(*backup, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pg"]


def test_a_name_that_is_taken_while_it_is_read(
    backup: tuple[LocalRepository, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, manifest = backup
    into, other = tmp_path / "into", tmp_path / "other"
    into.mkdir()
    stat = repository.stat

    def taking(key: str) -> Entry | None:
        if not os.path.lexists(into / "app.sql"):
            (into / "app.sql").symlink_to(other)
        return stat(key)

    monkeypatch.setattr(repository, "stat", taking)
    with pytest.raises(ConfigurationError, match=r"app.sql exists already"):
        download(repository, manifest, into)
    assert [path.name for path in into.iterdir()] == ["app.sql"]
    assert not other.exists()
