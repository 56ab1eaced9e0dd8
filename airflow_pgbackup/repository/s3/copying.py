"""Copies within a store, whose bytes do not pass through here."""

from __future__ import annotations

from typing import Any

from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.options import MIB

# Parts of a server-side copy take no memory here. Larger parts need fewer requests, smaller ones copy in parallel.
COPY_PART = 512 * MIB


def part_size(bucket: Bucket, size: int) -> int:
    """Return the bytes of a part; an object that is no larger is copied by one request."""
    return max(COPY_PART, -(-size // bucket.options.max_parts))


def copy_source(bucket: Bucket, key: str, version: str | None) -> dict[str, Any]:
    """Return the parameters that select what is copied, and decrypt it.

    :param key: the complete key in the bucket.
    :param version: a version id, or a quoted ETag; None for the current version.
    """
    source: dict[str, Any] = {"CopySource": {"Bucket": bucket.name, "Key": key}}
    if version is not None and version.startswith('"'):
        source["CopySourceIfMatch"] = version
    elif version is not None:
        source["CopySource"]["VersionId"] = version
    for name, value in bucket.options.extra_args.items():
        if name.startswith("SSECustomer"):
            source[f"CopySource{name}"] = value
        elif name == "ExpectedBucketOwner":
            source["ExpectedSourceBucketOwner"] = value
    return source
