"""The address of a folder in the S3 console of AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CONSOLES = {
    "aws": ("console.aws.amazon.com", "amazonaws.com"),
    "aws-cn": ("console.amazonaws.cn", "amazonaws.com.cn"),
    "aws-us-gov": ("console.amazonaws-us-gov.com", "amazonaws.com"),
}
"""For each partition of AWS that has a public console, its host name and the domain of its endpoints."""


def console_url(client: S3Client, bucket: str, prefix: str) -> str | None:
    """Return the address of a folder in the S3 console; None for a store or a partition without one.

    No request is sent. The names are encoded, whatever they are.

    :param client: it decides the region, the partition and whether its endpoint is one of AWS.
    :param prefix: of the folder's keys, with a trailing slash.
    """
    meta = client.meta
    console, domain = _CONSOLES.get(meta.partition, (None, ""))
    host = urlsplit(meta.endpoint_url).hostname or ""
    if console is None or not host.endswith(f".{domain}"):
        return None
    query = urlencode({"region": meta.region_name, "prefix": prefix}, quote_via=quote, safe="")
    return f"https://{console}/s3/buckets/{quote(bucket, safe='')}?{query}"
