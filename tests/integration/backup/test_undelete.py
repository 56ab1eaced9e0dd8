"""Backups that somebody deleted or overwrote in a versioned bucket, found and restored, on a real S3 server."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
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
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.protection import Version
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.s3.protection import S3Protection

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


def versioned(s3: S3Server, client: S3Client) -> tuple[str, Repository]:
    """Return a new bucket with versioning, and a repository in it."""
    bucket = s3.bucket()
    set_versioning(client, bucket, "Enabled")
    return bucket, opened(client, f"s3://{bucket}/pg")


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
    bucket, repository = versioned(s3, client)
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
    """In a bucket whose versions are not locked, so it is unknown who deleted it."""
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


def lose(client: S3Client, bucket: str, part: str) -> None:
    """Remove the data versions of the keys with this part for good, as a lifecycle rule does. Delete markers stay."""
    for version in client.list_object_versions(Bucket=bucket)["Versions"]:
        if part in version["Key"]:
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


def next_second() -> None:
    """Wait until the store's clock, which lists whole seconds, tells what follows from what was before."""
    before = int(time.time())
    while int(time.time()) == before:
        time.sleep(0.02)


def every_version(client: S3Client, bucket: str) -> set[tuple[str, bool]]:
    return versions_of(client, bucket, "")


def remove(repository: Repository, id: str) -> None:
    """Delete a backup as prune does."""
    keys = [entry.key for entry in list(repository.list(backup_folder(SERIES, id)))]
    repository.delete(keys)


def test_nothing_is_restored_unless_all_files_are_there(s3: S3Server, client: S3Client) -> None:
    bucket, repository = versioned(s3, client)
    id = add(repository, 0)
    remove(repository, id)
    lose(client, bucket, "/1.dat")
    before = every_version(client, bucket)
    with pytest.raises(RepositoryError, match=r"cannot be restored: app\.dir/1\.dat is missing") as caught:
        undelete(repository=repository, series=SERIES, id=id)
    assert (caught.value.hint or "").startswith("Nothing was changed.")
    assert every_version(client, bucket) == before


