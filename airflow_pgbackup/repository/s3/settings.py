"""Read how a bucket keeps what is deleted. Its answers are untrusted, as all answers of a store are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from airflow_pgbackup.repository.protection import ProtectionSettings
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import code_of, status_of
from airflow_pgbackup.repository.s3.object_lock import LONGEST, MODES

_NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "ObjectLockConfigurationNotFound"})
_NO_RULES = frozenset({"NoSuchLifecycleConfiguration"})


def read_settings(bucket: Bucket, prefix: str) -> ProtectionSettings:
    """Return how a bucket keeps what is deleted.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html

    :param prefix: the keys of the repository, whose lifecycle rules count.
    :raises ClientError, BotoCoreError: as :meth:`.Bucket.call`; refusals for lack of rights are None in the answer.
    """
    lock = read_lock_configuration(bucket)
    rules = _ask(bucket, "GetBucketLifecycleConfiguration", missing=_NO_RULES)
    mode, span = _default(lock or {})
    ours = bucket.options.lock
    return ProtectionSettings(
        versioning=read_versioning(bucket),
        object_lock=None if lock is None else lock.get("ObjectLockEnabled") == "Enabled",
        default_mode=mode,
        default_span=span,
        noncurrent_days=None if rules is None else _noncurrent_days(rules, prefix),
        lock_mode=ours.mode if ours else None,
        lock_span=ours.span if ours else None,
    )


def read_versioning(bucket: Bucket) -> str | None:
    """Return ``enabled``, ``suspended`` or ``off``; None if it cannot be read."""
    answer = _ask(bucket, "GetBucketVersioning")
    if answer is None:
        return None
    status = answer.get("Status")
    return status.lower() if status in ("Enabled", "Suspended") else "off"


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
