"""The versions of objects in a versioned bucket: find them, and make an older one the current one."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import timezone
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.protection import Version
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import MISSING, code_of, status_of
from airflow_pgbackup.text import printable

NULL = "null"
"""The id of a version that was written before versioning was enabled, or while it was suspended."""

log = logging.getLogger(__name__)


def list_versions(bucket: Bucket, root: str, folder: str) -> Iterator[Version]:
    """Yield the versions and delete markers below a folder by key, those of a key newest first.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html

    :param root: the prefix of the repository's keys.
    :param folder: the prefix to list, which begins with `root`.
    """
    for page in bucket.pages("ListObjectVersions", Prefix=folder):
        # botocore gives delete markers apart from versions. Both are listed newest first, so only the times tell where
        # a marker belongs. SeaweedFS lists the version "null" last, whenever it was written.
        data = [_version(item, root, deleted=False) for item in page.get("Versions", ())]
        markers = [_version(item, root, deleted=True) for item in page.get("DeleteMarkers", ())]
        found = ([v for v in data if v.id != NULL], [v for v in data if v.id == NULL], markers)
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

    That is so if one of `above` is not a marker, or has the id ``null``, which may be that of data by now, or if these
    credentials may not delete versions.
    """
    if not all(version.deleted and version.id != NULL for version in above):
        return False
    for version in above:
        try:
            bucket.call("DeleteObject", Key=key, VersionId=version.id)
        except ClientError as error:
            if status_of(error) != 403:
                raise
            return False
    return True


@contextmanager
def hiding(bucket: Bucket, key: str, hint: str) -> Iterator[Callable[[], None]]:
    """Yield a function that hides the current version of a key behind a delete marker.

    After an error, all delete markers that were made since are removed: also those of requests whose answer was lost,
    and of a damaged copy that was deleted.

    :param hint: how to show a key that stays hidden.
    :raises RepositoryError: the block raised one, and the key may still be hidden; the message and hint say so.
    """
    before: set[str] | None = None

    def hide() -> None:
        nonlocal before
        if bucket.head(key) is not None:
            before = _markers(bucket, key)
            bucket.call("DeleteObject", Key=key)

    try:
        yield hide
    except BaseException as error:
        if before is None or _show(bucket, key, before):
            raise
        if not isinstance(error, RepositoryError):  # an interruption
            log.warning("s3://%s/%s may be hidden. %s", bucket.name, printable(key), hint)
            raise
        message = f"{error.message}; the file may be hidden behind a delete marker"
        raise RepositoryError(message, hint=" ".join(filter(None, (error.hint, hint))), retry=error.retry) from error


def _show(bucket: Bucket, key: str, before: Set[str]) -> bool:
    """Remove the delete markers that were made since; return whether that succeeded."""
    try:
        for marker in _markers(bucket, key) - before:
            bucket.call("DeleteObject", Key=key, VersionId=marker)
    except (ClientError, BotoCoreError) as error:
        log.warning(
            "a delete marker of s3://%s/%s could not be removed (%s)",
            bucket.name,
            printable(key),
            printable(code_of(error) or type(error).__name__),
        )
        return False
    return True


def _markers(bucket: Bucket, key: str) -> set[str]:
    """Return the ids of a key's delete markers, of which the newest are on the first page."""
    page = bucket.call("ListObjectVersions", Prefix=key)
    return {str(item["VersionId"]) for item in page.get("DeleteMarkers", ()) if item["Key"] == key}


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
    """Return the sort key by which versions and delete markers are merged. Times are whole seconds; within one second,
    the current version sorts as the newest, then markers, then the other versions."""
    return _key(version), -version.modified.timestamp(), not version.latest, not version.deleted
