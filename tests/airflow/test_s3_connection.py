"""What an ``aws`` connection says of its store holds for every task that uses it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError

MIB = 1024**2


def test_limits_and_extra_arguments_of_the_connection(s3: S3Server, aws_connection: Callable[..., None]) -> None:
    """A store that allows four parts, and wants tags on what it keeps."""
    from airflow_pgbackup.hooks.repository import open_repository

    store = {"max_parts": 4, "min_part_size": 5 * MIB, "extra_args": {"Tagging": "a=connection", "ContentType": "x/y"}}
    aws_connection(extra={"endpoint_url": s3.endpoint_url, "region_name": "us-east-1", "service_config": {"s3": store}})
    bucket = s3.bucket()
    repository = open_repository(f"s3://{bucket}", extra_args={"Tagging": "a=task"})
    repository.init()
    repository.write("s/d/a.dump", io.BytesIO(bytes(60 * MIB)), size_hint=60 * MIB)
    head = s3.client().head_object(Bucket=bucket, Key="s/d/a.dump")
    assert head["ETag"].strip('"').endswith("-3")
    assert head["ContentType"] == "x/y"
    tags: Any = s3.client().get_object_tagging(Bucket=bucket, Key="s/d/a.dump")["TagSet"]
    assert tags == [{"Key": "a", "Value": "task"}]


def test_airflow_is_asked_once_until_credentials_expire(
    s3: S3Server, aws_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from airflow_pgbackup.hooks.repository import open_repository

    asked: list[str] = []
    get_connection = S3Hook.get_connection
    monkeypatch.setattr(S3Hook, "get_connection", staticmethod(lambda id: asked.append(id) or get_connection(id)))  # type: ignore[func-returns-value]
    aws_connection()
    repository: Any = open_repository(f"s3://{s3.bucket()}/pg")
    repository.init()
    repository.write("s/d/a.dump", io.BytesIO(b"a"), size_hint=1)
    assert asked == ["aws_default"]
    first, second = (repository._bucket.options.client_factory() for _ in "12")
    assert first is not second
    assert asked == ["aws_default"] * 3


def test_repositories_of_one_connection_share_its_client(
    s3: S3Server, aws_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from airflow_pgbackup.hooks.repository import Repositories

    made: list[str] = []
    get_conn = S3Hook.get_conn
    monkeypatch.setattr(S3Hook, "get_conn", lambda hook: made.append(hook.aws_conn_id) or get_conn(hook))  # type: ignore[func-returns-value]
    aws_connection()
    aws_connection("other")
    bucket, client = s3.bucket(), s3.client()
    opened = Repositories()
    one = opened.open(f"s3://{bucket}/one")
    two = opened.open(f"s3://{bucket}/two", extra_args={"ContentType": "x/y"})
    three = opened.open(f"s3://{bucket}/three", "other")
    for repository in (one, two, three):
        repository.init()
    assert made == ["aws_default", "other"]
    types = [client.head_object(Bucket=bucket, Key=f"{name}/repository.json")["ContentType"] for name in ("one", "two")]
    assert types[0] != types[1] == "x/y", "extra arguments are of one repository only"


def test_a_connection_that_does_not_exist_is_not_the_worker_s_own_account(
    s3: S3Server, airflow_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_pgbackup.hooks.repository import open_repository

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    uri = f"s3://{s3.bucket()}/pg"
    with pytest.raises(ConfigurationError, match=r"finds no connection 'othr_account'\. HINT: Create .*pass None"):
        open_repository(uri, "othr_account").init()
    for own in (None, "aws_default"):
        assert open_repository(uri, own).init()


@pytest.mark.parametrize("store", [{"max_parts": 0}, {"max_parts": "1000"}, {"extra_args": {"StorageClas": "GLACIER"}}])
def test_nonsense_in_the_connection_is_said(store: dict[str, object], aws_connection: Callable[..., None]) -> None:
    from airflow_pgbackup.hooks.repository import open_repository

    aws_connection(extra={"service_config": {"s3": store}})
    with pytest.raises(ConfigurationError, match=r"max_parts|StorageClas"):
        open_repository("s3://bucket/prefix")


@pytest.mark.parametrize("conn_id", ["aws_default", None])
def test_the_object_lock_of_the_settings(
    s3: S3Server, aws_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, conn_id: str | None
) -> None:
    from airflow_pgbackup.hooks.repository import open_repository

    aws_connection(extra={"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"})
    for name, value in (("ENDPOINT_URL_S3", s3.endpoint_url), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AIRFLOW__PGBACKUP__LOCK_FOR", "36h")
    repository = open_repository(f"s3://{s3.bucket()}", conn_id)
    repository.init()
    with pytest.raises(ConfigurationError, match="has no object lock, but lock_for is 36h"):
        repository.probe()


def test_the_object_lock_of_the_connection(
    aws_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_pgbackup.hooks.repository import open_repository

    monkeypatch.setenv("AIRFLOW__PGBACKUP__LOCK_FOR", "36h")
    aws_connection(extra={"service_config": {"s3": {"lock_for": "a month"}}})
    with pytest.raises(ConfigurationError, match="'a month' is not a time span"):
        open_repository("s3://bucket/prefix")
