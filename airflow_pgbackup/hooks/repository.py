"""Open a repository with an Airflow connection."""

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
    """Open ``file:///directory`` or ``s3://bucket/prefix``. No request is sent to S3 yet.

    The official ``S3Hook`` makes the client, so everything in the connection applies: endpoint_url, region_name,
    role_arn, verify, config_kwargs, service_config. A new client is made when its credentials have expired. The
    connection also describes the store. All tasks with that connection use it::

        {"service_config": {"s3": {"max_parts": 1000, "extra_args": {"ServerSideEncryption": "aws:kms"}}}}

    :param aws_conn_id: a connection of type ``aws``; None is boto3's own chain. ``file://`` does not use it.
    :param extra_args: boto3's ``ExtraArgs`` (encryption, storage class, tags, ``ChecksumAlgorithm`` …); they take
        precedence over those of the connection.
    :param cancel: stops listings and, in S3, reads.
    :raises ConfigurationError: an unknown kind of URI or extra argument, or a limit out of range.
    """
    from airflow_pgbackup.repository.open import open_repository as open_uri
    from airflow_pgbackup.repository.s3.options import S3Options

    if aws_conn_id is None or not uri.lower().startswith("s3://"):
        return open_uri(uri, s3=S3Options(extra_args=extra_args or {}), cancel=cancel)

    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id)
    unused = [hook]  # a hook makes its client once, and Airflow is asked for the connection once per hook

    def client() -> S3Client:
        made: S3Client = (unused.pop() if unused else S3Hook(aws_conn_id=aws_conn_id)).get_conn()
        return made

    store = S3Options.of_store(hook.service_config, extra_args=extra_args, client_factory=client)
    return open_uri(uri, s3=store, cancel=cancel)
