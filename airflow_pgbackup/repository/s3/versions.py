"""Find what somebody has overwritten in a bucket that keeps versions, and bring it back.

This package writes each key once. So of the versions of a key since its last deletion, the first is the one that it
wrote. Whoever may only put objects cannot change that: a put adds a version, and a delete marker needs the right to
delete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timezone
from itertools import groupby, takewhile
from operator import itemgetter
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.repository.entry import Overwritten
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.options import MIB

PART = 512 * MIB
"""Bytes of a part of a copy on the server, and the size up to which an object is copied by one request."""


def overwritten(bucket: Bucket, root: str) -> Iterator[Overwritten]:
    """Yield the keys below `root` that have more than one version since they were last deleted, without `root`."""
    for key, versions in groupby(_versions(bucket, root), key=itemgetter("Key")):
        since = list(takewhile(lambda version: not _is_marker(version), sorted(versions, key=_newest_first)))
        if len(since) > 1 and since[0]["ETag"] != since[-1]["ETag"]:
            yield Overwritten(
                key=key[len(root) :],
                first=since[-1]["VersionId"],
                size=since[-1]["Size"],
                first_at=since[-1]["LastModified"].astimezone(timezone.utc),
                last_at=since[0]["LastModified"].astimezone(timezone.utc),
            )


def revert(bucket: Bucket, key: str, one: Overwritten, source: Mapping[str, Any]) -> None:
    """Copy the first version of a key over the current one.

    A delete marker comes before the copy, so that the copy is the first version since the last deletion.

    :param key: the complete key in the bucket.
    :param source: CopySource, and what decrypts it.
    :raises ClientError, BotoCoreError: the current version is unchanged, or the first one is current already.
    """
    upload, parts = None, []
    if one.size > PART:
        head = bucket.call("HeadObject", Key=key, VersionId=one.first)
        upload = bucket.call("CreateMultipartUpload", Key=key, Metadata=head.get("Metadata", {}))["UploadId"]
        for number, start in enumerate(range(0, one.size, PART), 1):
            end = min(start + PART, one.size) - 1
            answer = bucket.call(
                "UploadPartCopy",
                Key=key,
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{end}",
                **source,
            )
            parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    marker = bucket.call("DeleteObject", Key=key).get("VersionId")
    try:
        if upload is None:
            bucket.call("CopyObject", Key=key, **source)
        else:
            bucket.call("CompleteMultipartUpload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    except (ClientError, BotoCoreError):
        if marker:
            bucket.call("DeleteObject", Key=key, VersionId=marker)
        raise


def _versions(bucket: Bucket, root: str) -> Iterator[dict[str, Any]]:
    """Yield versions and delete markers by key; the versions of a key newest first."""
    for page in bucket.pages("ListObjectVersions", Prefix=root):
        both = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        yield from sorted(both, key=lambda one: one["Key"].encode("utf-8", "surrogatepass"))


def _is_marker(version: Mapping[str, Any]) -> bool:
    return "ETag" not in version


def _newest_first(version: Mapping[str, Any]) -> tuple[float, bool, bool]:
    """Sort the versions of a key. botocore gives delete markers apart from versions, and times are whole seconds: of
    one second, the latest version is newer than a marker, and a marker newer than the other versions."""
    return -version["LastModified"].timestamp(), not version["IsLatest"], not _is_marker(version)
