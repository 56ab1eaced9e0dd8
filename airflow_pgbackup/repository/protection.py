"""What a store does to keep deleted objects: versions, object lock, lifecycle rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Protection:
    """How a bucket is set up. None: the credentials may not read it, or the store does not know it.

    :param versioning: ``enabled``, ``suspended``, or ``off``.
    :param object_lock: whether the bucket has object lock.
    :param default_mode, default_span: its default retention; None without one.
    :param noncurrent_days: after how many days a lifecycle rule deletes a version that is not current, in the folder of
        the repository; 0 where no rule does.
    :param lock_mode, lock_span: what this repository sets on what it writes; None where it sets nothing.
    """

    versioning: str | None
    object_lock: bool | None
    default_mode: str | None = None
    default_span: timedelta | None = None
    noncurrent_days: int | None = None
    lock_mode: str | None = None
    lock_span: timedelta | None = None
