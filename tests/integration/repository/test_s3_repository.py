"""What only a bucket can do, or get wrong, on a real server."""

from __future__ import annotations

import base64
import gc
import io
import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3.session
import psutil
import pytest
from botocore.config import Config

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    RepositoryError,
    RepositoryNotFound,
    VerificationFailed,
)
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3 import copying, unfinished
from airflow_pgbackup.repository.s3.options import S3Options

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3.client import S3Client

MIB = 1024**2
FOLDER = "server/db/20261122T020000Z-3f9ac1"
KEY = f"{FOLDER}/a.dump"
SMALL = b"small"
LARGE = os.urandom(MIB) * 13


@pytest.fixture(scope="module")
def client(s3: S3Server) -> S3Client:
    return s3.client()


@pytest.fixture
def bucket(s3: S3Server, client: S3Client) -> Any:
    name = s3.bucket()
    yield name
    for upload in client.list_multipart_uploads(Bucket=name).get("Uploads", []):
        client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    versions = client.list_object_versions(Bucket=name)
    for version in [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]:
        client.delete_object(
            Bucket=name, Key=version["Key"], VersionId=version["VersionId"], BypassGovernanceRetention=True
        )
    client.delete_bucket(Bucket=name)


def made(uri: str, client: S3Client, **options: Any) -> Repository:
    repository = open_repository(uri, s3=S3Options(client_factory=lambda: client, **options))
    repository.init()
    return repository


def configured(server: S3Server, **config: Any) -> S3Client:
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1")
    return session.client("s3", endpoint_url=server.endpoint_url, config=Config(**config))


class Requests:
    """The requests of a client, with their headers, as they leave."""

    def __init__(self, client: S3Client) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        client.meta.events.register("before-call.s3", self._look)

    def _look(self, model: Any, params: dict[str, Any], **_: object) -> None:
        self.seen.append((model.name, {name.lower(): value for name, value in params["headers"].items()}))

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


# -- extra arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["put", "multipart"])
def test_extra_arguments_reach_the_object(client: S3Client, bucket: str, data: bytes) -> None:
    extra = {
        "StorageClass": "STANDARD_IA",
        "Tagging": "team=data&kind=backup",
        "Metadata": {"owner": "dba"},
        "ContentType": "application/x-pgdump",
    }
    repository = made(f"s3://{bucket}/p", client, extra_args=extra)
    repository.write(KEY, io.BytesIO(data), sha256=None)
    repository.write_bytes(f"{KEY}.json", b"{}")
    head = client.head_object(Bucket=bucket, Key=f"p/{KEY}")
    assert (head["StorageClass"], head["ContentType"]) == ("STANDARD_IA", "application/x-pgdump")
    assert head["Metadata"]["owner"] == "dba"
    tags = client.get_object_tagging(Bucket=bucket, Key=f"p/{KEY}")["TagSet"]
    assert sorted((t["Key"], t["Value"]) for t in tags) == [("kind", "backup"), ("team", "data")]
    digest = client.head_object(Bucket=bucket, Key=f"p/{KEY}.json")["Metadata"]["sha256"]
    assert digest == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["put", "multipart"])
def test_server_side_encryption_with_a_key_of_ours(client: S3Client, bucket: str, data: bytes) -> None:
    """SSE-C: each request that touches the bytes must carry the key."""
    extra = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0123456789abcdef0123456789abcdef"}
    repository = made(f"s3://{bucket}/p", client, extra_args=extra)
    entry = repository.write(KEY, io.BytesIO(data))
    assert repository.stat(KEY) == entry
    with repository.read(KEY, pin=entry) as stream:
        assert stream.read() == data
    keyless = open_repository(f"s3://{bucket}/p", s3=S3Options(client_factory=lambda: client))
    with pytest.raises(RepositoryError):
        keyless.read_bytes(KEY)


