"""The link from a task to the S3 console: as Airflow stores it in XCom, and as regions and names decide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.links import S3ConsoleLink
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.provider_info import get_provider_info
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options


def client_of(region: str, **fields: Any) -> Any:
    return boto3.client("s3", region_name=region, aws_access_key_id="x", aws_secret_access_key="y", **fields)


def url(folder: str, region: str = "eu-central-1", **fields: Any) -> str | None:
    client = client_of(region, **fields)
    repository = open_repository("s3://my-backups/pg", s3=S3Options(client_factory=lambda: client))
    return repository.console_url(folder)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "console.aws.amazon.com"),
        ("us-east-1", "console.aws.amazon.com"),
        ("cn-north-1", "console.amazonaws.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
def test_each_partition_has_its_console(region: str, host: str) -> None:
    assert url("prod/app/20261122T020000Z-3f9ac1", region) == (
        f"https://{host}/s3/buckets/my-backups?region={region}&prefix=pg%2Fprod%2Fapp%2F20261122T020000Z-3f9ac1%2F"
    )


def test_a_partition_or_store_without_a_console_has_no_link(tmp_path: Path) -> None:
    assert url("a/b", "us-iso-east-1") is None
    assert url("a/b", endpoint_url="http://127.0.0.1:8333") is None
    assert url("a/b", endpoint_url="https://amazonaws.com.example.org") is None
    assert open_repository(tmp_path.as_uri()).console_url("a/b") is None


@pytest.mark.parametrize("name", ["a&region=x#y", '"><script>', "../..", "%2F", "a%2Fb/…", "\u202e"])
def test_a_hostile_name_is_encoded(name: str) -> None:
    found = urlsplit(url(name) or "")
    assert (found.scheme, found.netloc, found.path) == ("https", "console.aws.amazon.com", "/s3/buckets/my-backups")
    assert parse_qs(found.query) == {"region": ["eu-central-1"], "prefix": [f"pg/{name}/"]}
    assert not set(found.geturl()) & set("\"<>' ")
    assert not found.fragment


def test_the_link_is_registered() -> None:
    assert f"{S3ConsoleLink.__module__}.{S3ConsoleLink.__name__}" in get_provider_info()["extra-links"]


def test_the_link_is_in_xcom(
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The console of AWS is pretended: the test's store has none."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from airflow_pgbackup.repository.s3 import repository as module
    from airflow_pgbackup.repository.s3.console import console_url

    postgres_connection("db", fresh_database(server18, None, "CREATE TABLE film (id int)"))
    aws_connection()
    bucket = s3.bucket()
    source = f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository="s3://{bucket}/pg", init_repository=True)
PgBackupVerifyOperator(task_id="verify", backup=dump.output)
PgBackupVerifyOperator.partial(task_id="mapped").expand(backup=[dump.output])
PgBackupUploadOperator(
    task_id="upload", backup=dump.output, destination="s3://{bucket}/copy", minimum_level=None, init_repository=True
)
"""

    def links() -> dict[str, Any]:
        with create_session() as session:
            rows = session.scalars(select(XComModel).where(XComModel.key == S3ConsoleLink().xcom_key))
            found = {row.task_id: XComModel.deserialize_value(row) for row in rows}
        return {task_id: link for task_id, link in found.items() if bucket in link}

    aws = client_of("eu-central-1")
    monkeypatch.setattr(module, "console_url", lambda _client, bucket, prefix: console_url(aws, bucket, prefix))
    run = run_dag(source)
    assert set(run.states.values()) == {"success"}, run.output
    path = f"{run.results['dump']['series']}/{run.results['dump']['id']}/".replace("/", "%2F")
    start = f"https://console.aws.amazon.com/s3/buckets/{bucket}?region=eu-central-1&prefix="
    assert links() == {
        **dict.fromkeys(("dump", "verify", "mapped"), f"{start}pg%2F{path}"),
        "upload": f"{start}copy%2F{path}",
    }
