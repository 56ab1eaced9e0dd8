"""Check the freshness of backup sets: whether each server has a recent complete one, with all its backups."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_pgbackup.backup.freshness_rules import hours
from airflow_pgbackup.backup.progress import counted
from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.set_files import ListedSet, list_sets, read_listed_set

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class SetFreshness:
    """:param newest: the newest complete set of the server. :param problems: why it is not fresh."""

    server: str
    newest: BackupSet | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self, now: datetime) -> dict[str, object]:
        newest = self.newest
        return {
            "server": self.server,
            "fresh": not self.problems,
            "id": newest.id if newest else None,
            "started_at": newest.started_at.isoformat() if newest else None,
            "age_seconds": round((now - newest.started_at).total_seconds(), 3) if newest else None,
            "databases": len(newest.databases) if newest else None,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def judge_sets(
    repository: Repository,
    server: str | None,
    max_age: timedelta,
    backups: Collection[tuple[Series, str]] | None,
    now: datetime,
) -> list[SetFreshness]:
    """Check the sets of a server, or of each server that has any.

    :param server: None: all. One that is named and has no set is not fresh.
    :param backups: those that exist; None: not known, so that it is not checked whether the set's are among them.
    :raises RepositoryError: the repository could not be read.
    """
    listed: dict[str, list[ListedSet]] = {server: []} if server is not None else {}
    for one in list_sets(repository, server):
        if one.started_at <= now + SKEW:
            listed.setdefault(one.server, []).append(one)
    return [_judge(repository, name, sets, max_age, backups, now) for name, sets in sorted(listed.items())]


def _judge(
    repository: Repository,
    server: str,
    sets: list[ListedSet],
    max_age: timedelta,
    backups: Collection[tuple[Series, str]] | None,
    now: datetime,
) -> SetFreshness:
    notes: list[str] = []
    newest: BackupSet | None = None
    for one in sets:
        try:
            found = read_listed_set(repository, one, now=now)
        except (BackupNotFound, ManifestError) as error:
            notes.append(f"ignored: {error.message}")
            continue
        if found.status == "complete":
            newest = found
            break
        absent = ["globals"] * bool(found.globals_missing) + [each.database for each in found.missing]
        more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        notes.append(f"backup set {found.id} is partial: missing {', '.join(absent[:_NAMED])}{more}")
    problems: list[str] = []
    if newest is None:
        problems.append(f"none of {counted(len(sets), 'backup set')} is complete" if sets else "it has no backup set")
    else:
        age = now - newest.started_at
        if age > max_age:
            problems.append(
                f"the newest complete backup set, {newest.id}, is {hours(age)} old, more than {hours(max_age)}"
            )
        if backups is not None and (
            lost := [one for one in newest.members if (one.parsed_series, one.id) not in backups]
        ):
            names = ", ".join(one.database or "globals" for one in lost[:_NAMED])
            do = "does" if len(lost) == 1 else "do"
            problems.append(f"{counted(len(lost), 'backup')} of backup set {newest.id} {do} not exist: {names}")
    return SetFreshness(server=server, newest=newest, problems=tuple(problems), notes=tuple(notes[:_NAMED]))