@pytest.mark.parametrize("file", [2, 4], ids=["a file", "the manifest"])
def test_what_prune_sweeps_meanwhile_is_restored_again(
    s3: S3Server, client: S3Client, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    """A file whose delete marker was removed is as old as before, so the folder looks abandoned."""
    bucket, repository = versioned(s3, client)
    id = add(repository, 0)
    remove(repository, id)
    other = opened(client, f"s3://{bucket}/pg")
    real, restored, swept = S3Protection.restore, [], []

    def restore(self: S3Protection, version: Version, above: Sequence[Version]) -> None:
        restored.append(version.key)
        if len(restored) == file:
            later = NOW + timedelta(days=2)
            swept.extend(prune(repository=other, policy=None, dry_run=False, now=later)["leftovers"])
        real(self, version, above)

    monkeypatch.setattr(S3Protection, "restore", restore)
    undelete(repository=repository, series=SERIES, id=id)
    assert len(swept) == 1
    assert state(repository, id) == "verified"
    assert len(restored) == 4 + file - 1


@pytest.mark.parametrize(("deleted", "problem"), [(".dat", "toc.dat is missing"), ("-pass.json", "was deleted")])
def test_undelete_gives_up_if_files_are_deleted_each_time(
    s3: S3Server, client: S3Client, monkeypatch: pytest.MonkeyPatch, deleted: str, problem: str
) -> None:
    _, repository = versioned(s3, client)
    id = add(repository, 0)
    remove(repository, id)
    real = S3Protection.restore

    def restore(self: S3Protection, version: Version, above: Sequence[Version]) -> None:
        real(self, version, above)
        if version.key.endswith(deleted):
            repository.delete([version.key])

    monkeypatch.setattr(S3Protection, "restore", restore)
    with pytest.raises(RepositoryError, match=f"was restored, but changed at once: .*{problem}") as caught:
        undelete(repository=repository, series=SERIES, id=id)
    assert "another process" in (caught.value.hint or "")


def add_attempt(repository: Repository, attempt: str) -> str:
    """Write the same backup, by another attempt each time."""
    members = {"app.dir/toc.dat": b"12345", "app.dir/1.dat": b"rows"}
    return write_backup(repository, SERIES, NOW - timedelta(hours=1), members=members, attempt=attempt).id


@pytest.fixture
def uploaded_again(s3: S3Server, client: S3Client) -> tuple[Repository, str, str]:
    """A backup that was deleted and uploaded again, with its bucket and its id."""
    bucket, repository = versioned(s3, client)
    remove(repository, add_attempt(repository, "aaaaaaaa"))
    next_second()
    return repository, bucket, add_attempt(repository, "bbbbbbbb")


@pytest.mark.parametrize("expired", [True, False])
def test_a_backup_that_was_uploaded_again_is_not_lost(
    client: S3Client, uploaded_again: tuple[Repository, str, str], expired: bool
) -> None:
    repository, bucket, id = uploaded_again
    if expired:
        lose(client, bucket, "/aaaaaaaa/")
    assert find_lost(repository) == []
    before = every_version(client, bucket)
    with pytest.raises(BackupNotFound, match="was not deleted or overwritten"):
        undelete(repository=repository, series=SERIES, id=id)
    assert every_version(client, bucket) == before
    assert state(repository, id) == "verified"


@pytest.mark.parametrize("attempt", ["aaaaaaaa", "bbbbbbbb"])
@pytest.mark.parametrize("how", ["overwritten", "deleted"])
def test_a_backup_that_was_uploaded_again_is_restored_with_the_files_that_the_store_holds(
    client: S3Client, uploaded_again: tuple[Repository, str, str], attempt: str, how: str
) -> None:
    repository, bucket, id = uploaded_again
    lose(client, bucket, "/bbbbbbbb/" if attempt == "aaaaaaaa" else "/aaaaaaaa/")
    next_second()
    if how == "deleted":
        remove(repository, id)
    else:
        client.put_object(Bucket=bucket, Key=f"pg/{backup_folder(SERIES, id)}/manifest.json", Body=b"{}")
    assert [(one.id, one.why) for one in find_lost(repository)] == [(id, how)]
    undelete(repository=repository, series=SERIES, id=id)
    assert state(repository, id) == "verified"
    assert read_manifest(repository, SERIES, id).artifact.attempt == attempt
    assert find_lost(repository) == []


def test_a_backup_that_was_deleted_and_forged_is_restored(s3: S3Server, client: S3Client) -> None:
    bucket, repository = versioned(s3, client)
    id = add(repository, 0)
    keys = keys_of(repository, id)
    remove(repository, id)
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=b"your files are encrypted")
    assert [(one.id, one.why) for one in find_lost(repository)] == [(id, "overwritten")]
    undelete(repository=repository, series=SERIES, id=id)
    assert state(repository, id) == "verified"


def test_a_manifest_is_not_reverted_to_one_whose_files_are_missing(s3: S3Server, client: S3Client) -> None:
    """As two attempts leave it that commit at once to a store without conditional writes."""
    bucket, repository = versioned(s3, client)
    id = overwrite_manifest(client, bucket, repository)
    artifact = [entry.key for entry in list(repository.list("prod")) if "/aaaaaaaa/" in entry.key]
    repository.delete(artifact)
    for revert in (False, True):
        (found,) = (f for f in fsck(repository=repository, revert=revert).findings if f.severity == "error")
        assert (found.code, found.repaired) == ("overwritten", False)
        assert found.hint.startswith("--revert leaves it: the backup is complete")
        assert read_manifest(repository, SERIES, id).artifact.attempt == "bbbbbbbb"
        assert state(repository, id) == "verified"


