"""Backups that somebody deleted or overwrote in a versioned bucket, found and restored, on a real S3 server."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

import pytest
from honest import write_backup

from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.lost import find_lost
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.undelete import undelete
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import BackupNotFound, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SERIES = Series("prod", "app")
NOW = datetime.now(timezone.utc)

Deny = Callable[[str], None]


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    name = f"undelete-{secrets.token_hex(4)}"
    s3.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def client(s3: S3Server) -> S3Client:
    return s3.client()


@pytest.fixture
def repository(client: S3Client, bucket: str) -> Repository:
    return opened(client, f"s3://{bucket}/{secrets.token_hex(4)}", lock_for="30d")


def opened(client: S3Client, uri: str, **store: Any) -> Repository:
    made = open_repository(uri, s3=S3Options.of_store(store, client_factory=lambda: client))
    made.init()
    return made


def keys_of(repository: Repository, id: str) -> list[str]:
    """The keys of a backup, in the bucket."""
    prefix = repository.uri.removeprefix("s3://").partition("/")[2]
    return [f"{prefix}/{entry.key}" for entry in repository.list(backup_folder(SERIES, id))]


def add(repository: Repository, night: int) -> str:
    members = {"app.dir/toc.dat": b"12345", "app.dir/1.dat": b"rows"}
    started = NOW - timedelta(days=night, hours=1)
    return write_backup(repository, SERIES, started, looks=["archive-pass"], members=members).id


def state(repository: Repository, id: str) -> str:
    return read_evidence(repository, SERIES, id).backup.state


@pytest.mark.parametrize("delete_versions", [True, False], ids=["markers", "copies"])
def test_a_deleted_backup_is_found_and_restored(
    client: S3Client, bucket: str, repository: Repository, delete_versions: bool
) -> None:
    before = datetime.now(timezone.utc)
    kept, lost = add(repository, 0), add(repository, 1)
    written = before, datetime.now(timezone.utc) + timedelta(seconds=1)  # midnight may be between the two
    keys = keys_of(repository, lost)
    assert find_lost(repository) == []
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
        client.delete_object(Bucket=bucket, Key=key)  # a second marker above the first
    with pytest.raises(BackupNotFound):
        read_evidence(repository, SERIES, lost)
    (found,) = find_lost(repository)
    assert (found.series, found.id, found.why) == (SERIES, lost, "deleted")
    assert (found.locked or "").startswith(tuple(f"until {at + timedelta(days=30):%Y-%m-%d}" for at in written))
    assert find_lost(repository, "prod/other") == []
    if not delete_versions:
        refuse_to_delete_versions(client)
    undelete(repository=repository, series=SERIES, id=lost)
    assert state(repository, lost) == state(repository, kept) == "verified"
    assert sorted(keys_of(repository, lost)) == sorted(keys)
    assert find_lost(repository) == []
    with pytest.raises(BackupNotFound, match="was not deleted or overwritten"):
        undelete(repository=repository, series=SERIES, id=lost)


def refuse_to_delete_versions(client: S3Client) -> None:
    """Let the store answer these credentials as one does whose policy has no s3:DeleteObjectVersion."""

    def redirect(params: dict[str, Any], **_: Any) -> None:
        # A version that is locked: the real server refuses to delete it, with its own 403.
        if "VersionId" in params:
            versions = client.list_object_versions(Bucket=params["Bucket"], Prefix=params["Key"])["Versions"]
            params["VersionId"] = versions[-1]["VersionId"]

    client.meta.events.register("before-parameter-build.s3.DeleteObject", redirect)


def test_an_overwritten_backup_is_found_and_restored(client: S3Client, bucket: str, repository: Repository) -> None:
    lost = add(repository, 0)
    keys = keys_of(repository, lost)
    before = {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=b"your files are encrypted")
    (found,) = find_lost(repository)
    assert (found.id, found.why) == (lost, "overwritten")
    undelete(repository=repository, series=SERIES, id=lost)
    assert {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys} == before
    assert state(repository, lost) == "verified"
    assert find_lost(repository) == []


@pytest.mark.parametrize("delete_versions", [True, False], ids=["shown", "hidden"])
def test_a_refused_copy_changes_nothing_where_versions_may_be_deleted(
    client: S3Client,
    bucket: str,
    repository: Repository,
    delete_versions: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = add(repository, 0)
    (manifest,) = [key for key in keys_of(repository, lost) if key.endswith("manifest.json")]
    client.put_object(Bucket=bucket, Key=manifest, Body=b"{}")
    refuse_copies(client)
    if not delete_versions:
        refuse_to_delete_versions(client)
    with pytest.raises(RepositoryError, match="cannot restore a version of") as caught:
        fsck(repository=repository, revert=True)
    assert ("may be hidden" in caught.value.message) is not delete_versions
    if delete_versions:
        assert client.get_object(Bucket=bucket, Key=manifest)["Body"].read() == b"{}"
        assert caplog.messages == []
    else:
        assert manifest not in keys_of(repository, lost)
        (said,) = caplog.messages
        assert said == f"a delete marker of s3://{bucket}/{manifest} could not be removed (AccessDenied)"
        assert f"pgbackup undelete {repository.uri} prod/app {lost}" in (caught.value.hint or "")
    assert [one.id for one in find_lost(repository)] == [lost]


def refuse_copies(client: S3Client) -> None:
    """Let the store refuse every copy: of a version that does not exist."""

    def redirect(params: dict[str, Any], **_: Any) -> None:
        params["CopySource"] = f"{params['CopySource'].partition('?')[0]}?versionId={secrets.token_hex(16)}"

    client.meta.events.register("before-parameter-build.s3.CopyObject", redirect)


def set_versioning(client: S3Client, bucket: str, status: Literal["Enabled", "Suspended"]) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def versions_of(client: S3Client, bucket: str, key: str) -> set[tuple[str, bool]]:
    """The ids of a key's versions and delete markers, each with whether it is the current one."""
    answer = client.list_object_versions(Bucket=bucket, Prefix=key)
    found = [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])]
    return {(each["VersionId"], each["IsLatest"]) for each in found}


