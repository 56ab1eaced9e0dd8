"""A prune removes a backup while it is uploaded or rewrapped: the error says so, and blames nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, NoReturn

import pyrage
import pytest
from honest import write_backup

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.rewrap import rewrap
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import BackupNotFound, PgBackupError, RepositoryError, VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.nofollow import members_of
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3 import copying, directory
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.directory import DirectoryUpload
from airflow_pgbackup.repository.s3.options import MIB, S3Options
from airflow_pgbackup.repository.s3.repository import S3Repository
from airflow_pgbackup.settings import Settings

APP = Series("prod", "app")
FILE = {"app.dump": b"12345"}
LARGE = b"x" * 9 * MIB
DIRECTORY = {"app.dir/toc.dat": b"12345", "app.dir/1.dat": b"rows"}
REMOVED = r"^backup prod/app/\S+ was removed from \S+ during the operation\. HINT: "


@pytest.fixture
def in_bucket(s3: S3Server) -> Callable[[str], Repository]:
    bucket = s3.bucket()

    def make(name: str) -> Repository:
        made = open_repository(f"s3://{bucket}/{name}", s3=S3Options(client_factory=s3.client))
        made.init()
        return made

    return make


def backup_in(repository: Repository, members: dict[str, bytes]) -> Manifest:
    return write_backup(repository, APP, datetime.now(timezone.utc) - timedelta(days=1), members=members)


def copy(source: Repository, destination: Repository, backup: Manifest) -> dict[str, object]:
    reference = {"series": APP.path, "id": backup.id, "repository_uuid": source.uuid}
    return upload(reference=reference, source=source, destination=destination)


def remove(repository: Repository, backup: Manifest, *, but: str = "") -> None:
    """Remove a backup. :param but: a file that prune has not reached yet."""
    keys = [entry.key for entry in repository.list(backup_folder(APP, backup.id))]
    repository.delete([key for key in keys if not (but and key.endswith(but))])


def at_request(monkeypatch: pytest.MonkeyPatch, operation: str, action: Callable[[], None]) -> None:
    """Do something before the first request of an operation on an artifact."""
    real, left = Bucket.call, [action]

    def call(self: Bucket, name: str, /, **parameters: Any) -> dict[str, Any]:
        if name == operation and "/app.d" in parameters["Key"] and left:
            left.pop()()
        return real(self, name, **parameters)

    monkeypatch.setattr(Bucket, "call", call)


def before(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, action: Callable[[], None]) -> None:
    real = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        action()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def require_nothing(destination: Repository) -> None:
    assert [entry.key for entry in destination.list()] == ["repository.json"]


AT = {
    "before the listing": (S3Repository, "write_directory"),
    "after the listing": (DirectoryUpload, "finish"),
}


@pytest.mark.parametrize("but", ["", "toc.dat"])
@pytest.mark.parametrize("at", AT)
def test_a_local_directory_to_s3(
    here: Repository,
    in_bucket: Callable[[str], Repository],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    but: str,
) -> None:
    destination, backup = in_bucket("destination"), backup_in(here, DIRECTORY)
    before(monkeypatch, *AT[at], lambda: remove(here, backup, but=but))
    with pytest.raises(BackupNotFound) as raised:
        copy(here, destination, backup)
    assert raised.match(REMOVED)
    require_nothing(destination)


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        ("before the listing", VerificationFailed, r"the files of app\.dir in \S+ differ from its manifest"),
        ("after the listing", RepositoryError, r"cannot read \S+/1\.dat: no such file or directory"),
    ],
)
def test_a_member_alone_is_removed(
    here: Repository,
    in_bucket: Callable[[str], Repository],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    error: type[Exception],
    message: str,
) -> None:
    """The backup still has its manifest, so it is damaged."""
    destination, backup = in_bucket("destination"), backup_in(here, DIRECTORY)
    member = backup.key(backup.artifact.files[1])
    before(monkeypatch, *AT[at], lambda: here.delete([member]))
    with pytest.raises(error, match=message):
        copy(here, destination, backup)
    require_nothing(destination)


def test_a_member_is_removed_while_it_is_sent_early(
    tmp_path: Path, in_bucket: Callable[[str], Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is open, so it is sent; the error is that of the directory."""
    member = tmp_path / "1.dat"
    member.write_bytes(LARGE)
    real, opened, failures = directory.open_member, Event(), list[BaseException]()

    def open_member(path: Path) -> BinaryIO:
        stream = real(path)
        path.unlink()
        opened.set()
        return stream

    monkeypatch.setattr(directory, "open_member", open_member)
    with in_bucket("destination").incoming("x/app.dir", tmp_path, on_failure=failures.append) as incoming:
        incoming.offer("1.dat")
        assert opened.wait(120)
        with pytest.raises(RepositoryError):
            incoming.finish({})
    assert all(isinstance(failure, PgBackupError) for failure in failures), failures


def test_a_directory_is_removed_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "app.dir"
    folder.mkdir()
    before(monkeypatch, os, "scandir", folder.rmdir)
    with pytest.raises(RepositoryError):
        members_of(folder)


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("HeadObject", FILE),
        ("CopyObject", FILE),
        ("UploadPartCopy", {"app.dump": LARGE}),
        ("GetObject", FILE),
        ("GetObject", DIRECTORY),
    ],
)
def test_from_s3_to_s3(
    in_bucket: Callable[[str], Repository],
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    members: dict[str, bytes],
) -> None:
    source, destination = in_bucket("source"), in_bucket("destination")
    backup = backup_in(source, members)
    monkeypatch.setattr(copying, "COPY_PART", 5 * MIB)
    at_request(monkeypatch, operation, lambda: remove(source, backup))
    with pytest.raises(BackupNotFound) as raised:
        copy(source, destination, backup)
    assert raised.match(REMOVED)
    require_nothing(destination)


@pytest.mark.parametrize("members", [FILE, DIRECTORY])
@pytest.mark.parametrize("operation", ["HeadObject", "GetObject"])
def test_a_rewrap(
    in_bucket: Callable[[str], Repository],
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    members: dict[str, bytes],
) -> None:
    repository = in_bucket("source")
    backup = backup_in(repository, members)
    at_request(monkeypatch, operation, lambda: remove(repository, backup))
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    with pytest.raises(BackupNotFound) as raised:
        rewrap(
            reference={"series": APP.path, "id": backup.id, "repository_uuid": repository.uuid},
            repository=repository,
            context=RunContext(settings=Settings(recipients=(recipient,))),
        )
    assert raised.match(REMOVED)
    require_nothing(repository)


def test_a_store_that_no_longer_answers(
    here: Repository, in_bucket: Callable[[str], Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the backup still exists is not known, so the first error stands."""
    destination, backup = in_bucket("destination"), backup_in(here, FILE)

    def read(key: str, **_: object) -> NoReturn:
        monkeypatch.setattr(here, "stat", stat)
        raise RepositoryError("the first error")

    def stat(key: str) -> NoReturn:
        raise RepositoryError("the second error")

    find = here.read
    monkeypatch.setattr(here, "read", lambda key, **options: (read if "app.d" in key else find)(key, **options))
    with pytest.raises(RepositoryError, match="the first error"):
        copy(here, destination, backup)
    require_nothing(destination)
