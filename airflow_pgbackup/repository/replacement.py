"""Let a newer backup replace an older one only after a while in the repository: ``replace_after`` of a policy.

Nothing in a repository is signed. Anyone who may add files can forge consistent backups with passed verifications, and
the retention rules would delete good backups because of them. But they cannot forge the time at which the store says
that a file was written. So a backup is deleted only if the rules would delete it from the repository as it was stored
some days ago, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_pgbackup.quantities import span_text
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.retention import Decision
from airflow_pgbackup.repository.state import standing

_PROBLEMS = ("incomplete", "unreadable")


def delayed(
    decisions: Sequence[Decision],
    decide: Callable[[Sequence[Backup]], Sequence[Decision]],
    now: datetime,
    span: timedelta,
) -> list[Decision]:
    """Return decisions by which a backup is kept until the ones that replace it have been stored for a while.

    :param decisions: about the repository as it is.
    :param decide: decides about backups as they were stored at `now` - `span`.
    """
    moment = now - span
    earlier = [old for one in decisions if (old := as_stored(one.backup, moment)) is not None]
    deleted = {(one.backup.series, one.backup.id) for one in decide(earlier) if not one.keep}
    why = f"what replaces it has not been stored for {span_text(span)}"
    return [
        one if one.keep or (one.backup.series, one.backup.id) in deleted else Decision(one.backup, True, (why,))
        for one in decisions
    ]


def as_stored(backup: Backup, moment: datetime) -> Backup | None:
    """Return a backup as it was stored at a moment, by the clock of the store; None if its manifest was not."""
    if backup.committed_at > moment:
        return None
    stored = tuple(one for one in backup.verifications if backup.stored_at.get(one, backup.committed_at) <= moment)
    if len(stored) == len(backup.verifications) or backup.state in _PROBLEMS:
        return backup
    state, level = standing(stored)
    # What evidence ignores: an invalid failure, which revokes the passes before it, or one out of time, which revokes
    # all of them. Passes that were written later may have made up for it, but not at that moment.
    ignored = [one for one, at in backup.stored_at.items() if at <= moment and one not in backup.verifications]
    failures = [one for one in ignored if one.result == "fail"]
    early = any(one.at < backup.started_at - SKEW for one in failures)
    if state != "failed" and (early or standing([*stored, *failures])[0] == "failed"):
        state, level = "notproven", None
    return replace(backup, verifications=stored, state=state, level=level)
