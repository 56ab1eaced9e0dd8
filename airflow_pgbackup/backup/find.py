"""Find a backup where no earlier task hands on a reference: on the day it is needed.

One rule for operators and the command line: the latest backup is the newest one that its own files prove to be
verified. A newer one that failed, or that nobody has verified, is named; only its id takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import SKEW, Evidence, may_count, read_each, read_evidence
from airflow_pgbackup.repository.layout import LEVELS, Series
from airflow_pgbackup.repository.retention import counts

LATEST = "latest"
_NAMED = 3


def find_backup(
    repository: Repository,
    series: str,
    backup_id: str = LATEST,
    *,
    minimum_level: str | None = "archive",
    log: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """The reference of a backup; see :func:`find_evidence`."""
    return reference_of(repository, find_evidence(repository, series, backup_id, minimum_level=minimum_level, log=log))


def find_evidence(
    repository: Repository,
    series: str,
    backup_id: str = LATEST,
    *,
    minimum_level: str | None = "archive",
    log: Callable[[str], None] | None = None,
) -> Evidence:
    """A backup, with what its own files prove.

    :param series: ``server/database`` or ``server/@cluster``, as in the repository's folders and ``pgbackup list``.
    :param backup_id: ``latest`` is the newest that is verified at `minimum_level`; an id is that one, whatever its
        state.
    :param minimum_level: None: the newest that has not failed, verified or not.
    :param log: told of what is newer than the latest, and why it was not taken.
    :raises BackupNotFound: none like that; says what there is.
    :raises ManifestError: the backup of that id has a manifest that cannot be believed.
    :raises ConfigurationError: not a series, not a level.
    """
    if minimum_level is not None and minimum_level not in LEVELS:
        raise ConfigurationError(
            f"minimum_level is {minimum_level!r}", hint=f"choose one of {', '.join(LEVELS)}, or None"
        )
    wanted = parse_series(series)
    if backup_id != LATEST:
        evidence = read_evidence(repository, wanted, backup_id)
        evidence.require_manifest()
        return evidence
    say = log or _nowhere
    listed = read_catalogue(repository, series=[wanted]).backups  # newest first
    passed: list[str] = []
    for backup, read in _newest_first(repository, listed, minimum_level):
        if read and counts(read.backup, minimum_level):
            for line in passed[:_NAMED]:
                say(f"warning: newer backup {wanted}/{line}; taking {read.backup.id}")
            if len(passed) > _NAMED:
                say(f"warning: {len(passed) - _NAMED} more newer backups of {wanted} were not taken")
            return read
        passed.append(f"{backup.id} {_why(backup, read)}")
    raise BackupNotFound(
        f"{repository.uri} has no backup {'verified at level ' + minimum_level if minimum_level else 'to take'} of "
        + (f"{wanted}: the newest of {len(listed)}, {passed[0]}" if passed else f"{wanted}: the series is empty"),
        hint=f"Verify one (pgbackup verify), or name it by its id, as in {listed[0].id}, to take it as it is."
        if passed
        else "pgbackup list shows what there is.",
    )


def find_newest(repository: Repository, series: str) -> Evidence:
    """The newest backup whatever its state, as for a verification; one whose manifest cannot be believed is none.

    :raises BackupNotFound: there is none.
    :raises ConfigurationError: not a series.
    """
    wanted = parse_series(series)
    listed = read_catalogue(repository, series=[wanted]).backups
    for evidence in read_each(repository, _past(listed)):
        if evidence.manifest is not None:
            return evidence
    raise BackupNotFound(f"{repository.uri} has no backup of {wanted}", hint="pgbackup list shows what there is.")


def parse_series(text: str) -> Series:
    """:raises ConfigurationError: it is not one."""
    try:
        return Series.parse(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no series", hint="write server/database, or server/@cluster for a backup by pg_dumpall"
        ) from None


def _newest_first(
    repository: Repository, listed: Sequence[Backup], minimum_level: str | None
) -> Iterator[tuple[Backup, Evidence | None]]:
    """Each with its evidence; None where it claims nothing that is worth reading, or starts in the future."""
    readable = {backup.id for backup in _past(listed) if may_count(backup, minimum_level)}
    found = read_each(repository, [backup for backup in listed if backup.id in readable])
    for backup in listed:
        yield backup, next(found) if backup.id in readable else None


def _past(listed: Sequence[Backup]) -> list[Backup]:
    soon = datetime.now(timezone.utc) + SKEW
    return [backup for backup in listed if backup.started_at <= soon]


def _why(backup: Backup, evidence: Evidence | None) -> str:
    if evidence is None:
        return backup.standing if _past([backup]) else "starts in the future: a clock was wrong"
    ignored = f" ({evidence.ignored[0]})" if evidence.ignored else ""
    return f"{evidence.backup.standing}{ignored}"


def _nowhere(line: str) -> None:
    """Nobody listens."""
