from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import MAX_PART, PartPlan, S3Options

MIB = 1024**2
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("file:///var/backups/pg", "file:///var/backups/pg"),
        ("file:///var/backups/pg/", "file:///var/backups/pg"),
        ("FILE://localhost/var/backups", "file:///var/backups"),
        ("file:///var/my%20dir%3F", "file:///var/my%20dir%3F"),
        ("file:///var/my dir", "file:///var/my%20dir"),
        ("file:///väter", "file:///v%C3%A4ter"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/a/b", "s3://my.bucket-1/a/b"),
        ("s3://bucket/a b/", "s3://bucket/a b"),
    ],
)
def test_uris_that_are_read(uri: str, canonical: str) -> None:
    assert open_repository(uri).uri == canonical


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("/var/backups", "file:///var/backups"),
        ("backups", "file:///absolute"),
        ("./backups", "file:///absolute"),
        ("", "file:///absolute"),
        ("file:var/backups", "file:///absolute"),
        ("file://var/backups", "three slashes: file:///var/backups"),
        ("file:///", "file:///absolute"),
        ("file:///var/../etc", "file:///absolute"),
        ("file:///var/%2e%2e/etc", "file:///absolute"),
        ("file:///var//x", "file:///absolute"),
        ("file:///var/x?sync=no", "%3F"),
        ("file:///var/x#y", "%23"),
        ("s3://", "s3://bucket"),
        ("s3:///prefix", "s3://bucket"),
        ("s3://bucket//a", "s3://bucket"),
        ("s3://bucket/a/../b", "s3://bucket"),
        ("s3://bucket/a?region=x", "%3F"),
        ("s3://localhost:9000/bucket", "endpoint_url"),
        ("s3a://bucket/x", "s3://bucket/x"),
        ("gs://bucket/x", "s3://bucket"),
        ("postgresql://h/db", "s3://bucket"),
    ],
)
def test_uris_that_are_refused(uri: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_repository(uri)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA123:sEcReT@bucket/x",
        "s3://AKIA123:sEcReT/k@bucket/x",
        "sftp://me:sEcReT@host/x",
        "file://me:sEcReT@host/x",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="credentials") as caught:
        open_repository(uri)
    assert "sEcReT" not in str(caught.value)


def test_opening_touches_nothing(tmp_path: Path) -> None:
    open_repository((tmp_path / "x").as_uri())
    open_repository("s3://no-such-bucket/x")
    assert list(tmp_path.iterdir()) == []


def test_a_local_repository_costs_no_boto3() -> None:
    code = "import sys; from airflow_pgbackup.repository.open import open_repository; open_repository('file:///x'); "
    code += "assert not {'boto3', 'botocore', 'jsonschema'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "options",
    [
        {"extra_args": {"StorageClas": "x"}},
        {"extra_args": {1: "x"}},
        {"extra_args": "StorageClass=x"},
        {"extra_args": [["StorageClass", "x"]]},
        {"extra_args": {"Metadata": "team=data"}},
        {"extra_args": {"IfNoneMatch": "*"}},
        {"extra_args": {"ChecksumCRC32": "AAAAAA=="}},
        {"extra_args": {"StorageClass": "GLACIER"}},
        {"extra_args": {"StorageClass": "DEEP_ARCHIVE"}},
        {"max_parts": 0},
        {"max_parts": 10_001},
        {"min_part_size": 1024},
        {"memory": 0},
        {"max_concurrency": 0},
    ],
)
def test_s3_options_are_checked_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        S3Options(**options)


def test_an_access_point_is_named_by_its_alias() -> None:
    with pytest.raises(ConfigurationError, match="holds an ARN") as caught:
        open_repository("s3://arn:aws:s3:eu-central-1:111122223333:accesspoint/backups/pg")
    assert "-s3alias" in (caught.value.hint or "")
    open_repository("s3://backups-h2kxd9example-s3alias/pg", s3=S3Options(extra_args={"StorageClass": "GLACIER_IR"}))


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        S3Options(extra_args={"StorageClas": "STANDARD_IA"})
    assert caught.value.hint == "Did you mean 'StorageClass'?"


@pytest.mark.parametrize("key", [918273645, ["918273645"], None])
def test_an_encryption_key_that_is_not_text_is_refused_and_not_repeated(key: object) -> None:
    with pytest.raises(ConfigurationError, match="SSECustomerKey is not text") as caught:
        S3Options(extra_args={"SSECustomerKey": key})
    assert "918273645" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    assert "kEy" not in repr(S3Options(extra_args={"SSECustomerKey": "kEy"}))


# -- part sizes --------------------------------------------------------------------------------------------------


def plan_of(expected: int | None, max_parts: int, min_part_size: int = 8 * MIB) -> list[int]:
    plan = PartPlan(expected, max_parts, min_part_size)
    sizes = []
    for _ in range(max_parts):
        sizes.append(plan.next_size)
        plan.number += 1
    return sizes


@pytest.mark.parametrize("max_parts", [1, 2, 3, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("expected", [None, 0, 1, 100 * MIB, 5 * GIB, 200 * GIB, 3000 * GIB])
def test_what_is_expected_fits_into_parts_of_one_size(expected: int | None, max_parts: int) -> None:
    sizes = plan_of(expected, max_parts)
    assert all(8 * MIB <= size <= MAX_PART and size % MIB == 0 for size in sizes)
    assert sizes == sorted(sizes)
    if (expected or 0) <= MAX_PART * (max_parts * 3 // 4 or 1):
        same = [size for size in sizes if size == sizes[0]]
        assert sum(same) >= (expected or 0)


@pytest.mark.parametrize("max_parts", [100, 1000, 10_000])
@pytest.mark.parametrize("expected", [None, 5 * GIB, 200 * GIB])
def test_a_stream_that_outgrows_its_estimate_by_twenty_times_still_fits(expected: int | None, max_parts: int) -> None:
    sizes = plan_of(expected, max_parts)
    assert sum(sizes) >= min(20 * max(expected or 0, 8 * MIB * max_parts), MAX_PART * max_parts // 10)


def test_no_more_memory_than_needed() -> None:
    assert set(plan_of(10 * GIB, 10_000)[:7500]) == {8 * MIB}
    assert plan_of(10 * GIB, 1000)[0] == 14 * MIB
    assert plan_of(1000 * GIB, 10_000)[0] == 137 * MIB


@pytest.mark.parametrize(
    "store", [{"extra_args": ["a"]}, {"extra_args": None}, {"extra_args": "x"}, "max_parts=1", ["a"]]
)
def test_what_a_connection_says_of_a_store_may_be_anything(store: Any) -> None:
    with pytest.raises(ConfigurationError, match="not a mapping"):
        S3Options.of_store(store)
    with pytest.raises(ConfigurationError, match="extra_args is a str, not a mapping"):
        S3Options.of_store({}, extra_args="StorageClass=x")  # type: ignore[arg-type]
