"""Find a backup where no earlier task hands on a reference: on the day it is needed."""

from __future__ import annotations

from airflow_pgbackup.backup.reference import make_reference
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue, read_manifest
from airflow_pgbackup.repository.layout import LEVELS, Series

LATEST = "latest"


def find_backup(
    repository: Repository, series: str, backup_id: str = LATEST, *, minimum_level: str | None = "archive"
) -> dict[str, object]:
    """The reference of a backup.

    :param series: ``server/database`` or ``server/@cluster``, as in the repository's folders and ``pgbackup list``.
    :param backup_id: ``latest`` is the newest that is verified at `minimum_level`; an id is that one, whatever it is
        worth.
    :param minimum_level: None takes the newest, verified or not.
    :raises BackupNotFound: none like that; says what there is.
    :raises ConfigurationError: not a series, not a level.
    """
    if minimum_level is not None and minimum_level not in LEVELS:
        raise ConfigurationError(
            f"minimum_level is {minimum_level!r}", hint=f"choose one of {', '.join(LEVELS)}, or None"
        )
    try:
        wanted = Series.parse(series)
    except ValueError:
        raise ConfigurationError(
            f"{series!r} is no series", hint="write server/database, or server/@cluster for a backup by pg_dumpall"
        ) from None
    backups = read_catalogue(repository, series=[wanted]).backups  # newest first
    enough = LEVELS[LEVELS.index(minimum_level) :] if minimum_level else (None, *LEVELS)
    for backup in backups:
        if backup_id == backup.id or (backup_id == LATEST and backup.state != "incomplete" and backup.level in enough):
            return make_reference(repository, read_manifest(repository, wanted, backup.id))
    which = f"verified at level {minimum_level}" if backup_id == LATEST and minimum_level else f"{backup_id}"
    raise BackupNotFound(
        f"{repository.uri} has no backup {which} of {wanted}, and {len(backups)} others",
        hint="pgbackup list shows what there is; verify one of them, or name it by its id",
    )
