"""Ransomware drill: somebody with credentials that may put, and not delete, loses us nothing that was verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from honest import write_backup, write_verification
from put_only import Credentials, no_overwriting, put_only

from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.fsck.findings import FsckReport
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli import main
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ManifestError, VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3 import copying
from airflow_pgbackup.repository.s3.options import MIB

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SERIES = Series("prod", "app")
NIGHTS = 5
WEEK = timedelta(days=7)
KEEP = {"keep_last": NIGHTS - 2, "replace_after": WEEK}


@dataclass
class Drill:
    """A repository with verified backups of five nights, its owner, and the thief of the worker's credentials.

    :ivar backups: oldest first. :ivar bytes: of every object before the attack.
    """

    bucket: str
    repository: Repository
    owner: Credentials
    thief: Credentials
    backups: list[Manifest]
    bytes: Mapping[str, bytes]

    @property
    def steals(self) -> S3Client:
        return self.thief.client()

    def keys(self) -> list[str]:
        pages = self.owner.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="pg/")
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def stored(self) -> dict[str, bytes]:
        client = self.owner.client()
        return {key: client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in self.keys()}

    def prune(self, *, later: timedelta = timedelta(0), **policy: Any) -> dict[str, Any]:
        """As the owner prunes the morning after."""
        now = datetime.now(timezone.utc) + later
        rules = Policy(**{**KEEP, **policy})
        result: dict[str, Any] = prune(repository=self.fresh(), policy=rules, dry_run=False, now=now)
        return result

    def fresh(self) -> Repository:
        return self.owner.open(self.repository.uri)

    def fsck(self, **options: Any) -> FsckReport:
        return fsck(repository=self.fresh(), **options)

    def remaining(self) -> set[str]:
        return {backup.id for backup in read_catalogue(self.fresh()).backups}

    def ids(self) -> set[str]:
        return {backup.id for backup in self.backups}

    def require_everything(self) -> None:
        """Every backup is there, verified as before, and every byte is the one that was verified."""
        for backup in self.backups:
            found = read_evidence(self.fresh(), SERIES, backup.id)
            assert (found.backup.state, found.backup.level) == ("verified", "archive")
            assert found.manifest == backup
        report = self.fsck(read="100%")
        assert report.sound, report.findings
        assert report.read
        assert report.read.files >= NIGHTS


def nights(repository: Repository) -> list[Manifest]:
    first = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=NIGHTS)
    made = []
    for night in range(NIGHTS):
        data = b"PGDMP" + bytes([night]) * 200
        made.append(write_backup(repository, SERIES, first + timedelta(days=night), members={"app.dump": data}))
    return made


def drill(s3: S3Server, endpoint_url: str | None = None, *, keeps_versions: bool) -> Drill:
    bucket = s3.bucket()
    owner = Credentials(s3.endpoint_url, s3.access_key, s3.secret_key)
    if keeps_versions:
        owner.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    repository = owner.open(f"s3://{bucket}/pg")
    repository.init()
    made = Drill(bucket, repository, owner, put_only(s3, bucket, endpoint_url), nights(repository), {})
    made.bytes = made.stored()
    return made


@pytest.fixture
def versioned(s3: S3Server) -> Drill:
    return drill(s3, keeps_versions=True)


@pytest.fixture
def plain(s3: S3Server) -> Drill:
    """In a bucket that keeps no versions."""
    return drill(s3, keeps_versions=False)


# -- overwriting ---------------------------------------------------------------------------------------------------


def garbage(old: bytes, key: str) -> bytes:
    return b"YOUR FILES ARE ENCRYPTED"


def of_the_same_size(old: bytes, key: str) -> bytes:
    """What is encrypted in place keeps its size, and no listing shows it."""
    return bytes(byte ^ 0x5A for byte in old)


def nothing(old: bytes, key: str) -> bytes:
    return b""


def overwrite(drill: Drill, how: Callable[[bytes, str], bytes], *, only: str = "") -> list[str]:
    hit = [key for key in drill.bytes if only in key]
    for key in hit:
        drill.steals.put_object(Bucket=drill.bucket, Key=key, Body=how(drill.bytes[key], key))
    return hit


@pytest.mark.parametrize("how", [garbage, of_the_same_size, nothing])
def test_everything_overwritten_is_found_named_and_brought_back_by_one_command(
    versioned: Drill,
    how: Callable[[bytes, str], bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = {
        one["Key"]: one["VersionId"]
        for one in versioned.owner.client().list_object_versions(Bucket=versioned.bucket)["Versions"]
    }
    hit = overwrite(versioned, how)
    found = {one.key: one for one in versioned.fsck().findings if one.code == "overwritten"}
    assert {f"pg/{key}" for key in found} == set(hit)
    for key, one in found.items():
        assert one.severity == "error"
        assert f"its first version is {first[f'pg/{key}']} of " in one.message
        assert one.hint.startswith("Run fsck with --revert to bring it back")
    for name, value in versioned.owner.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["fsck", versioned.repository.uri, "--revert"]) == 0
    shown = capsys.readouterr().out
    assert f"{len(hit)} repaired" in shown
    assert "the first version is current again" in shown
    assert versioned.stored() == versioned.bytes
    versioned.require_everything()
    assert main(["fsck", versioned.repository.uri]) == 0
    assert "no problems found" in capsys.readouterr().out, "what was reverted is not found again"


def test_a_large_file_is_brought_back_in_parts(versioned: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "COPY_PART", 5 * MIB)
    data = b"PGDMP" + bytes(range(256)) * (11 * MIB // 256)
    at = datetime.now(timezone.utc).replace(microsecond=0)
    made = write_backup(versioned.repository, SERIES, at, members={"app.dump": data})
    key = f"pg/{made.artifact_key}"
    versioned.steals.put_object(Bucket=versioned.bucket, Key=key, Body=b"garbage")
    (found,) = versioned.fsck(revert=True, read="100%").findings
    assert (found.code, found.repaired) == ("overwritten", True)
    assert versioned.owner.client().get_object(Bucket=versioned.bucket, Key=key)["Body"].read() == data
    assert versioned.fsck(read="100%").findings == ()


def test_no_version_can_be_overwritten_where_the_bucket_requires_if_none_match(s3: S3Server) -> None:
    with no_overwriting(s3) as proxy:
        target = drill(s3, proxy.url, keeps_versions=False)
        for key, data in target.bytes.items():
            with pytest.raises(ClientError, match="AccessDenied"):
                target.steals.put_object(Bucket=target.bucket, Key=key, Body=garbage(data, key))
            with pytest.raises(ClientError, match="PreconditionFailed"):
                target.steals.put_object(Bucket=target.bucket, Key=key, Body=b"x", IfNoneMatch="*")
        assert target.stored() == target.bytes
        target.require_everything()


def test_without_versions_what_is_overwritten_is_found_and_nothing_opens_it(plain: Drill) -> None:
    """Nothing brings it back: docs/guides/append-only.md says so."""
    overwrite(plain, of_the_same_size, only=".dump")
    report = plain.fsck(read="100%")
    assert [one.code for one in report.findings if one.severity == "error"] == ["checksum"] * NIGHTS
    for backup in plain.backups:
        with pytest.raises(VerificationFailed, match="checksum mismatch"):
            verify(reference=reference(plain, backup), repository=plain.fresh(), level="integrity")
    plain.prune(later=timedelta(days=30))
    assert plain.remaining() == plain.ids(), "what is there may still tell something"


def test_overwritten_manifests_and_verifications_make_prune_keep_everything(plain: Drill) -> None:
    overwrite(plain, garbage, only=".json")
    with pytest.raises(ManifestError, match="a repository that is not JSON"):
        plain.prune(later=timedelta(days=30))
    plain.owner.client().put_object(
        Bucket=plain.bucket, Key="pg/repository.json", Body=plain.bytes["pg/repository.json"]
    )
    result = plain.prune(later=timedelta(days=30))
    assert result["removed"] == 0
    assert plain.remaining() == plain.ids()
    for backup in plain.backups:
        with pytest.raises(ManifestError):
            verify(reference=reference(plain, backup), repository=plain.fresh(), level="integrity")


# -- what else credentials could do ---------------------------------------------------------------------------------


ELSE: dict[str, Callable[[S3Client, str, str], object]] = {
    "delete": lambda s3, bucket, key: s3.delete_object(Bucket=bucket, Key=key),
    "delete a version": lambda s3, bucket, key: s3.delete_object(Bucket=bucket, Key=key, VersionId="null"),
    "expire by lifecycle": lambda s3, bucket, key: s3.put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={
            "Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        },
    ),
    "suspend versioning": lambda s3, bucket, key: s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
    ),
    "allow it by policy": lambda s3, bucket, key: s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(EVERYTHING)),
    "legal hold": lambda s3, bucket, key: s3.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "ON"}),
    "delete the bucket": lambda s3, bucket, key: s3.delete_bucket(Bucket=bucket),
}
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}],
}


def test_nothing_else_is_allowed(versioned: Drill) -> None:
    for name, attack in ELSE.items():
        with pytest.raises(ClientError, match="AccessDenied"):
            attack(versioned.steals, versioned.bucket, next(iter(versioned.bytes)))
        assert versioned.stored() == versioned.bytes, name
    many = {"Objects": [{"Key": key} for key in versioned.bytes]}
    answer = versioned.steals.delete_objects(Bucket=versioned.bucket, Delete=many)  # type: ignore[arg-type]
    assert {error["Code"] for error in answer["Errors"]} == {"AccessDenied"}
    versioned.require_everything()


# -- forgeries ---------------------------------------------------------------------------------------------------------


def forge(drill: Drill, count: int = 10) -> set[str]:
    """Newer backups with passed verifications, consistent in themselves: one of each few minutes of today."""
    forged = drill.thief.open(drill.repository.uri)
    start = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    moments = [start + timedelta(minutes=number) for number in range(count)]
    looks = ("archive-pass", "restore-pass")
    return {write_backup(forged, SERIES, at, looks=looks, members={"app.dump": b"PGDMPforged"}).id for at in moments}


def test_forged_newer_backups_replace_nothing_for_as_long_as_the_policy_says(plain: Drill) -> None:
    forged = forge(plain)
    result = plain.prune(later=timedelta(hours=1))
    assert result["removed"] == 0
    good = [one for one in result["decisions"] if one["id"] in plain.ids()]
    assert [one["reasons"] for one in good[2:]] == [["what replaces it has not been stored for 7 days"]] * (NIGHTS - 2)
    assert plain.remaining() == plain.ids() | forged
    plain.require_everything()


def test_without_a_delay_they_replace_good_ones(plain: Drill) -> None:
    """Nothing is signed: docs/guides/append-only.md says so."""
    forged = forge(plain)
    plain.prune(later=timedelta(hours=1), replace_after=None)
    assert not plain.remaining() & plain.ids()
    assert len(plain.remaining() & forged) == NIGHTS - 2


def test_forged_failures_delete_nothing(plain: Drill) -> None:
    thief = plain.thief.open(plain.repository.uri)
    for backup in plain.backups:
        write_verification(thief, backup, "restore", "fail", backup.started_at + timedelta(hours=1))
    forged = forge(plain)
    result = plain.prune(later=timedelta(hours=1))
    assert result["removed"] == 0
    assert plain.remaining() == plain.ids() | forged
    states = {one["id"]: one["state"] for one in result["decisions"]}
    assert {states[id] for id in plain.ids()} == {"failed"}


def test_what_is_from_the_future_counts_for_nothing(plain: Drill) -> None:
    thief = plain.thief.open(plain.repository.uri)
    for day in range(1, 10):
        write_backup(thief, SERIES, datetime.now(timezone.utc) + timedelta(days=365 + day))
    result = plain.prune(replace_after=None)
    assert result["removed"] == 2, "the two oldest, by the rules"
    assert {backup.id for backup in plain.backups[2:]} <= plain.remaining()


def test_thousands_of_other_files_are_ignored(versioned: Drill) -> None:
    keys = [f"pg/prod/app/junk-{number}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: versioned.steals.put_object(Bucket=versioned.bucket, Key=key, Body=b"x"), keys))
    overwrite(versioned, garbage, only="manifest.json")
    report = versioned.fsck(revert=True)
    assert sum(one.repaired for one in report.findings) == NIGHTS, "found beyond the first page of versions"
    result = versioned.prune(later=timedelta(hours=1))
    assert result["removed"] == 0
    assert any(str(note).startswith("ignored foreign files: ") for note in result["notes"])
    for backup in versioned.backups:
        assert read_evidence(versioned.fresh(), SERIES, backup.id).backup.level == "archive"


def test_pins_only_keep(plain: Drill) -> None:
    thief = plain.thief.open(plain.repository.uri)
    for backup in plain.backups[:2]:
        pin(repository=thief, series=SERIES, id=backup.id)
        key = f"pg/{SERIES.path}/{backup.id}/pin.json"
        plain.steals.put_object(Bucket=plain.bucket, Key=key, Body=b"garbage")
    result = plain.prune(later=timedelta(days=30))
    assert result["removed"] == 0
    assert [one["reasons"] for one in result["decisions"][-2:]] == [["pinned"], ["pinned"]]
    plain.require_everything()


def reference(drill: Drill, backup: Manifest) -> dict[str, object]:
    uuid = json.loads(drill.bytes["pg/repository.json"])["uuid"]
    return {"repository_uuid": uuid, "series": SERIES.path, "id": backup.id, "repository": drill.repository.uri}
