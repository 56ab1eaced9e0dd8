"""The manifest's way into a store goes wrong: nothing that may be seen is taken back, and a retry tells the truth."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3.session
import pytest
from botocore.config import Config
from faulty_s3 import Call, FaultyS3
from honest import write_backup

from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import AlreadyExists, OutcomeUnknown, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import is_complete, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local import root as local
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

APP = Series("prod", "app")
FOR_EVER = 1000


@pytest.fixture
def source(tmp_path: Path) -> LocalRepository:
    made = LocalRepository(tmp_path / "source")
    made.init()
    return made


@pytest.fixture
def backup(source: LocalRepository) -> Manifest:
    return write_backup(source, APP, datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1))


def copy(backup: Manifest, source: Repository, destination: Repository) -> dict[str, object]:
    reference = {"series": APP.path, "id": backup.id, "repository_uuid": source.uuid}
    return upload(reference=reference, source=source, destination=destination)


def test_a_folder_that_cannot_be_flushed(
    source: LocalRepository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has its name by then, and another try may have found it."""
    there = LocalRepository(tmp_path / "there")
    there.init()
    flush = local.flush

    def fails(path: Path) -> None:
        if (path / "manifest.json").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(path)

    monkeypatch.setattr(local, "flush", fails)
    with pytest.raises(OutcomeUnknown, match=r"input/output error; .*manifest\.json may be lost in a crash"):
        copy(backup, source, there)
    assert is_complete(read_evidence(there, APP, backup.id))
    monkeypatch.undo()
    assert copy(backup, source, there)["verified"] == "archive"


