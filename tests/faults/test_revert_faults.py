"""Bringing back an overwritten file goes wrong: nothing is lost, and what stays hidden is said."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import boto3.session
import pytest
from botocore.config import Config
from faulty_s3 import Call, FaultyS3
from honest import write_backup

from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.undelete import undelete
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import MANIFEST_FILE, Series, backup_folder
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

APP = Series("prod", "app")
FORGED = b"{}"
ALWAYS = 1000


class Overwritten:
    """A repository with one backup, whose manifest somebody has overwritten.

    :ivar repository: through the proxy, with the client `through`. :ivar client: without it.
    """

    def __init__(self, s3: S3Server, proxy: FaultyS3) -> None:
        self.client: S3Client = s3.client()
        self.bucket = s3.bucket(f"revert-{secrets.token_hex(4)}")
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        session = boto3.session.Session(s3.access_key, s3.secret_key, region_name="us-east-1")
        config = Config(proxies={}, retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        self.through: S3Client = session.client("s3", endpoint_url=proxy.url, config=config)
        self.repository: Repository = open_repository(
            f"s3://{self.bucket}/pg", s3=S3Options(client_factory=lambda: self.through)
        )
        self.repository.init()
        started = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
        self.id = write_backup(self.repository, APP, started, looks=["archive-pass"]).id
        self.manifest = f"pg/{backup_folder(APP, self.id)}/{MANIFEST_FILE}"
        self.client.put_object(Bucket=self.bucket, Key=self.manifest, Body=FORGED)
        proxy.calls.clear()

    def versions(self) -> set[tuple[str, bool]]:
        """The ids of the manifest's versions and delete markers, each with whether it is the current one."""
        answer = self.client.list_object_versions(Bucket=self.bucket, Prefix=self.manifest)
        found = [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])]
        return {(each["VersionId"], each["IsLatest"]) for each in found}

    def markers(self) -> list[str]:
        answer = self.client.list_object_versions(Bucket=self.bucket, Prefix=self.manifest)
        return [marker["VersionId"] for marker in answer.get("DeleteMarkers", [])]

    def revert(self) -> None:
        fsck(repository=self.repository, revert=True)

    def undelete(self) -> None:
        undelete(repository=self.repository, series=APP, id=self.id)

    def require_verified(self) -> None:
        assert read_evidence(self.repository, APP, self.id).backup.state == "verified"


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyS3]:
    with FaultyS3(s3.endpoint_url).running() as running:
        yield running


@pytest.fixture
def overwritten(s3: S3Server, proxy: FaultyS3) -> Overwritten:
    return Overwritten(s3, proxy)


def asks_for_versioning(call: Call) -> bool:
    return call.query == "versioning"


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented")])
def test_nothing_is_changed_where_versioning_cannot_be_read(
    overwritten: Overwritten, proxy: FaultyS3, status: int, code: str
) -> None:
    before = overwritten.versions()
    fault = proxy.fault("ListObjectsV2", "answer", status=status, code=code, when=asks_for_versioning)
    with pytest.raises(RepositoryError, match=r"cannot read whether versioning of bucket .* is enabled") as caught:
        overwritten.revert()
    assert fault.hits == 1
    assert (caught.value.hint or "").startswith("Grant s3:GetBucketVersioning")
    assert overwritten.versions() == before
    overwritten.revert()
    overwritten.require_verified()


def hides(call: Call) -> bool:
    return "versionId" not in call.query


def shows(call: Call) -> bool:
    return "versionId" in call.query


def test_a_lost_answer_to_the_deletion_leaves_the_file_as_it_was(overwritten: Overwritten, proxy: FaultyS3) -> None:
    """Each retry of the deletion makes a delete marker too."""
    before = overwritten.versions()
    fault = proxy.fault("DeleteObject", "lose", times=ALWAYS, when=hides)
    with pytest.raises(RepositoryError, match="cannot restore a version of") as caught:
        overwritten.revert()
    assert "hidden" not in str(caught.value)
    assert fault.hits > 1
    assert overwritten.versions() == before
    fault.times = 0
    overwritten.revert()
    overwritten.require_verified()


