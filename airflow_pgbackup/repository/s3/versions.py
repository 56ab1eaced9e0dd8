"""The versions of objects in a versioned bucket: find them, and make an older one the current one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from datetime import timezone
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.repository.protection import Version
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.copying import part_size
from airflow_pgbackup.repository.s3.errors import MISSING, code_of, status_of


def list_versions(bucket: Bucket, root: str, folder: str) -> Iterator[Version]:
    """Yield the versions and delete markers below a folder by key, those of a key newest first.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html

    :param root: the prefix of the repository's keys. :param folder: the prefix to list, which begins with `root`.
    """
    for page in bucket.pages("ListObjectVersions", Prefix=folder):
        # botocore gives delete markers apart from versions. Both are listed newest first, so only the times tell where
        # a marker belongs.
        kinds = (("Versions", False), ("DeleteMarkers", True))
        found = [[_version(item, root, deleted=deleted) for item in page.get(name, ())] for name, deleted in kinds]
        yield from heapq.merge(*(sorted(each, key=_key) for each in found), key=_place)


def head_version(bucket: Bucket, key: str, version: str) -> dict[str, Any] | None:
    """Return the answer to a HEAD of a version; None if it does not exist."""
    try:
        return bucket.call("HeadObject", Key=key, VersionId=version)
    except ClientError as error:
        if code_of(error) in MISSING:
            return None
        raise


def remove_markers(bucket: Bucket, key: str, above: Sequence[Version]) -> bool:
    """Remove the delete markers above a version; return False if it cannot become the current one in this way.

    That is so if one of `above` is not a marker, or if these credentials may not delete versions.
    """
    if not all(version.deleted for version in above):
        return False
    for version in above:
        try:
            bucket.call("DeleteObject", Key=key, VersionId=version.id)
        except ClientError as error:
            if status_of(error) != 403:
                raise
            return False
    return True


def revert(bucket: Bucket, key: str, version: Version, source: Mapping[str, Any]) -> None:
    """Copy a version of a key over the current one.

    A delete marker comes before the copy, so that the copy is the first version since the last deletion.

    :param key: the complete key in the bucket.
    :param source: CopySource, and what decrypts it.
    :raises ClientError, BotoCoreError: the current version is unchanged, or the first one is current already.
    """
    upload, parts = None, []
    part = part_size(bucket, version.size)
    if version.size > part:
        head = bucket.call("HeadObject", Key=key, VersionId=version.id)
        upload = bucket.call("CreateMultipartUpload", Key=key, Metadata=head.get("Metadata", {}))["UploadId"]
        for number, start in enumerate(range(0, version.size, part), 1):
            end = min(start + part, version.size) - 1
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


def _version(item: Mapping[str, Any], root: str, *, deleted: bool) -> Version:
    return Version(
        key=item["Key"][len(root) :],
        id=str(item["VersionId"]),
        modified=item["LastModified"].astimezone(timezone.utc),
        latest=bool(item["IsLatest"]),
        deleted=deleted,
        size=item.get("Size", 0),
        etag=str(item.get("ETag", "")),
    )


def _key(version: Version) -> bytes:
    return version.key.encode("utf-8", "surrogatepass")


def _place(version: Version) -> tuple[bytes, float, bool, bool]:
    """Return what the versions are merged by. Times are whole seconds: of one second, the latest version is newer than
    a marker, and a marker newer than the other versions."""
    return _key(version), -version.modified.timestamp(), not version.latest, not version.deleted
