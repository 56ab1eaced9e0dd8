"""The versions of objects in a versioned bucket: find them, and make an older one the current one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timezone
from typing import Any

from botocore.exceptions import ClientError

from airflow_pgbackup.repository.entry import Version
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import MISSING, code_of, status_of
from airflow_pgbackup.repository.s3.unfinished import server_time


def list_versions(bucket: Bucket, root: str, folder: str) -> Iterator[Version]:
    """Yield the versions and delete markers below a folder; those of one key newest first, markers apart.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html

    :param root: the prefix of the repository's keys. :param folder: the prefix to list, which begins with `root`.
    """
    for page in bucket.pages("ListObjectVersions", Prefix=folder):
        for deleted, name in ((False, "Versions"), (True, "DeleteMarkers")):
            for item in page.get(name, ()):
                yield Version(
                    key=item["Key"][len(root) :],
                    id=str(item["VersionId"]),
                    modified=item["LastModified"].astimezone(timezone.utc),
                    latest=bool(item["IsLatest"]),
                    deleted=deleted,
                    size=item.get("Size", 0),
                    etag=str(item.get("ETag", "")),
                )


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


def lock_of(head: dict[str, Any]) -> str | None:
    """Return why the store refuses to delete the object of this HEAD, for :meth:`.Repository.locked`."""
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        return "by a legal hold"
    until = head.get("ObjectLockRetainUntilDate")
    return f"until {until.astimezone(timezone.utc).isoformat()}" if until and until > server_time(head) else None
