"""Read how a bucket keeps what is deleted. Its answers are untrusted, as all answers of a store are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta, timezone
from typing import Any

from botocore.exceptions import ClientError

from airflow_pgbackup.repository.protection import Protection
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import MISSING, code_of, status_of
from airflow_pgbackup.repository.s3.object_lock import LONGEST, MODES, ObjectLock
from airflow_pgbackup.repository.s3.unfinished import server_time

_NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "ObjectLockConfigurationNotFound"})
_NO_RULES = frozenset({"NoSuchLifecycleConfiguration"})


def read_protection(bucket: Bucket, prefix: str) -> Protection:
    """Return how a bucket keeps what is deleted.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html

    :param prefix: the keys of the repository, whose lifecycle rules count.
    :raises ClientError, BotoCoreError: as :meth:`.Bucket.call`; refusals for lack of rights are None in the answer.
    """
    versions = _ask(bucket, "GetBucketVersioning")
    lock = read_lock_configuration(bucket)
    rules = _ask(bucket, "GetBucketLifecycleConfiguration", missing=_NO_RULES)
    mode, span = _default(lock or {})
    ours = bucket.options.lock
    return Protection(
        versioning=None if versions is None else _versioning(versions),
        object_lock=None if lock is None else lock.get("ObjectLockEnabled") == "Enabled",
        default_mode=mode,
        default_span=span,
        noncurrent_days=None if rules is None else _noncurrent_days(rules, prefix),
        lock_mode=ours.mode if ours else None,
        lock_span=ours.span if ours else None,
    )


def read_lock_configuration(bucket: Bucket) -> Mapping[str, Any] | None:
    """Return the object lock configuration of a bucket; empty without one, None if it cannot be read."""
    answer = _ask(bucket, "GetObjectLockConfiguration", missing=_NO_LOCK)
    return None if answer is None else answer.get("ObjectLockConfiguration", {})


def _ask(bucket: Bucket, operation: str, *, missing: frozenset[str] = frozenset()) -> dict[str, Any] | None:
    try:
        return bucket.call(operation)
    except ClientError as error:
        if code_of(error) in missing:
            return {}
        # 403: a right is missing. 400, 405 and 501: the store does not implement it.
        if code_of(error) != "NoSuchBucket" and status_of(error) in (400, 403, 404, 405, 501):
            return None
        raise


def _versioning(answer: Mapping[str, Any]) -> str:
    status = answer.get("Status")
    return status.lower() if status in ("Enabled", "Suspended") else "off"


def _default(lock: Mapping[str, Any]) -> tuple[str | None, timedelta | None]:
    default = lock.get("Rule", {}).get("DefaultRetention", {})
    mode, days = str(default.get("Mode", "")).lower(), default.get("Days") or 365 * (default.get("Years") or 0)
    if mode not in MODES or not 0 < days <= LONGEST.days:
        return None, None
    return mode, timedelta(days=days)


def _noncurrent_days(answer: Mapping[str, Any], prefix: str) -> int:
    """Return after how many days the first rule for all these keys deletes noncurrent versions; 0 if none does."""
    found = [
        days
        for rule in answer.get("Rules", ())
        if rule.get("Status") == "Enabled" and _covers(rule, prefix)
        if (days := rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays", 0)) > 0
    ]
    return min(found, default=0)


def _covers(rule: Mapping[str, Any], prefix: str) -> bool:
    """Return whether a rule is for all keys below a prefix: one for certain tags or sizes is not."""
    filter = rule.get("Filter", {})
    if filter.keys() - {"Prefix"}:
        return False
    return prefix.startswith(filter.get("Prefix", rule.get("Prefix", "")))


def lock_of(head: Mapping[str, Any]) -> str | None:
    """Return why the store refuses to delete the object of this HEAD, for :meth:`.Repository.locked`."""
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        return "by a legal hold"
    until = head.get("ObjectLockRetainUntilDate")
    return f"until {until.astimezone(timezone.utc).isoformat()}" if until and until > server_time(head) else None


def set_hold(bucket: Bucket, keys: Iterable[str], *, on: bool) -> str | None:
    """Set or remove the legal hold of objects.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectLegalHold.html

    :return: why it cannot be set; None if it was, and after a removal.
    :raises ClientError, BotoCoreError: as :meth:`.Bucket.call`, also where a hold exists and cannot be removed.
    """
    lock = read_lock_configuration(bucket)
    if lock is not None and lock.get("ObjectLockEnabled") != "Enabled":
        return f"bucket {bucket.name} has no object lock"
    for key in keys:
        try:
            bucket.call("PutObjectLegalHold", Key=key, LegalHold={"Status": "ON" if on else "OFF"})
        except ClientError as error:
            if code_of(error) in MISSING:  # prune has removed it meanwhile
                continue
            if status_of(error) not in (400, 403, 405, 501):
                raise
            if not on and (bucket.head(key) or {}).get("ObjectLockLegalHoldStatus") == "ON":
                raise
            if on:
                return f"the store refuses it ({code_of(error)})"
    return None


def may_bypass_lock(bucket: Bucket, key: str) -> bool:
    """Return whether these credentials may delete a version that is locked in governance mode, by trying it.

    If they may not, the version of the file stays for a minute, behind a delete marker.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html

    :param key: of a new file.
    """
    lock = ObjectLock(timedelta(minutes=1)).parameters()
    checksum = {"ChecksumAlgorithm": bucket.algorithm} if bucket.algorithm else {}
    version = bucket.call("PutObject", Key=key, Body=b"probe", **checksum, **lock).get("VersionId")
    try:
        bucket.call("DeleteObject", Key=key, VersionId=str(version), BypassGovernanceRetention=True)
    except ClientError as error:
        if status_of(error) != 403:
            raise
    else:
        return True
    try:
        bucket.call("DeleteObject", Key=key)
    except ClientError as error:
        if status_of(error) != 403:  # append-only: prune sweeps it
            raise
    return False
