"""Object lock on a real S3 server: what is locked, until when, and what a bucket without it says."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from faulty_s3 import Call, FaultyS3
from honest import write_backup
from put_only import DENIED, Credentials, no_overwriting

from airflow_pgbackup.backup.check.repository import check_repository
from airflow_pgbackup.backup.findings import Finding, Findings
from airflow_pgbackup.backup.pin import pin, unpin
from airflow_pgbackup.backup.undelete import undelete
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.layout import Series, backup_folder
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.protection import ProtectionSettings
from airflow_pgbackup.repository.s3.object_lock import ObjectLock
from airflow_pgbackup.repository.s3.options import MIB, S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

FOLDER = "prod/app/20261122T020000Z-3f9ac1"
SET = "prod/@sets/20261122T020000Z-3f9ac1/set-20261122T031500.123456Z-complete.json"
SERIES = Series("prod", "app")
MONTH = timedelta(days=30)

Lockable = Callable[..., Repository]


@pytest.fixture(scope="module")
def client(s3: S3Server) -> S3Client:
    return s3.client()


@pytest.fixture(scope="module")
def bucket(client: S3Client) -> str:
    name = f"lockable-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def lockable(client: S3Client, bucket: str) -> Lockable:
    """``lockable(**store)``: a new repository in a bucket with object lock."""
    prefix = secrets.token_hex(4)

    def make(**store: Any) -> Repository:
        options = S3Options.of_store(store, client_factory=lambda: client)
        repository = open_repository(f"s3://{bucket}/{prefix}", s3=options)
        repository.init()
        return repository

    return make


def locks(client: S3Client, repository: Repository) -> dict[str, tuple[str, datetime] | None]:
    """The object lock of each object of a repository, by its name."""
    bucket, _, prefix = repository.uri.removeprefix("s3://").partition("/")
    found: dict[str, tuple[str, datetime] | None] = {}
    for entry in repository.list():
        head = client.head_object(Bucket=bucket, Key=f"{prefix}/{entry.key}")
        mode = head.get("ObjectLockMode")
        found[entry.key] = (mode, head["ObjectLockRetainUntilDate"]) if mode else None
    return found


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_what_makes_a_backup_is_locked_when_it_is_written(
    client: S3Client, lockable: Lockable, tmp_path: Path, mode: str
) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    # Short with compliance, in which nobody could remove what the test leaves.
    repository = lockable(lock_for="30d" if mode == "governance" else timedelta(minutes=10), lock_mode=mode)
    span = MONTH if mode == "governance" else timedelta(minutes=10)
    (tmp_path / "toc.dat").write_bytes(b"small")
    (tmp_path / "1.dat").write_bytes(bytes(9 * MIB))
    repository.probe()
    repository.write(f"{FOLDER}/app.dump", io.BytesIO(bytes(17 * MIB)))
    repository.write_directory(f"{FOLDER}/a1/app.dir", tmp_path)
    for name in ("manifest.json", "verification-20261122T021500.000000Z-archive-pass.json", PIN_FILE):
        repository.write_bytes(f"{FOLDER}/{name}", b"{}")
    repository.write_bytes(SET, b"{}")
    copied = repository.copy_from(repository, f"{FOLDER}/app.dump", f"{FOLDER}/copy.dump")
    assert copied is not None
    found = locks(client, repository)
    after = datetime.now(timezone.utc)
    assert found.pop("repository.json") is None
    assert found.pop(f"{FOLDER}/{PIN_FILE}") is None, "unpin removes it"
    assert len(found) == 7
    for key, lock in found.items():
        assert lock is not None, key
        assert lock[0] == mode.upper()
        assert before + span <= lock[1] <= after + span + timedelta(seconds=1), key


def test_a_bucket_without_object_lock_is_refused_before_the_dump(s3: S3Server) -> None:
    options = S3Options.of_store({"lock_for": "36h"}, client_factory=s3.client)
    repository = open_repository(f"s3://{s3.bucket()}", s3=options)
    repository.init()
    with pytest.raises(ConfigurationError, match="has no object lock, but lock_for is 36h") as caught:
        repository.probe()
    assert caught.value.hint == "Enable versioning and object lock for the bucket, or remove lock_for."
    assert [entry.key for entry in repository.list()] == ["repository.json"]


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"lock_for": "a month"}, "'a month' is not a time span"),
        ({"lock_for": 30}, "invalid lock_for: 30"),
        ({"lock_for": timedelta(0)}, "invalid lock_for: 0:00:00"),
        ({"lock_for": "36501d"}, "invalid lock_for: 36501 days"),
        ({"lock_for": "30d", "lock_mode": "strict"}, "invalid lock_mode 'strict'"),
        (
            {"lock_for": "30d", "extra_args": {"ObjectLockMode": "GOVERNANCE"}},
            "the S3 extra argument ObjectLockMode cannot be combined with lock_for",
        ),
    ],
)
def test_invalid_locks_are_refused(store: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        S3Options.of_store(store)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_the_store_takes_precedence_over_the_settings() -> None:
    assert S3Options.of_store({}).lock is None
    assert S3Options.of_store({}, lock_for="").lock is None
    assert S3Options.of_store({}, lock_for="8w", lock_mode="compliance").lock == ObjectLock(
        timedelta(weeks=8), "compliance"
    )
    assert S3Options.of_store({"lock_for": None}, lock_for="8w").lock is None
    assert S3Options.of_store({"lock_for": "1d"}, lock_for="8w").lock == ObjectLock(timedelta(days=1))


def test_how_a_bucket_keeps_what_is_deleted(s3: S3Server, client: S3Client, lockable: Lockable) -> None:
    plain = open_repository(f"s3://{s3.bucket()}", s3=S3Options(client_factory=s3.client))
    assert plain.protection.settings() == ProtectionSettings(versioning="off", object_lock=False, noncurrent_days=0)
    repository = lockable(lock_for="30d")
    assert repository.protection.settings() == ProtectionSettings(
        versioning="enabled", object_lock=True, noncurrent_days=0, lock_mode="governance", lock_span=MONTH
    )
    name = f"ruled-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(
        Bucket=name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 14}},
        },
    )

    def rule(name: str, prefix: str, days: int, *, on: bool = True) -> Any:
        return {
            "ID": name,
            "Status": "Enabled" if on else "Disabled",
            "Filter": {"Prefix": prefix},
            "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        }

    rules = [rule("off", "", 1, on=False), rule("other", "logs/", 2), rule("ours", "pg/", 60), rule("all", "", 90)]
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    ruled = open_repository(f"s3://{name}/pg", s3=S3Options(client_factory=s3.client))
    assert ruled.protection.settings() == ProtectionSettings(
        versioning="enabled",
        object_lock=True,
        default_mode="compliance",
        default_span=timedelta(days=14),
        noncurrent_days=60,
    )


def test_a_pin_holds_the_files_of_a_backup(client: S3Client, lockable: Lockable) -> None:
    repository = lockable()
    made = write_backup(repository, SERIES, datetime.now(timezone.utc), looks=["archive-pass"])
    assert pin(repository=repository, series=SERIES, id=made.id) is None
    keys = [entry.key for entry in repository.list(backup_folder(SERIES, made.id)) if not entry.key.endswith(PIN_FILE)]
    assert [repository.protection.locked(key) for key in keys] == ["by a legal hold"] * 3
    bucket, _, prefix = repository.uri.removeprefix("s3://").partition("/")
    version = client.head_object(Bucket=bucket, Key=f"{prefix}/{keys[0]}")["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(
            Bucket=bucket, Key=f"{prefix}/{keys[0]}", VersionId=version, BypassGovernanceRetention=True
        )
    unpin(repository=repository, series=SERIES, id=made.id)
    assert [repository.protection.locked(key) for key in keys] == [None] * 3
    assert repository.stat(f"{backup_folder(SERIES, made.id)}/{PIN_FILE}") is None


def test_a_pin_without_object_lock_is_for_prune_alone(s3: S3Server) -> None:
    bucket = s3.bucket()
    repository = open_repository(f"s3://{bucket}", s3=S3Options(client_factory=s3.client))
    repository.init()
    made = write_backup(repository, SERIES, datetime.now(timezone.utc), looks=["archive-pass"])
    assert pin(repository=repository, series=SERIES, id=made.id) == f"bucket {bucket} has no object lock"
    assert repository.stat(f"{backup_folder(SERIES, made.id)}/{PIN_FILE}") is not None
    unpin(repository=repository, series=SERIES, id=made.id)
    assert repository.stat(f"{backup_folder(SERIES, made.id)}/{PIN_FILE}") is None


def test_check_reports_how_the_bucket_keeps_what_is_deleted(
    s3: S3Server, client: S3Client, bucket: str, lockable: Lockable
) -> None:
    def checked(repository: Repository) -> tuple[list[str], list[str]]:
        said: list[str] = []
        findings = Findings()
        assert check_repository(repository, "prod", findings, said.append) == []
        return [finding.code for finding in findings.sorted()], said

    repository = lockable(lock_for="30d")
    codes, said = checked(repository)
    # The administrator of the test's server may do everything.
    assert sorted(codes) == ["lock_bypass", "versions_kept"]
    assert said[-1] == (
        f"{repository.uri}: versioning enabled; object lock; no rule removes noncurrent versions; "
        "backups are locked for 30 days (governance)"
    )
    versions = client.list_object_versions(Bucket=bucket, Prefix=f"{repository.uri.rpartition('/')[2]}/.pgbackup")
    probes = {version["Key"] for version in versions.get("Versions", [])}
    assert len(probes) == 1, "the file of the first probe; that of the second was deleted"
    assert checked(lockable(lock_for=timedelta(minutes=10), lock_mode="compliance"))[0] == ["versions_kept"]
    plain = open_repository(f"s3://{s3.bucket()}", s3=S3Options(client_factory=s3.client))
    plain.init()
    assert checked(plain)[0] == []


def found_through_proxy(s3: S3Server, bucket: str, url: str) -> list[Finding]:
    """What check finds in a bucket with object lock."""
    client = Credentials(url, s3.access_key, s3.secret_key).client()
    options = S3Options.of_store({"lock_for": "30d"}, client_factory=lambda: client)
    repository = open_repository(f"s3://{bucket}/{secrets.token_hex(4)}", s3=options)
    repository.init()
    findings = Findings()
    check_repository(repository, "prod", findings, lambda line: None)
    return [finding for finding in findings.sorted() if finding.code != "versions_kept"]


def test_check_of_a_lock_works_where_the_bucket_requires_if_none_match(s3: S3Server, bucket: str) -> None:
    with no_overwriting(s3) as proxy:
        assert found_through_proxy(s3, bucket, proxy.url) == []


def test_check_of_a_lock_works_where_the_bucket_refuses_short_locks(s3: S3Server, bucket: str) -> None:
    def is_short(call: Call) -> bool:
        until = call.headers.get("x-amz-object-lock-retain-until-date")
        return until is not None and datetime.fromisoformat(until) < datetime.now(timezone.utc) + timedelta(days=1)

    with FaultyS3(s3.endpoint_url).running() as proxy:
        refused = proxy.fault("PutObject", "answer", **DENIED, when=is_short)
        assert [one.code for one in found_through_proxy(s3, bucket, proxy.url)] == ["lock_bypass"]
        assert refused.hits == 1


def test_check_reports_that_the_role_may_not_lock(s3: S3Server, bucket: str) -> None:
    with FaultyS3(s3.endpoint_url).running() as proxy:
        proxy.fault("PutObject", "answer", **DENIED, when=lambda call: "x-amz-object-lock-mode" in call.headers)
        (found,) = found_through_proxy(s3, bucket, proxy.url)
    assert (found.severity, found.code) == ("error", "protection")
    assert "with lock_for PutObjectRetention" in found.hint


def test_a_refused_copy_over_a_delete_marker_names_the_way_out(s3: S3Server, client: S3Client) -> None:
    bucket = s3.bucket()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with no_overwriting(s3) as proxy:
        repository = Credentials(proxy.url, s3.access_key, s3.secret_key).open(f"s3://{bucket}")
        repository.init()
        made = write_backup(repository, SERIES, datetime.now(timezone.utc))
        for entry in repository.list(backup_folder(SERIES, made.id)):
            client.delete_object(Bucket=bucket, Key=entry.key)
        with pytest.raises(RepositoryError, match="access denied") as caught:
            undelete(repository=repository, series=SERIES, id=made.id)
    assert "use a role with s3:DeleteObjectVersion" in (caught.value.hint or "")
