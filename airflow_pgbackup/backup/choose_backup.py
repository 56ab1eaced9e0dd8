"""Choose a backup of a series by id or as the latest, where no earlier task passes a reference.

One rule for operators and the command line: the latest backup is the newest that its own files prove to be verified.
A newer one that failed or is not verified is named in the log; only its id chooses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import SKEW, Evidence, may_count, read_each, read_evidence
from airflow_pgbackup.repository.layout import Series, check_level
from airflow_pgbackup.repository.retention import counts

LATEST = "latest"
_NAMED = 3
_LIST_HINT = "Run pgbackup list to see the backups of this repository."


def choose_backup(
    repository: Repository,
    series: str,
    backup_id: str = LATEST,
    *,
    minimum_level: str | None = "archive",
    log: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Return the reference of a backup; see :func:`choose_evidence`."""
    return reference_of(
        repository, choose_evidence(repository, series, backup_id, minimum_level=minimum_level, log=log)
    )


def choose_evidence(
    repository: Repository,
    series: str,
    backup_id: str = LATEST,
    *,
    minimum_level: str | None = "archive",
    log: Callable[[str], None] | None = None,
) -> Evidence:
    """Return a backup with the evidence of its state.

    :param series: ``server/database`` or ``server/@cluster``, as in the repository's folders and ``pgbackup list``.
    :param backup_id: ``latest`` chooses the newest that is verified at `minimum_level`; an id chooses that backup, in
        any state.
    :param minimum_level: for ``latest``; None: the newest that has not failed, verified or not.
    :param log: takes a line for each backup that is newer than the chosen one, with the reason.
    :raises BackupNotFound: there is no such backup; the message says which there are.
    :raises ManifestError: the backup with that id has an invalid manifest.
    :raises ConfigurationError: not a series, or not a level.
    """
    check_level(minimum_level)
    wanted = parse_series(series)
    if backup_id != LATEST:
        evidence = read_evidence(repository, wanted, backup_id)
        evidence.require_manifest()
        return evidence
    say = log or discard
    listed = read_catalogue(repository, series=[wanted]).backups  # newest first
    skipped: list[str] = []
    for backup, read in _newest_first(repository, listed, minimum_level):
        if read and counts(read.backup, minimum_level):
            for line in skipped[:_NAMED]:
                say(f"warning: newer backup {wanted}/{line}; using {read.backup.id}")
            if len(skipped) > _NAMED:
                say(f"warning: {len(skipped) - _NAMED} more newer backups of {wanted} cannot be used")
            return read
        skipped.append(f"{backup.id} {_why(backup, read)}")
    if not skipped:
        raise BackupNotFound(f"no backup of {wanted} is in {repository.uri}", hint=_LIST_HINT)
    state = f"is verified at level {minimum_level}" if minimum_level else "can be used"
    raise BackupNotFound(
        f"no backup of {wanted} in {repository.uri} {state}; of {len(listed)}, the newest, {skipped[0]}",
        hint=f"Verify a backup with pgbackup verify, or give its id, such as {listed[0].id}, to use it in any state.",
    )


def newest_backup(repository: Repository, series: str) -> Evidence:
    """Return the newest backup in any state, as verify needs it; backups with an invalid manifest are skipped.

    :raises BackupNotFound: the series has no backup.
    :raises ConfigurationError: not a series.
    """
    wanted = parse_series(series)
    listed = read_catalogue(repository, series=[wanted]).backups
    for evidence in read_each(repository, _past(listed)):
        if evidence.manifest is not None:
            return evidence
    raise BackupNotFound(f"no backup of {wanted} is in {repository.uri}", hint=_LIST_HINT)


def parse_series(text: str) -> Series:
    """Parse ``server/database`` or ``server/@cluster``.

    :raises ConfigurationError: the text is not a series.
    """
    try:
        return Series.parse(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a series", hint="Write server/database, or server/@cluster for a pg_dumpall backup."
        ) from None


def _newest_first(
    repository: Repository, listed: Sequence[Backup], minimum_level: str | None
) -> Iterator[tuple[Backup, Evidence | None]]:
    """Yield each backup with its evidence; None if its file names rule it out, or it starts in the future."""
    readable = {backup.id for backup in _past(listed) if may_count(backup, minimum_level)}
    found = read_each(repository, [backup for backup in listed if backup.id in readable])
    for backup in listed:
        yield backup, next(found) if backup.id in readable else None


def _past(listed: Sequence[Backup]) -> list[Backup]:
    soon = datetime.now(timezone.utc) + SKEW
    return [backup for backup in listed if backup.started_at <= soon]


def _why(backup: Backup, evidence: Evidence | None) -> str:
    if evidence is None:
        return backup.standing if _past([backup]) else "starts in the future; check the clocks"
    ignored = f" ({evidence.ignored[0]})" if evidence.ignored else ""
    return f"{evidence.backup.standing}{ignored}"
