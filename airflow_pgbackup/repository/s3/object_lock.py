"""Object lock: how long the store refuses to delete the versions that a backup consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.time_spans import parse_span

MODES = ("governance", "compliance")
LONGEST = timedelta(days=36_500)
"""S3's longest retention period: 100 years."""

_HINT = "Give a timedelta, or hours, days and weeks like 36h, 30d or 8w, up to 36500d."


@dataclass(frozen=True)
class ObjectLock:
    """The retention that each object of a backup gets when it is written.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html

    :param span: how long the store keeps the object, from when its upload begins; above zero, at most 36,500 days.
    :param mode: ``governance``: roles with s3:BypassGovernanceRetention may delete it earlier. ``compliance``: nobody
        may, not even the owner of the account.
    :raises ConfigurationError: out of range, or an unknown mode.
    """

    span: timedelta
    mode: str = "governance"

    def __post_init__(self) -> None:
        if not timedelta(0) < self.span <= LONGEST:
            raise ConfigurationError(f"invalid lock_for: {self.span}", hint=_HINT)
        if self.mode not in MODES:
            raise ConfigurationError(f"invalid lock_mode {self.mode!r}", hint=f"Choose one of {', '.join(MODES)}.")

    @classmethod
    def parse(cls, lock_for: object, lock_mode: object = None) -> ObjectLock | None:
        """Return the lock of two settings; None where `lock_for` is None or empty.

        :param lock_for: a timedelta, or text like ``30d``.
        :param lock_mode: one of :data:`MODES`; by default the first.
        :raises ConfigurationError: neither of them, or out of range.
        """
        if lock_for is None or lock_for == "":
            return None
        if isinstance(lock_for, str):
            lock_for = parse_span(lock_for)
        if not isinstance(lock_for, timedelta):
            raise ConfigurationError(f"invalid lock_for: {lock_for!r}", hint=_HINT)
        return cls(lock_for, str(lock_mode or MODES[0]))

    def __str__(self) -> str:
        hours = self.span.total_seconds() / 3600
        return f"{hours / 24:g}d" if hours % 24 == 0 else f"{hours:g}h"

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of a request that writes an object now."""
        until = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=1) + self.span
        return {"ObjectLockMode": self.mode.upper(), "ObjectLockRetainUntilDate": until}
