"""Check how a versioned bucket keeps what is deleted, and whether these credentials may bypass its lock."""

from __future__ import annotations

from collections.abc import Callable

from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.quantities import span_text
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.protection import ProtectionSettings


def check_protection(repository: Repository, findings: Findings, say: Callable[[str], None]) -> None:
    """Log whether the store keeps versions and locks objects, and report what costs money or weakens the lock."""
    protection = repository.protection
    try:
        found = protection.settings()
        if found is None:
            return
        say(f"{repository.uri}: {'; '.join(_facts(found))}")
        governed = found.object_lock and found.lock_mode == "governance"
        bypass = protection.may_bypass_lock() if governed else False
    except RepositoryError as error:
        findings.add_error("protection", error, "Allow the credentials to read the bucket's settings.")
        return
    if found.versioning in ("enabled", "suspended") and found.noncurrent_days == 0:
        findings.warning(
            "versions_kept",
            f"{repository.uri} keeps every version that prune deletes: no lifecycle rule removes noncurrent versions",
            "Set a lifecycle rule with NoncurrentVersionExpiration, or pay for deleted backups without end.",
        )
    if bypass:
        findings.warning(
            "lock_bypass",
            f"these credentials may delete locked versions from {repository.uri}",
            "Revoke s3:BypassGovernanceRetention or s3:DeleteObjectVersion from the role, or use lock_mode compliance.",
        )


def _facts(found: ProtectionSettings) -> list[str]:
    locks = {True: "object lock", False: "no object lock", None: "object lock unknown"}[found.object_lock]
    if found.default_mode and found.default_span:
        locks += f" (default retention: {found.default_mode}, {span_text(found.default_span)})"
    expiry = {None: "lifecycle rules unknown", 0: "no rule removes noncurrent versions"}.get(
        found.noncurrent_days, f"noncurrent versions are removed after {found.noncurrent_days} days"
    )
    facts = [f"versioning {found.versioning or 'unknown'}", locks, *([expiry] if found.versioning != "off" else [])]
    if found.lock_mode and found.lock_span:
        facts.append(f"backups are locked for {span_text(found.lock_span)} ({found.lock_mode})")
    return facts
