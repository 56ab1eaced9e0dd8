"""Delete keys of a bucket, many by one request where the store can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import MISSING, code_of, line_of, status_of

BATCH = 1000  # keys in one DeleteObjects

_UNREPORTED = "it still exists, and the answer of the store does not mention it"


def delete_keys(bucket: Bucket, root: str, keys: Sequence[str]) -> list[str]:
    """Delete keys; return those that were not deleted, each with the reason. Keys that do not exist are ignored.

    :param root: the prefix of the keys in the bucket.
    :raises ClientError, BotoCoreError: the store does not answer, or refuses the request as a whole.
    """
    failed = []
    for start in range(0, len(keys), BATCH):
        failed += _delete_batch(bucket, root, keys[start : start + BATCH])
    return failed


def _delete_batch(bucket: Bucket, root: str, keys: Sequence[str]) -> list[str]:
    try:
        # Not Quiet, which reports only errors: a page of a proxy has none either.
        answer = bucket.call("DeleteObjects", Delete={"Objects": [{"Key": root + key} for key in keys]})
    except ClientError as error:
        # A store without DeleteObjects (GCS), or one that requires a Content-MD5, which boto3 no longer sends.
        if status_of(error) not in (400, 405, 501):
            raise
        return [f"{key} ({reason})" for key in keys if (reason := _delete_one(bucket, root + key))]
    # A 200 does not mean success: each key has its own result.
    errors = answer.get("Errors", [])
    reported = {one.get("Key") for one in [*errors, *answer.get("Deleted", [])]}
    failed = [f"{str(e.get('Key'))[len(root) :]} ({_said(e)})" for e in errors if e.get("Code") not in MISSING]
    unreported = [key for key in keys if root + key not in reported]
    return failed + [f"{key} ({_UNREPORTED})" for key in unreported if bucket.head(root + key) is not None]


def _delete_one(bucket: Bucket, key: str) -> str | None:
    try:
        answer = bucket.call("DeleteObject", Key=key)
        done = answer["ResponseMetadata"]["HTTPStatusCode"] == 204  # else perhaps a page of a proxy
        return None if done or bucket.head(key) is None else _UNREPORTED
    except (ClientError, BotoCoreError) as error:
        if code_of(error) in MISSING:
            return None
        return _said(error.response.get("Error", {})) if isinstance(error, ClientError) else type(error).__name__


def _said(error: Mapping[str, object]) -> str:
    return ": ".join(line_of(str(error[name])) for name in ("Code", "Message") if error.get(name))
