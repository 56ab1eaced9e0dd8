"""Check the freshness of backup sets: whether each server has a recent complete one, with all its backups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_pgbackup.backup.freshness_rules import hours
from airflow_pgbackup.backup.set_members import MISSING, SetMembers, unusable_as_json, unusable_text
from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.backup_set import BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.set_files import ListedSet, list_sets, read_listed_set
from airflow_pgbackup.text import first_of

MOST_READ = 10
"""How many older complete sets of a server are searched for one whose backups can all be used."""

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class SetFreshness:
    """The backup sets of a server.

    :param newest_complete: the newest set that is complete.
    :param unusable: its backups that cannot be used, with the reason of each.
    :param newest_usable: the newest complete set whose backups all exist and have not failed: an older one, if some of
        the newest cannot be used.
    :param problems: why the server has no fresh set.
    """

    server: str
    newest_complete: BackupSet | None
    unusable: tuple[tuple[SetMember, str], ...]
    newest_usable: BackupSet | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self, now: datetime) -> dict[str, object]:
        newest = self.newest_usable
        return {
            "server": self.server,
            "fresh": not self.problems,
            "id": newest.id if newest else None,
            "started_at": newest.started_at.isoformat() if newest else None,
            "age_seconds": round((now - newest.started_at).total_seconds(), 3) if newest else None,
            "databases": len(newest.databases) if newest else None,
            "unusable": unusable_as_json(self.unusable),
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def judge_sets(
    repository: Repository, server: str | None, max_age: timedelta, now: datetime, members: SetMembers
) -> list[SetFreshness]:
    """Check the sets of a server, or of each server that has any: the backups of the newest complete set must all
    exist, and none may have failed.

    :param server: None: all. One that is named and has no set is not fresh.
    :param members: reads their backups.
    :raises RepositoryError: the repository could not be read.
    """
    listed: dict[str, list[ListedSet]] = {server: []} if server is not None else {}
    for one in list_sets(repository, server):
        if one.started_at <= now + SKEW:
            listed.setdefault(one.server, []).append(one)
    return [_judge(repository, name, sets, max_age, now, members) for name, sets in sorted(listed.items())]


def _judge(
    repository: Repository,
    server: str,
    sets: list[ListedSet],
    max_age: timedelta,
    now: datetime,
    members: SetMembers,
) -> SetFreshness:
    notes: list[str] = []
    complete = _complete(repository, sets, now, notes)
    newest = next(complete, None)
    unusable = members.unusable(newest.members) if newest else []
    shown = tuple(notes[:_NAMED])  # not those on older sets
    usable = _newest_usable(complete, unusable, members) if unusable else newest
    problems: list[str] = []
    if newest is None:
        problems.append(f"none of {counted(len(sets), 'backup set')} is complete" if sets else "it has no backup set")
    elif (age := now - newest.started_at) > max_age:
        problems.append(f"the newest complete backup set, {newest.id}, is {hours(age)} old, more than {hours(max_age)}")
    if newest and (lost := [one for one, why in unusable if why == MISSING]):
        names = first_of([one.database or "globals" for one in lost], _NAMED)
        do = "does" if len(lost) == 1 else "do"
        problems.append(f"{counted(len(lost), 'backup')} of backup set {newest.id} {do} not exist: {names}")
    if newest and (bad := [each for each in unusable if each[1] != MISSING]):
        problems.append(
            f"{counted(len(bad), 'backup')} of backup set {newest.id} cannot be used: {unusable_text(bad, _NAMED)}"
        )
    return SetFreshness(
        server=server,
        newest_complete=newest,
        unusable=tuple(unusable),
        newest_usable=usable,
        problems=tuple(problems),
        notes=shown,
    )


def _complete(repository: Repository, sets: list[ListedSet], now: datetime, notes: list[str]) -> Iterator[BackupSet]:
    """Yield the complete sets, newest first, reading each on demand. Add a note on each that is not complete."""
    for one in sets:
        try:
            found = read_listed_set(repository, one, now=now)
        except (BackupNotFound, ManifestError) as error:
            notes.append(f"ignored: {error.message}")
            continue
        if found.status == "complete":
            yield found
            continue
        absent = ["globals"] * bool(found.globals_missing) + [each.database for each in found.missing]
        notes.append(f"backup set {found.id} is partial: missing {first_of(absent, _NAMED)}")


def _newest_usable(
    older: Iterator[BackupSet], unusable: list[tuple[SetMember, str]], members: SetMembers
) -> BackupSet | None:
    """Return the newest of these sets whose backups can all be used, among the first few."""
    # A database whose newest backup fails often fails in older sets too: its series ends the search of a set at once.
    doubtful = {member.parsed_series for member, _ in unusable}
    for _, one in zip(range(MOST_READ), older, strict=False):
        if members.are_usable(one.members, first=doubtful):
            return one
    return None
