"""Which verifications of a backup a copy of it gets, and in which order.

A verification of a backup says nothing about bytes that were found damaged in the copy: a copy that has failed a
verification of its own gets no passes. Nor does it get the failure of a backup whose files were damaged or lost: its
own were compared with the manifest when it was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import VerificationName
from airflow_pgbackup.repository.state import standing
from airflow_pgbackup.repository.verification import Verification

# What FileCheck and check_bytes() report of files that are no longer those of the dump, or are not alone.
_STORED = re.compile(
    r": checksum mismatch: |: size mismatch: | (?:is missing|is not a regular file(?: or directory)?"
    r"|is not a file of this dump|disappeared or changed while it was being read)$"
)
_MOST_READINGS = 100  # who may write to the source could add a verification each time


def verifications_to_copy(evidence: Evidence, copy: Evidence, say: Callable[[str], None]) -> list[Verification]:
    """Return the verifications that a copy of a backup gets, in the order in which they are to be written.

    A copy never looks better than the dump, even while it is made: failures come first, and there are no passes if
    an invalid failure, which cannot be copied, revokes some of them, or the copy has a failure of its own.

    :param say: takes what is left out because it is invalid.
    """
    for line in evidence.ignored:
        say(f"warning: skipped {line}")
    passes = [seen for seen in evidence.verifications if seen.result == "pass"]
    others = [seen for seen in evidence.verifications if seen.result != "pass" and not _is_about_stored_bytes(seen)]
    if passes and not passes_are_copied(evidence):
        say("warning: skipped all passes, since a failure that cannot be read may revoke them")
        return others
    return others if _own_failure(copy, evidence) else others + passes


def require_no_own_failure(repository: Repository, copy: Evidence, evidence: Evidence) -> None:
    """Check that a copy has not failed a verification that its source does not have.

    :param repository: that of the copy.
    :raises VerificationFailed: it has, and did not pass since.
    """
    if failure := _own_failure(copy, evidence):
        backup = copy.backup
        raise VerificationFailed(
            f"backup {backup.name} in {repository.uri} is a copy that failed verification: {failure}",
            hint=f"Delete {repository.location(backup.folder)}, and copy the backup again.",
        )


def _own_failure(copy: Evidence, evidence: Evidence) -> str | None:
    """Return the newest failure of a copy that its own verifications leave as failed. An invalid one counts."""
    names = map(VerificationName.parse, copy.entries.keys() - evidence.entries.keys())
    own = [name for name in names if name and (name.result == "fail" or name in copy.backup.verifications)]
    if standing(own)[0] != "failed":
        return None
    return max(name for name in own if name.result == "fail").file


def _is_about_stored_bytes(seen: Verification) -> bool:
    """Return whether a verification failed only because stored files are no longer those of the dump."""
    wrong = [check for check in seen.checks if check.result != "pass"]
    return bool(wrong) and all(check.name == "integrity" and _STORED.search(check.detail or "") for check in wrong)


def repeat_until_all_are_copied(
    copy: Callable[[Callable[[str], None]], list[str]], say: Callable[[str], None]
) -> list[str]:
    """Copy verifications until a reading of the source finds none to copy: one may be added while others are copied.

    :param copy: reads the source, writes what the copy lacks, logs what it skips, and returns the keys written.
    :return: all keys written.
    """
    written = copy(say)
    for _ in range(_MOST_READINGS):
        if not (more := copy(lambda line: None)):
            break
        written += more
    return written


def passes_are_copied(evidence: Evidence) -> bool:
    """Return whether the valid verifications alone give the backup its state: no invalid failure revokes one of the
    passes."""
    backup = evidence.backup
    return standing(backup.verifications) == (backup.state, backup.level)