@pytest.mark.parametrize("null", ["original", "forged"])
def test_nothing_is_reverted_while_versioning_is_suspended(s3: S3Server, client: S3Client, null: str) -> None:
    """A deletion would destroy the version with the id null."""
    bucket = s3.bucket()
    repository = opened(client, f"s3://{bucket}/pg")
    if null == "forged":
        set_versioning(client, bucket, "Enabled")
    id = add(repository, 0)
    manifest = next(key for key in keys_of(repository, id) if key.endswith("manifest.json"))
    set_versioning(client, bucket, "Enabled" if null == "original" else "Suspended")
    client.put_object(Bucket=bucket, Key=manifest, Body=b"{}")
    set_versioning(client, bucket, "Suspended")
    before = versions_of(client, bucket, manifest)
    assert ("null", null == "forged") in before
    for act in (
        lambda: fsck(repository=repository, revert=True),
        lambda: undelete(repository=repository, series=SERIES, id=id),
    ):
        with pytest.raises(RepositoryError, match=f"versioning of bucket {bucket} is suspended") as caught:
            act()
        assert (caught.value.hint or "").startswith("Enable versioning of the bucket first")
        assert versions_of(client, bucket, manifest) == before
    set_versioning(client, bucket, "Enabled")
    fsck(repository=repository, revert=True)
    assert state(repository, id) == "verified"
    assert {id for id, _ in before} < {id for id, _ in versions_of(client, bucket, manifest)}


