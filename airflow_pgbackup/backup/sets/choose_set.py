"""Choose a backup set of a server by a selector, as :mod:`airflow_pgbackup.backup.choose_backup` chooses a backup.

A selector is ``latest``, the newest complete set of which no backup has failed verification; a date, the newest set
that started on that day (UTC); or an id, or the beginning of one. Only a date or an id chooses another set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.backup.set_members import MISSING, SetMembers, unusable_text
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.set_files import ListedSet, list_sets, read_listed_set
from airflow_pgbackup.repository.set_layout import sets_folder
from airflow_pgbackup.text import first_of

LATEST = "latest"

_MOST_NAMED = 3
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_BEGINNING = re.compile(r"\d[\dTZ]*(-[\da-f]*)?", re.ASCII | re.IGNORECASE)


def choose_set(
    repository: Repository, server: str, selector: str = LATEST, *, log: Callable[[str], None] = discard
) -> ListedSet:
    """Return a backup set of a server.

    :param server: the server's name in the repository.
    :param selector: see above.
    :param log: called with a line for each set that is newer than the chosen one and cannot be used.
    :raises BackupNotFound: no set matches; the message or the hint names those that exist.
    :raises ConfigurationError: the selector is invalid, or several ids begin with it.
    """
    soon = datetime.now(timezone.utc) + SKEW
    listed = [one for one in list_sets(repository, server) if one.started_at <= soon]
    if not listed:
        servers = sorted({one.server for one in list_sets(repository)})
        raise BackupNotFound(
            f"{repository.uri} has no backup set of {server}",
            hint=f"It has sets of {', '.join(servers[:_MOST_NAMED])}."
            if servers
            else "pg_cluster_backup and pgbackup dump-set make sets; restore single backups with pgbackup restore.",
        )
    if selector == LATEST:
        return _latest(repository, listed, log)
    if _DATE.fullmatch(selector):
        found = [one for one in listed if one.started_at.date().isoformat() == selector][:1]
    elif _BEGINNING.fullmatch(selector):
        found = [one for one in listed if one.id.lower().startswith(selector.lower())]
    else:
        raise ConfigurationError(
            f"{selector!r} does not select a backup set",
            hint=f"Write an id or the beginning of one, a date as 2026-11-20, or {LATEST}.",
        )
    if not found:
        raise BackupNotFound(
            f"{repository.uri} has no backup set {sets_folder(server)}/{selector}", hint=f"It has {_ids(listed)}."
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} backup sets of {server} begin with {selector}", hint=f"Write more of the id: {_ids(found)}."
        )
    return found[0]


def older_set(repository: Repository, server: str, *, before: datetime) -> ListedSet | None:
    """Return the newest complete set that started before a time and of which no backup has failed; None if there is
    none.

    :raises RepositoryError: the store did not answer.
    """
    older = (one for one in list_sets(repository, server) if one.started_at < before)
    return next((one for one in older if _problem(repository, one) is None), None)


def _problem(repository: Repository, one: ListedSet) -> str | None:
    """Return why a set is not to be chosen on its own. A backup that was removed is an error of the restore."""
    if one.status != "complete":
        return "is partial"
    unusable = SetMembers(repository).unusable(read_listed_set(repository, one).members)
    failed = [each for each in unusable if each[1] != MISSING]
    return f"has a backup that cannot be used: {unusable_text(failed)}" if failed else None


def _latest(repository: Repository, listed: Sequence[ListedSet], log: Callable[[str], None]) -> ListedSet:
    skipped: list[str] = []
    for one in listed:
        if (problem := _problem(repository, one)) is None:
            for newer in skipped[:_MOST_NAMED]:
                log(f"warning: newer backup set {newer}; using {one.id}")
            return one
        skipped.append(f"{one.location} {problem}")
    if any(one.status == "complete" for one in listed):
        raise BackupNotFound(
            f"no complete backup set of {listed[0].server} can be used; of {len(listed)} the newest, {skipped[0]}",
            hint="Name the id of one to use those of its backups that are intact.",
        )
    raise BackupNotFound(
        f"no backup set of {listed[0].server} is complete; the newest of {len(listed)}, {listed[0].id}, is partial",
        hint="Name its id to use it as it is.",
    )


def _ids(listed: Sequence[ListedSet]) -> str:
    return first_of([one.id for one in listed], _MOST_NAMED)