def test_a_complete_forged_backup_is_reverted(s3: S3Server, client: S3Client) -> None:
    bucket, repository = versioned(s3, client)
    id = overwrite_manifest(client, bucket, repository)
    for key in keys_of(repository, id):
        if "/aaaaaaaa/" in key:
            client.put_object(Bucket=bucket, Key=key, Body=b"your files are encrypted")
    fsck(repository=repository, revert=True)
    assert read_manifest(repository, SERIES, id).artifact.attempt == "aaaaaaaa"
    assert state(repository, id) == "verified"


def overwrite_manifest(client: S3Client, bucket: str, repository: Repository) -> str:
    """Write a backup, and over its manifest another one with an artifact of its own."""
    id = add_attempt(repository, "aaaaaaaa")
    key = f"pg/{backup_folder(SERIES, id)}/manifest.json"
    manifest = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    for entry in list(repository.list(f"{backup_folder(SERIES, id)}/aaaaaaaa")):
        with repository.read(entry.key) as data:
            client.put_object(Bucket=bucket, Key=f"pg/{entry.key}".replace("aaaaaaaa", "bbbbbbbb"), Body=data.read())
    client.put_object(Bucket=bucket, Key=key, Body=manifest.replace(b"aaaaaaaa", b"bbbbbbbb"))
    return id


def test_versions_of_what_is_not_a_key_are_ignored(s3: S3Server, client: S3Client) -> None:
    bucket, repository = versioned(s3, client)
    id = add(repository, 0)
    for size in (1, 2):
        client.put_object(Bucket=bucket, Key=f"pg/{backup_folder(SERIES, id)}/{'x' * 256}", Body=b"x" * size)
    for revert in (False, True):
        assert not [each for each in fsck(repository=repository, revert=revert).findings if each.code == "overwritten"]
    assert find_lost(repository) == []


def test_a_lock_that_cannot_be_read_hides_no_other_backup(
    client: S3Client, bucket: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread, other = add(repository, 0), add(repository, 1)
    for key in (*keys_of(repository, unread), *keys_of(repository, other)):
        client.delete_object(Bucket=bucket, Key=key)
    locked = S3Protection.locked

    def refusing(self: S3Protection, key: str, version: str | None = None) -> str | None:
        if unread in key:
            raise RepositoryError("access denied")
        return locked(self, key, version)

    monkeypatch.setattr(S3Protection, "locked", refusing)
    found = {(f.severity, f.code): f for f in fsck(repository=repository).findings}
    assert found["error", "deleted"].key == backup_folder(SERIES, other)
    assert found["note", "versions_unread"].key == backup_folder(SERIES, unread)
    assert "access denied" in found["note", "versions_unread"].message


def test_all_files_are_reverted_but_those_that_the_store_refuses(
    client: S3Client, bucket: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, other = add(repository, 1), add(repository, 0)
    for key in (*keys_of(repository, refused), *keys_of(repository, other)):
        client.put_object(Bucket=bucket, Key=key, Body=b"your files are encrypted")
    restore = S3Protection.restore

    def refusing(self: S3Protection, version: Version, above: Sequence[Version]) -> None:
        if refused in version.key:
            raise RepositoryError("access denied")
        restore(self, version, above)

    monkeypatch.setattr(S3Protection, "restore", refusing)
    with pytest.raises(
        RepositoryError, match="4 of 8 overwritten files could not be reverted; the first: access denied"
    ):
        fsck(repository=repository, revert=True)
    assert state(repository, other) == "verified"


def test_a_pass_that_was_withdrawn_before_the_deletion_stays_so(s3: S3Server, client: S3Client) -> None:
    bucket, repository = versioned(s3, client)
    id = add(repository, 0)
    keys = keys_of(repository, id)
    withdrawn = next(key for key in keys if key.endswith("-pass.json"))
    client.delete_object(Bucket=bucket, Key=withdrawn)
    time.sleep(1.1)  # a store tells whole seconds
    for key in keys:
        if key != withdrawn:
            client.delete_object(Bucket=bucket, Key=key)
    undelete(repository=repository, series=SERIES, id=id)
    assert state(repository, id) == "written"
    assert find_lost(repository) == []
