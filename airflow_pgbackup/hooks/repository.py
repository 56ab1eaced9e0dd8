"""From a repository's URI and an Airflow connection to a :class:`~airflow_pgbackup.repository.base.Repository`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository


def open_repository(
    uri: str,
    aws_conn_id: str | None = "aws_default",
    *,
    extra_args: Mapping[str, Any] | None = None,
    cancel: Cancel | None = None,
) -> Repository:
    """Open ``file:///folder`` or ``s3://bucket/prefix``. Nothing is asked of S3 yet.

    The client is made by the official ``S3Hook``, so all that the connection says holds: endpoint_url, region_name,
    role_arn, verify, config_kwargs, service_config. It is made anew when its credentials have expired. What the store
    itself is like stands in the connection, too, for every task that uses it::

        {"service_config": {"s3": {"max_parts": 1000, "extra_args": {"ServerSideEncryption": "aws:kms"}}}}

    :param aws_conn_id: of type ``aws``; None is boto3's own chain. Not used for ``file://``.
    :param extra_args: boto3's ``ExtraArgs`` (encryption, storage class, tags, ``ChecksumAlgorithm`` …), over those of
        the connection.
    :param cancel: heeded while it is listed and, in S3, read.
    :raises ConfigurationError: no such kind of URI, an extra argument that S3 does not know, a limit out of range.
    """
    from airflow_pgbackup.repository.open import open_repository as open_uri
    from airflow_pgbackup.repository.s3.options import S3Options

    if aws_conn_id is None or not uri.lower().startswith("s3://"):
        return open_uri(uri, s3=S3Options(extra_args=extra_args or {}), cancel=cancel)

    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    def client() -> S3Client:
        made: S3Client = S3Hook(aws_conn_id=aws_conn_id).get_conn()
        return made

    store = S3Hook(aws_conn_id=aws_conn_id).service_config
    return open_uri(uri, s3=S3Options.of_store(store, extra_args=extra_args, client_factory=client), cancel=cancel)