def test_a_deleted_backup_is_restored_while_versioning_is_suspended(s3: S3Server, client: S3Client) -> None:
    """A copy replaces the delete marker with the id null, and no data."""
    bucket = s3.bucket()
    set_versioning(client, bucket, "Enabled")
    repository = opened(client, f"s3://{bucket}/pg")
    id = add(repository, 0)
    keys = keys_of(repository, id)
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
    set_versioning(client, bucket, "Suspended")
    undelete(repository=repository, series=SERIES, id=id)
    assert state(repository, id) == "verified"
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
    before = {key: versions_of(client, bucket, key) for key in keys}
    assert all(("null", True) in versions for versions in before.values())
    undelete(repository=repository, series=SERIES, id=id)
    assert state(repository, id) == "verified"
    assert {key: versions_of(client, bucket, key) for key in keys} == before, "the copies are null"


def test_what_fsck_brings_back_is_locked_again(client: S3Client, bucket: str, repository: Repository) -> None:
    id = add(repository, 0)
    keys = keys_of(repository, id)
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=b"your files are encrypted")
    fsck(repository=repository, revert=True)
    assert state(repository, id) == "verified"
    assert {client.head_object(Bucket=bucket, Key=key).get("ObjectLockMode") for key in keys} == {"GOVERNANCE"}
    assert fsck(repository=repository).findings == ()


def test_a_deleted_artifact_is_found_and_restored(client: S3Client, bucket: str, repository: Repository) -> None:
    lost = add(repository, 0)
    for key in keys_of(repository, lost):
        if ".dat" in key:
            client.delete_object(Bucket=bucket, Key=key)
    assert state(repository, lost) == "incomplete"
    assert [(one.id, one.why) for one in find_lost(repository)] == [(lost, "deleted")]
    undelete(repository=repository, series=SERIES, id=lost)
    assert state(repository, lost) == "verified"


def test_what_prune_deleted_can_be_restored_and_is_no_fault(client: S3Client, bucket: str) -> None:
    """In a bucket whose versions are not locked, where nothing tells who deleted it."""
    repository = opened(client, f"s3://{bucket}/{secrets.token_hex(4)}")
    newest, old = add(repository, 0), add(repository, 1)
    result = prune(repository=repository, policy=Policy(keep_last=1), dry_run=False)
    assert result["removed"] == 1
    assert [(one.id, one.locked) for one in find_lost(repository)] == [(old, None)]
    report = fsck(repository=repository)
    assert report.sound
    assert [(f.severity, f.code, f.message) for f in report.findings] == [
        ("note", "deleted", "1 deleted backup can be restored")
    ]
    undelete(repository=repository, series=SERIES, id=old)
    assert state(repository, old) == state(repository, newest) == "verified"


def test_fsck_reports_what_was_deleted_in_spite_of_its_lock(
    client: S3Client, bucket: str, repository: Repository
) -> None:
    deleted, overwritten = add(repository, 0), add(repository, 1)
    for key in keys_of(repository, deleted):
        client.delete_object(Bucket=bucket, Key=key)
    manifest = next(key for key in keys_of(repository, overwritten) if key.endswith("manifest.json"))
    client.put_object(Bucket=bucket, Key=manifest, Body=b"{}")
    report = fsck(repository=repository)
    assert not report.sound
    found = {f.code: f for f in report.findings}
    assert found["deleted"].severity == "error"
    assert found["deleted"].key == backup_folder(SERIES, deleted)
    assert "was deleted although it is locked until" in found["deleted"].message
    assert found["overwritten"].key == manifest.partition("/")[2]
    assert f"undelete {repository.uri} prod/app {deleted}" in found["deleted"].hint


def test_a_store_without_versions_has_nothing_to_restore(s3: S3Server, client: S3Client, tmp_path: Any) -> None:
    local = LocalRepository(tmp_path / "pg")
    local.init()
    plain = opened(client, f"s3://{s3.bucket()}/pg")
    for repository in (local, plain):
        gone = add(repository, 0)
        repository.delete([entry.key for entry in list(repository.list("prod"))])
        assert find_lost(repository) == []
        with pytest.raises(BackupNotFound, match="keeps no versions of it"):
            undelete(repository=repository, series=SERIES, id=gone)
