"""The state of a backup, from the history of its verifications."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timezone

from airflow_pgbackup.repository.layout import LEVELS, VerificationName

STATES = {
    "verified": "is verified at {level} only",
    "written": "is not verified yet",
    "failed": "failed verification",
    "notproven": "could not be proven",
    "incomplete": "is incomplete",
    "unreadable": "cannot be read",
}
"""Each state with why a backup in it does not count, as the predicate of a sentence."""
_WORDS = {"written": "unverified", "notproven": "not proven"}

_LAST = datetime.max.replace(tzinfo=timezone.utc)


def in_words(state: str) -> str:
    """Return a state, or the result of a verification or check, as people read it; JSON has the value itself."""
    return _WORDS.get(state, state)


def standing(verifications: Iterable[VerificationName]) -> tuple[str, str | None]:
    """Return the state and level that a history of verifications amounts to.

    A failure revokes all earlier passes, and stands until something passes at its level or a higher one: a backup
    that did not restore is not verified again because its bytes are unchanged. "Not proven" says nothing about the
    backup, so it counts only where nothing else was found.

    :return: ``("verified", highest level passed)``, ``("failed", None)``, ``("notproven", None)`` or
        ``("written", None)`` for an empty history.
    """
    state, best, failed = "written", 0, 0  # ranks, 1 for the weakest level; 0 for none
    for seen in sorted(verifications, key=lambda v: (v.at, v.result == "fail")):
        rank = LEVELS.index(seen.level) + 1
        if seen.result == "fail":
            best, failed = 0, max(failed, rank)
        elif seen.result == "pass" and rank >= failed:
            best, failed = max(best, rank), 0
        elif seen.result == "notproven":
            state = "notproven"
    if failed:
        return "failed", None
    return ("verified", LEVELS[best - 1]) if best else (state, None)


def standing_failure(verifications: Collection[VerificationName]) -> VerificationName:
    """Return the failure for which :func:`standing` calls a history ``failed``.

    A new pass at its level, and at no lower one, would verify the backup.
    """
    for level in LEVELS:
        if standing([*verifications, VerificationName(_LAST, level, "pass")])[0] == "verified":
            return max(seen for seen in verifications if (seen.level, seen.result) == (level, "fail"))
    raise AssertionError("a pass at the highest level verifies every backup")