@pytest.mark.parametrize("how", [{"kind": "answer", "status": 403, "code": "AccessDenied"}, {"kind": "reset"}])
def test_what_may_stay_hidden_is_said(overwritten: Overwritten, proxy: FaultyS3, how: dict[str, Any]) -> None:
    proxy.fault("DeleteObject", "lose", times=ALWAYS, when=hides)
    proxy.fault("DeleteObject", times=ALWAYS, when=shows, **how)
    command = f"pgbackup undelete {overwritten.repository.uri} prod/app {overwritten.id}"
    with pytest.raises(RepositoryError, match=r"cannot restore a version of .*; the file may be hidden") as caught:
        overwritten.revert()
    assert command in (caught.value.hint or "")
    report = fsck(repository=overwritten.repository)
    assert not report.sound
    (found,) = [finding for finding in report.findings if finding.code == "deleted"]
    assert f"pg/{found.key}" == overwritten.manifest
    assert found.message.startswith("was overwritten, and then deleted at ")
    assert command in found.hint
    proxy.faults.clear()
    overwritten.undelete()
    overwritten.require_verified()
    assert fsck(repository=overwritten.repository).findings == ()


def test_a_damaged_copy_leaves_the_backup_visible(overwritten: Overwritten, proxy: FaultyS3) -> None:
    """The copy is deleted because it differs, which makes a delete marker of its own."""

    def confirms(call: Call) -> bool:
        return proxy.count("CopyObject") > 0 and call.key.endswith(overwritten.manifest)

    proxy.fault("HeadObject", "shrink", when=confirms)
    with pytest.raises(RepositoryError, match="differs from what was sent: 1 of") as caught:
        overwritten.revert()
    assert "hidden" not in str(caught.value)
    assert proxy.count("DeleteObject") == 4
    assert overwritten.markers() == []
    overwritten.revert()
    overwritten.require_verified()


def test_an_overwritten_verification_that_is_hidden_can_be_restored(overwritten: Overwritten) -> None:
    """As a kill between its deletion and its copy leaves it."""
    overwritten.revert()
    folder = f"pg/{backup_folder(APP, overwritten.id)}/verification-"
    (key,) = [
        item["Key"] for item in overwritten.client.list_objects_v2(Bucket=overwritten.bucket, Prefix=folder)["Contents"]
    ]
    overwritten.client.put_object(Bucket=overwritten.bucket, Key=key, Body=FORGED)
    overwritten.client.delete_object(Bucket=overwritten.bucket, Key=key)
    report = fsck(repository=overwritten.repository)
    (found,) = report.findings
    assert (found.severity, found.code, f"pg/{found.key}") == ("error", "deleted", key)
    overwritten.undelete()
    overwritten.require_verified()
    assert fsck(repository=overwritten.repository).findings == ()


def test_what_was_reverted_and_then_deleted_is_no_fault(overwritten: Overwritten) -> None:
    overwritten.revert()
    overwritten.client.delete_object(Bucket=overwritten.bucket, Key=overwritten.manifest)
    report = fsck(repository=overwritten.repository)
    assert report.sound
    assert [finding.severity for finding in report.findings if finding.code == "deleted"] == ["note"]


def test_what_was_overwritten_and_then_deleted_as_a_whole_is_no_fault(overwritten: Overwritten) -> None:
    """By prune, for example, after nobody had reverted it."""
    overwritten.repository.delete([entry.key for entry in list(overwritten.repository.list("prod"))])
    report = fsck(repository=overwritten.repository)
    assert [(found.severity, found.code) for found in report.findings] == [("note", "deleted")]
    overwritten.undelete()
    overwritten.require_verified()


@pytest.mark.parametrize("may_delete_versions", [True, False])
def test_an_interrupted_revert_shows_the_file_again_or_says_how(
    overwritten: Overwritten, proxy: FaultyS3, may_delete_versions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before = overwritten.versions()

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    overwritten.through.meta.events.register("before-call.s3.CopyObject", interrupt)
    if not may_delete_versions:
        proxy.fault("DeleteObject", "answer", status=403, code="AccessDenied", when=shows)
    with pytest.raises(KeyboardInterrupt):
        overwritten.revert()
    if may_delete_versions:
        assert overwritten.versions() == before
        assert caplog.messages == []
    else:
        assert len(overwritten.markers()) == 1
        assert f"pgbackup undelete {overwritten.repository.uri} prod/app {overwritten.id} brings it" in caplog.text


def test_no_command_shows_a_hidden_repository_file(overwritten: Overwritten, proxy: FaultyS3) -> None:
    overwritten.revert()
    overwritten.client.put_object(Bucket=overwritten.bucket, Key="pg/repository.json", Body=FORGED)
    proxy.fault("CopyObject", "answer", status=403, code="AccessDenied")
    proxy.fault("DeleteObject", "answer", status=403, code="AccessDenied", when=shows)
    with pytest.raises(RepositoryError, match="the file may be hidden behind a delete marker") as caught:
        overwritten.revert()
    hidden = f"{overwritten.repository.uri}/repository.json"
    assert (caught.value.hint or "").endswith(f"If {hidden} is hidden, remove its newest delete marker.")