def answers_lost(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Have each call do its work, and fail as its repetition does on NFS after a lost answer. Not for lock files, which
    are made before the backup is touched."""
    call = getattr(os, name)

    def repeated(*args: object, **kwargs: object) -> None:
        call(*args, **kwargs)
        if "lock" not in str(args[0]):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, repeated)


def no_links(*args: object, **kwargs: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False], ids=["links", "renames"])
@pytest.mark.parametrize("member", ["app.dump", "app.dir/toc.dat"])
def test_what_a_file_server_has_done_and_then_refuses(
    source: LocalRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, member: str
) -> None:
    started = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1)
    backup = write_backup(source, APP, started, members={member: b"rows"})
    there = LocalRepository(tmp_path / "there")
    there.init()
    answers_lost(monkeypatch, "rename", errno.ENOENT)
    if links:
        answers_lost(monkeypatch, "link", errno.EEXIST)
    else:
        monkeypatch.setattr(os, "link", no_links)
    assert copy(backup, source, there)["verified"] == "archive"
    assert is_complete(read_evidence(there, APP, backup.id))


def test_the_own_manifest_is_not_that_of_another_attempt(
    source: LocalRepository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a store that drops the metadata by which a writer knows its object, after a lost answer."""
    there = LocalRepository(tmp_path / "there")
    there.init()
    write = there.write_bytes

    def refuse(key: str, data: bytes) -> object:
        entry = write(key, data)
        if key.endswith("manifest.json"):
            raise AlreadyExists(f"{key} exists already")
        return entry

    monkeypatch.setattr(there, "write_bytes", refuse)
    copy(backup, source, there)
    assert is_complete(read_evidence(there, APP, backup.id))


@pytest.mark.parametrize("times", [2, FOR_EVER])
def test_a_manifest_that_is_not_listed_at_once(
    source: LocalRepository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    there = LocalRepository(tmp_path / "there")
    there.init()
    listed, late = there.list, list[str]()

    def lagging(folder: str = "") -> Iterator[Entry]:
        for entry in listed(folder):
            if entry.key.endswith("manifest.json") and len(late) < times:
                late.append(entry.key)
            else:
                yield entry

    with monkeypatch.context() as patched:
        patched.setattr(there, "list", lagging)
        if times == FOR_EVER:
            with pytest.raises(OutcomeUnknown, match=r"is written, but .* does not list it yet"):
                copy(backup, source, there)
        else:
            assert copy(backup, source, there)["verified"] == "archive"
    assert len(late) > 1
    assert copy(backup, source, there)["verified"] == "archive"


@pytest.fixture
def proxy(s3: S3Server) -> FaultyS3:
    return FaultyS3(s3.endpoint_url)


@pytest.fixture
def there(s3: S3Server) -> Repository:
    """Without the proxy."""
    made = open_repository(f"s3://{s3.bucket()}/pg", s3=S3Options(client_factory=s3.client))
    made.init()
    return made


def behind(proxy: FaultyS3, there: Repository, s3: S3Server) -> Repository:
    session = boto3.session.Session(s3.access_key, s3.secret_key, region_name="us-east-1")
    settings = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    client = session.client("s3", endpoint_url=proxy.url, config=settings)
    return open_repository(there.uri, s3=S3Options(client_factory=lambda: client))


def of_manifest(call: Call) -> bool:
    return call.key.endswith("/manifest.json")


@pytest.mark.parametrize("kind", ["lose", "reset"])
def test_no_answer_of_the_store(
    kind: str, proxy: FaultyS3, there: Repository, s3: S3Server, source: LocalRepository, backup: Manifest
) -> None:
    """Whether it did what it was asked or not: it may do it yet, so the artifact stays."""
    with proxy.running():
        put = proxy.fault("PutObject", kind, when=of_manifest)
        proxy.fault("HeadObject", "reset", when=lambda call: of_manifest(call) and put.hits > 0, times=FOR_EVER)
        with pytest.raises(OutcomeUnknown, match="it is unknown whether it was written"):
            copy(backup, source, behind(proxy, there, s3))
    artifacts = [entry.key for entry in there.list() if entry.key.endswith("app.dump")]
    assert len(artifacts) == 1
    retried = copy(backup, source, there)
    assert retried["verified"] == "archive"
    assert (retried["key"] in artifacts) == (kind == "lose"), "it is found, or made anew"
    assert is_complete(read_evidence(there, APP, backup.id))


def test_a_lost_answer_whose_object_is_found(
    proxy: FaultyS3, there: Repository, s3: S3Server, source: LocalRepository, backup: Manifest
) -> None:
    with proxy.running():
        proxy.fault("PutObject", "lose", when=of_manifest)
        copy(backup, source, behind(proxy, there, s3))
    assert is_complete(read_evidence(there, APP, backup.id))


def test_a_head_that_fails_after_the_commit(
    proxy: FaultyS3, there: Repository, s3: S3Server, source: LocalRepository, backup: Manifest
) -> None:
    with proxy.running():

        def is_after(call: Call) -> bool:
            return of_manifest(call) and any(of_manifest(c) and c.operation == "PutObject" for c in proxy.calls)

        proxy.fault("HeadObject", "answer", status=500, code="InternalError", when=is_after, times=FOR_EVER)
        with pytest.raises(OutcomeUnknown):
            copy(backup, source, behind(proxy, there, s3))
    assert is_complete(read_evidence(there, APP, backup.id))


@pytest.mark.parametrize("times", [2, FOR_EVER])
def test_a_conflict_with_another_writer(
    times: int, proxy: FaultyS3, there: Repository, s3: S3Server, source: LocalRepository, backup: Manifest
) -> None:
    """As AWS answers while another conditional write of the key runs, which may then fail too."""
    with proxy.running():
        conflict = {"status": 409, "code": "ConditionalRequestConflict", "when": of_manifest, "times": times}
        proxy.fault("PutObject", "answer", **conflict)
        if times == FOR_EVER:
            with pytest.raises(RepositoryError, match=r"another request writes the object .* HINT: Retry"):
                copy(backup, source, behind(proxy, there, s3))
        else:
            copy(backup, source, behind(proxy, there, s3))
    assert [entry.key for entry in there.list() if "app.dump" in entry.key] == [] or times == 2
    assert copy(backup, source, there)["verified"] == "archive"


def test_a_refusal_is_an_answer(
    proxy: FaultyS3, there: Repository, s3: S3Server, source: LocalRepository, backup: Manifest
) -> None:
    with proxy.running():
        proxy.fault("PutObject", "answer", status=403, code="AccessDenied", when=of_manifest, times=FOR_EVER)
        with pytest.raises(RepositoryError, match="access denied") as caught:
            copy(backup, source, behind(proxy, there, s3))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert [entry.key for entry in there.list()] == ["repository.json"], "so the artifact is taken back"
