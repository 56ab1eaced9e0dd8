"""Choose a backup set of a server by a selector, as :mod:`airflow_pgbackup.backup.choose_backup` chooses a backup.

A selector is ``latest``, the newest complete set; a date, the newest set that started on that day (UTC); or an id, or
the beginning of one. Only a date or an id chooses a partial set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.set_files import ListedSet, list_sets
from airflow_pgbackup.repository.set_layout import sets_folder

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
    :param log: called with a line for each set that is newer than the chosen one and partial.
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
        return _latest(listed, log)
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


def _latest(listed: Sequence[ListedSet], log: Callable[[str], None]) -> ListedSet:
    for number, one in enumerate(listed):
        if one.status == "complete":
            for newer in listed[:number][:_MOST_NAMED]:
                log(f"warning: newer backup set {newer.location} is partial; using {one.id}")
            return one
    raise BackupNotFound(
        f"no backup set of {listed[0].server} is complete; the newest of {len(listed)}, {listed[0].id}, is partial",
        hint="Name its id to use it as it is.",
    )


def _ids(listed: Sequence[ListedSet]) -> str:
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(one.id for one in listed[:_MOST_NAMED]) + more