@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
def test_object_lock(s3: S3Server, client: S3Client, checksums: str) -> None:
    name = f"locked-{checksums.replace('_', '-')}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    until = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
    repository = made(
        f"s3://{name}",
        configured(s3, request_checksum_calculation=checksums),
        extra_args={"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until},
    )
    for key, data in ((KEY, SMALL), (f"{KEY}.2", LARGE)):
        repository.write(key, io.BytesIO(data))
        assert client.head_object(Bucket=name, Key=key)["ObjectLockRetainUntilDate"] == until
        assert (repository.protection.locked(key) or "").startswith(f"until {until:%Y-%m-%dT%H}")
    assert repository.protection.locked("never") is None


def test_the_expected_owner_goes_with_every_request(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    client = configured(s3)
    requests = Requests(client)
    owner = {"ExpectedBucketOwner": "123456789012"}
    repository = made(f"s3://{bucket}/p", client, extra_args=owner)
    other = made(f"s3://{bucket}/q", client, extra_args=owner)
    (tmp_path / "toc.dat").write_bytes(b"x")
    repository.probe()
    repository.write(KEY, io.BytesIO(LARGE))
    repository.write_directory(f"{FOLDER}/d", tmp_path)
    repository.read_bytes(KEY, limit=len(LARGE))
    list(repository.list())
    repository.folders()
    repository.unfinished_writes(timedelta(0))
    other.copy_from(repository, KEY, KEY)
    repository.delete([KEY])
    with pytest.raises(RuntimeError):
        repository.write(KEY, Broken(LARGE))
    assert {
        name for name, headers in requests.seen if headers.get("x-amz-expected-bucket-owner") != "123456789012"
    } == set()
    assert set(requests.names()) >= {
        *(
            "PutObject",
            "GetObject",
            "HeadObject",
            "ListObjectsV2",
            "ListMultipartUploads",
            "DeleteObjects",
            "CopyObject",
        ),
        *("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload"),
    }
    copies = [headers for name, headers in requests.seen if name == "CopyObject"]
    assert [headers["x-amz-source-expected-bucket-owner"] for headers in copies] == ["123456789012"]


class Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise RuntimeError("pg_dump failed (exit 1)")
        return data


# -- checksums ---------------------------------------------------------------------------------------------------


def head_of(client: S3Client, bucket: str, key: str) -> dict[str, Any]:
    return dict(client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED"))


def test_every_upload_has_a_checksum(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}", client)
    repository.write(KEY, io.BytesIO(SMALL))
    repository.write(f"{KEY}.2", io.BytesIO(LARGE))
    crc = base64.b64encode(zlib.crc32(SMALL).to_bytes(4, "big")).decode()
    assert head_of(client, bucket, KEY)["ChecksumCRC32"] == crc
    assert head_of(client, bucket, f"{KEY}.2")["ChecksumCRC32"].endswith("==-2")


@pytest.mark.every_value
@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
@pytest.mark.parametrize("kind", [{}, {"ChecksumType": "FULL_OBJECT"}], ids=["", "full"])
def test_a_chosen_checksum(client: S3Client, bucket: str, algorithm: str, kind: dict[str, str]) -> None:
    if kind and algorithm != "CRC32":
        kind = {"ChecksumType": "COMPOSITE"}  # S3 has full-object checksums of CRCs only
    repository = made(f"s3://{bucket}", client, extra_args={"ChecksumAlgorithm": algorithm, **kind})
    for key, data in ((KEY, SMALL), (f"{KEY}.2", LARGE)):
        repository.write(key, io.BytesIO(data))
        assert head_of(client, bucket, key)[f"Checksum{algorithm}"]


def test_a_checksum_that_needs_more_software_says_which(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}", client)
    other = open_repository(
        f"s3://{bucket}", s3=S3Options(client_factory=lambda: client, extra_args={"ChecksumAlgorithm": "CRC32C"})
    )
    with pytest.raises(Exception, match="common runtime") as caught:
        other.write(KEY, io.BytesIO(LARGE))
    assert "botocore[crt]" in str(caught.value)
    assert repository.stat(KEY) is None
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_a_store_that_wants_no_checksums_gets_none(s3: S3Server, bucket: str) -> None:
    client = configured(s3, request_checksum_calculation="when_required", response_checksum_validation="when_required")
    repository = made(f"s3://{bucket}", client)
    requests = Requests(client)
    for key, data in ((KEY, SMALL), (f"{KEY}.2", LARGE)):
        assert repository.write(key, io.BytesIO(data)).size == len(data)
    sent = {header for _, headers in requests.seen for header in headers}
    assert not any("checksum" in header for header in sent)


# -- parts -------------------------------------------------------------------------------------------------------


def parts_of(client: S3Client, bucket: str, key: str) -> int:
    return int(client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"').partition("-")[2] or 0)


def test_a_stream_that_outgrows_its_estimate_still_lands(client: S3Client, bucket: str) -> None:
    """Eight parts of 5 MiB were to hold 20 MiB; 58 come."""
    repository = made(f"s3://{bucket}", client, max_parts=8, min_part_size=5 * MIB)
    data = os.urandom(MIB) * 58
    repository.write(KEY, io.BytesIO(data), size_hint=20 * MIB)
    assert repository.read_bytes(KEY, limit=len(data)) == data
    assert parts_of(client, bucket, KEY) == 8


def test_a_stream_that_is_too_long_for_the_store_leaves_nothing(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}", client, max_parts=3, min_part_size=5 * MIB)
    with pytest.raises(RepositoryError, match="more than 3 parts") as caught:
        repository.write(KEY, io.BytesIO(bytes(60 * MIB)))
    assert "size hint" in (caught.value.hint or "")
    assert repository.stat(KEY) is None
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_few_parts_for_a_store_that_allows_few(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}", client, max_parts=4, min_part_size=5 * MIB)
    repository.write(KEY, io.BytesIO(bytes(60 * MIB)), size_hint=60 * MIB)
    assert parts_of(client, bucket, KEY) == 3


MEMORY = """
import re
from pathlib import Path
{prelude}
class Dump:
    left = {mib} * 2**20
    block = bytes(2**20)
    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return (self.block * (size // 2**20 + 1))[:size]
def peak():
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
repository.init()
before = peak()
repository.write("a/b/{mib}", Dump())
print(peak() - before)
"""


def test_memory_is_bounded(s3: S3Server, bucket: str) -> None:
    """Far below the 200 MiB that are allowed, and the same for four times the bytes."""
    prelude = textwrap.dedent(f"""
        import boto3
        from airflow_pgbackup.repository.open import open_repository
        from airflow_pgbackup.repository.s3.options import S3Options
        session = boto3.session.Session({s3.access_key!r}, {s3.secret_key!r}, region_name="us-east-1")
        client = session.client("s3", endpoint_url={s3.endpoint_url!r})
        repository = open_repository("s3://{bucket}", s3=S3Options(client_factory=lambda: client))
    """)
    grown = []
    for mib in (150, 600):
        code = MEMORY.format(prelude=prelude, mib=mib)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        grown.append(int(run.stdout) / 1024)
    assert 20 < max(grown) < 150, grown


@pytest.mark.parametrize("bad", ["0.dat", "5.dat", "large.dat"])
def test_a_damaged_member_takes_the_directory_with_it(client: S3Client, bucket: str, tmp_path: Path, bad: str) -> None:
    repository = made(f"s3://{bucket}", client)
    for number in range(6):
        (tmp_path / f"{number}.dat").write_bytes(SMALL)
    (tmp_path / "large.dat").write_bytes(LARGE * 3)
    with pytest.raises(VerificationFailed, match="expected sha256 000"):
        repository.write_directory(f"{FOLDER}/a.dir", tmp_path, digests={bad: "0" * 64})
    assert [e.key for e in repository.list()] == ["repository.json"]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


# -- copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_a_copy_within_the_store_does_not_pass_through_here(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    if parts:
        monkeypatch.setattr(copying, "COPY_PART", 5 * MIB)
    client = configured(s3)
    staging, final = made(f"s3://{bucket}/staging", client), made(f"s3://{bucket}/final", client)
    entry = staging.write(KEY, io.BytesIO(LARGE))
    requests = Requests(client)
    copied = final.copy_from(staging, KEY, KEY, pin=entry)
    assert copied is not None
    assert (copied.key, copied.size) == (KEY, len(LARGE))
    assert ("UploadPartCopy" in requests.names()) == parts
    assert not {"GetObject", "UploadPart", "PutObject"} & set(requests.names())
    assert final.read_bytes(KEY, limit=len(LARGE)) == LARGE
    with pytest.raises(AlreadyExists):
        final.copy_from(staging, KEY, KEY)
    with pytest.raises(BackupNotFound):
        final.copy_from(staging, "never", "never")
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_a_copy_of_something_else_fails(
    client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    if parts:
        monkeypatch.setattr(copying, "COPY_PART", 5 * MIB)
    staging, final = made(f"s3://{bucket}/staging", client), made(f"s3://{bucket}/final", client)
    entry = staging.write(KEY, io.BytesIO(LARGE))
    client.put_object(Bucket=bucket, Key=f"staging/{KEY}", Body=LARGE[::-1])
    with pytest.raises(RepositoryError, match="changed since"):
        final.copy_from(staging, KEY, KEY, pin=entry)
    assert final.stat(KEY) is None
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_what_the_store_cannot_copy(client: S3Client, bucket: str, tmp_path: Path) -> None:
    final = made(f"s3://{bucket}/final", client)
    local = LocalRepository(tmp_path / "pg")
    local.init()
    local.write_bytes(KEY, SMALL)
    assert final.copy_from(local, KEY, KEY) is None
    assert local.copy_from(final, KEY, KEY) is None
    elsewhere = open_repository(
        f"s3://{bucket}/x",
        s3=S3Options(client_factory=lambda: boto3.session.Session().client("s3", region_name="eu-west-1")),
    )
    assert final.copy_from(elsewhere, KEY, KEY) is None


# -- versions, uploads of others ---------------------------------------------------------------------------------


def test_a_pinned_read_gives_those_very_bytes_or_fails(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}", client)
    entry = repository.write_bytes(KEY, b"hashed")
    with repository.read(KEY, pin=entry) as stream:
        assert stream.read() == b"hashed"
    client.put_object(Bucket=bucket, Key=KEY, Body=b"forged")
    with pytest.raises(RepositoryError, match="changed since"), repository.read(KEY, pin=entry) as stream:
        stream.read()


def test_versions_by_key_and_newest_first(client: S3Client, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    repository = made(f"s3://{bucket}/pg", client)
    written: dict[str, list[str]] = {"a": [], "a/b": [], "aé": []}
    for _ in "12":
        for key, ids in written.items():
            ids.append(client.put_object(Bucket=bucket, Key=f"pg/{key}", Body=b"x" * len(ids))["VersionId"])
    client.put_object(Bucket=bucket, Key="other/a", Body=b"x")
    marker = client.delete_object(Bucket=bucket, Key="pg/a")["VersionId"]
    written["a"].append(client.put_object(Bucket=bucket, Key="pg/a", Body=b"xxx")["VersionId"])
    known = {marker, *itertools.chain(*written.values())}  # a request that boto3 has sent again makes another version
    found = [version for version in repository.protection.versions() if version.id in known]
    assert [key for key, _ in itertools.groupby(found, key=lambda version: version.key)] == ["a", "a/b", "aé"]
    for key, ids in written.items():
        data = [version for version in found if version.key == key and not version.deleted]
        assert [version.id for version in data] == ids[::-1]
        assert [version.latest for version in data] == [True] + [False] * (len(ids) - 1)
    assert [version.id for version in found if version.deleted] == [marker]
    assert found[0].id == written["a"][-1], "newer than the marker, although of the same second"
    below = [version.id for version in repository.protection.versions("a") if version.id in known]
    assert below == written["a/b"][::-1]


def test_what_was_written_while_versioning_was_suspended_is_newer(client: S3Client, bucket: str) -> None:
    """SeaweedFS lists the version null last."""
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    repository = made(f"s3://{bucket}/pg", client)
    first = client.put_object(Bucket=bucket, Key="pg/a", Body=b"x")["VersionId"]
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    client.put_object(Bucket=bucket, Key="pg/a", Body=b"xx")
    found = [version for version in repository.protection.versions() if version.key == "a"]
    assert found[0].id == "null"
    assert found[-1].id == first


def test_a_pin_survives_in_a_versioned_bucket(client: S3Client, bucket: str) -> None:
    """What was hashed is what is parsed, even when the key holds something else by now."""
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    repository = made(f"s3://{bucket}", client)
    entry = repository.write(KEY, io.BytesIO(LARGE))
    client.put_object(Bucket=bucket, Key=KEY, Body=b"forged")
    with repository.read(KEY, pin=entry) as stream:
        assert stream.read() == LARGE
    assert repository.read_bytes(KEY) == b"forged"


def test_uploads_of_others_are_not_ours_to_abort(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}", client)
    for key in ("photos/cat.jpg", f"{FOLDER}x/y", f"{KEY}.part"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    prefixed = made(f"s3://{bucket}/pg", client)
    assert prefixed.unfinished_writes(timedelta(0)) == []
    assert repository.unfinished_writes(timedelta(hours=1)) == []
    assert [leftover.key for leftover in repository.unfinished_writes(timedelta(seconds=-5))] == [f"{KEY}.part"]


def test_an_upload_that_grows_is_no_leftover(client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It began long ago; its last part has just come, by a clock that stands still from then on."""
    repository = made(f"s3://{bucket}", client)
    upload = client.create_multipart_upload(Bucket=bucket, Key=KEY)
    begun = client.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["Initiated"]
    while datetime.now(timezone.utc) < begun + timedelta(seconds=4):
        time.sleep(0.1)
    client.upload_part(Bucket=bucket, Key=KEY, UploadId=upload["UploadId"], PartNumber=1, Body=bytes(5 * MIB))
    (part,) = client.list_parts(Bucket=bucket, Key=KEY, UploadId=upload["UploadId"])["Parts"]
    assert begun < part["LastModified"] - timedelta(seconds=2)
    monkeypatch.setattr(unfinished, "server_time", lambda answer: part["LastModified"])
    assert repository.unfinished_writes(timedelta(seconds=2)) == []
    assert [leftover.key for leftover in repository.unfinished_writes(timedelta(seconds=-5))] == [KEY]


def test_a_probe_that_stayed_is_swept(client: S3Client, bucket: str) -> None:
    repository = made(f"s3://{bucket}/pg", client)
    client.put_object(Bucket=bucket, Key="pg/.pgbackup-tmp-probe-0123", Body=b"probe")
    found = repository.unfinished_writes(timedelta(seconds=-5))
    assert [leftover.key for leftover in found] == [".pgbackup-tmp-probe-0123"]
    assert repository.old_probes(timedelta(seconds=-5)) == found
    assert repository.old_probes(timedelta(hours=1)) == []
    repository.remove_unfinished(found)
    assert repository.unfinished_writes(timedelta(seconds=-5)) == []


# -- what a user gets wrong --------------------------------------------------------------------------------------


def wrong(server: S3Server, **changes: Any) -> S3Client:
    settings = {"key": server.access_key, "secret": server.secret_key, "endpoint": server.endpoint_url, **changes}
    session = boto3.session.Session(settings["key"], settings["secret"], region_name="us-east-1")
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=2)
    return session.client("s3", endpoint_url=settings["endpoint"], config=config)


@pytest.mark.parametrize(
    ("changes", "says", "hint"),
    [
        ({"secret": "wr0ng-s3cret"}, "secret key is wrong", "AWS connection"),
        ({"key": "AKIANOBODY"}, "does not know this access key", "AWS connection"),
        ({"endpoint": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer", "endpoint_url"),
        ({"endpoint": "http://no-such-host.invalid"}, "does not answer", "endpoint_url"),
        ({"key": None, "secret": None}, "no AWS credentials", "AWS connection"),
    ],
    ids=["secret", "key", "endpoint", "host", "none"],
)
def test_wrong_connections(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str, hint: str
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = wrong(s3, **changes)
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    calls: list[Callable[[], object]] = [
        lambda: repository.uuid,
        repository.init,
        repository.probe,
        lambda: repository.stat(KEY),
        lambda: list(repository.list()),
        lambda: repository.write_bytes(KEY, b""),
        lambda: repository.delete([KEY]),
        lambda: repository.unfinished_writes(timedelta(0)),
    ]
    for call in calls:
        with pytest.raises(RepositoryError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert hint in (caught.value.hint or "")
        assert "wr0ng-s3cret" not in str(caught.value)


def test_a_missing_bucket(s3: S3Server, client: S3Client) -> None:
    repository = open_repository("s3://no-such-bucket/pg", s3=S3Options(client_factory=lambda: client))
    for call in (lambda: repository.uuid, repository.init, repository.probe, lambda: list(repository.list())):
        with pytest.raises(RepositoryNotFound, match="bucket no-such-bucket does not exist at http") as caught:
            call()
        assert "Create the bucket" in (caught.value.hint or "")


def test_the_default_client_is_boto3s_own_chain(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    repository = open_repository(f"s3://{bucket}/pg")
    repository.init()
    assert json.loads(repository.read_bytes("repository.json"))["uuid"] == repository.uuid


def test_connections_are_closed_with_the_repository(s3: S3Server, bucket: str) -> None:
    """The API server opens a repository for each reading of the Backups page."""

    def connections() -> int:
        address = urlsplit(s3.endpoint_url)
        return sum(each.raddr[1:] == (address.port,) for each in psutil.Process().net_connections("tcp"))

    gc.collect()
    before = connections()
    gc.disable()
    try:
        repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))
        repository.init()
        assert connections() > before
        del repository
        assert connections() <= before  # the server may have closed others
    finally:
        gc.enable()
