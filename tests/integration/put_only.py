"""Credentials that may put and read, and not delete: an identity of the real S3 server, and a bucket policy of S3."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3.session
from botocore.config import Config
from faulty_s3 import Call, FaultyS3

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

OBJECTS = ("s3:GetObject", "s3:PutObject")
BUCKET = ("s3:List*",)  # SeaweedFS has no s3:ListBucketMultipartUploads
ALWAYS = 1_000_000
DENIED: dict[str, Any] = {"status": 403, "code": "AccessDenied", "message": "Access Denied", "times": ALWAYS}


def policy(bucket: str, objects: Sequence[str] = OBJECTS) -> dict[str, Any]:
    """The policy of the role that dumps, as in docs/guides/append-only.md."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(objects), "Resource": [f"arn:aws:s3:::{bucket}/*"]},
            {"Effect": "Allow", "Action": list(BUCKET), "Resource": [f"arn:aws:s3:::{bucket}"]},
        ],
    }


@dataclass(frozen=True)
class Credentials:
    """Of an identity of the S3 server, with the endpoint at which they are used."""

    endpoint_url: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which boto3's own chain finds them."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @cache  # noqa: B019  they live as long as the tests
    def client(self) -> S3Client:
        session = boto3.session.Session(self.access_key, self.secret_key, region_name="us-east-1")
        config = Config(proxies={}, retries={"max_attempts": 2}, s3={"addressing_style": "path"})
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)

    def open(self, uri: str) -> Repository:
        return open_repository(uri, s3=S3Options(client_factory=self.client))


def put_only(server: S3Server, bucket: str, endpoint_url: str | None = None) -> Credentials:
    """Make an identity that may put, read and list in a bucket, and nothing else."""
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1")
    iam = session.client("iam", endpoint_url=server.endpoint_url, config=Config(proxies={}))
    name = f"dumper-{secrets.token_hex(4)}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.put_user_policy(UserName=name, PolicyName="put", PolicyDocument=json.dumps(policy(bucket)))
    return Credentials(endpoint_url or server.endpoint_url, key["AccessKeyId"], key["SecretAccessKey"])


@contextmanager
def no_overwriting(server: S3Server) -> Iterator[FaultyS3]:
    """A proxy that answers as S3 does where neither deleting nor aborting is allowed, and the bucket's policy requires
    ``If-None-Match``, which SeaweedFS does not enforce.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    """
    with FaultyS3(server.endpoint_url).running() as proxy:
        for operation in ("DeleteObject", "DeleteObjects", "AbortMultipartUpload"):
            proxy.fault(operation, "answer", **DENIED)
        for operation in ("PutObject", "CompleteMultipartUpload", "CopyObject"):
            proxy.fault(operation, "answer", **DENIED, when=_is_unconditional)
        proxy.fault("CopyObject", "answer", status=501, code="NotImplemented", times=ALWAYS)
        yield proxy


def deny_versions(proxy: FaultyS3) -> None:
    """Refuse what names a version, as S3 does without ``s3:GetObjectVersion``, which SeaweedFS does not require."""
    for operation in ("HeadObject", "GetObject", "CopyObject", "UploadPartCopy"):
        proxy.fault(operation, "answer", **DENIED, when=_names_version)


def _names_version(call: Call) -> bool:
    return "versionId=" in call.query + call.headers.get("x-amz-copy-source", "")


def _is_unconditional(call: Call) -> bool:
    return call.headers.get("if-none-match") != "*"
