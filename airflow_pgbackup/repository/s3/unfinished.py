"""Unfinished writes in a bucket: multipart uploads and probes that a crash left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from airflow_pgbackup.repository.entry import UnfinishedWrite
from airflow_pgbackup.repository.layout import TEMP_PREFIX, split_key
from airflow_pgbackup.repository.s3.answers import MalformedAnswer
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import status_of


def old_uploads(bucket: Bucket, root: str, folder: str, older_than: timedelta) -> Iterator[UnfinishedWrite]:
    """Yield the multipart uploads into a backup's folder that have not grown for that long.

    :param root: the prefix of the repository's keys.
    :param folder: the prefix to list, which begins with `root`.
    """
    for page in bucket.pages("ListMultipartUploads", Prefix=folder):
        limit = server_time(page) - older_than
        for upload in page.get("Uploads", []):
            key = str(upload["Key"])[len(root) :]
            # Others may upload into the root of a shared bucket.
            if split_key(key) is None or upload["Initiated"] > limit:
                continue
            modified = _last_grown(bucket, upload)
            if modified <= limit:
                yield UnfinishedWrite(key, modified, str(upload["UploadId"]))


def old_probes(bucket: Bucket, root: str, older_than: timedelta) -> Iterator[UnfinishedWrite]:
    """Yield the files that :meth:`~airflow_pgbackup.repository.base.Repository.probe` left, of at least that age."""
    for page in bucket.pages("ListObjectsV2", Prefix=f"{root}{TEMP_PREFIX}"):
        limit = server_time(page) - older_than
        for item in page.get("Contents", []):
            if item["LastModified"] <= limit:
                yield UnfinishedWrite(item["Key"][len(root) :], item["LastModified"])


def server_time(answer: Mapping[str, Any]) -> datetime:
    """Return the store's time, from the Date header of an answer; without the header, this machine's.

    :raises MalformedAnswer: the header is not a date.
    """
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(date).astimezone(timezone.utc) if date else datetime.now(timezone.utc)
    except (TypeError, ValueError, OverflowError):  # TypeError: older versions of Python
        raise MalformedAnswer(detail=f"its Date is {date[:100]}") from None


def _last_grown(bucket: Bucket, upload: dict[str, Any]) -> datetime:
    """Return the time of the newest part: a dump that has been running for a day still sends some."""
    moments = [upload["Initiated"]]
    try:
        for page in bucket.pages("ListParts", Key=upload["Key"], UploadId=upload["UploadId"]):
            moments += [part["LastModified"] for part in page.get("Parts", [])]
    except ClientError as error:
        if status_of(error) != 404:
            raise
    newest: datetime = max(moments)
    return newest.astimezone(timezone.utc)
