"""The last verified backup of what has failed, read from the repository within a limited time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.notifications.targets import AlertScope
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import counted, human_age, human_time
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.time_spans import LONGEST

if TYPE_CHECKING:
    from airflow_pgbackup.repository.base import Repository

TIMEOUT = 20.0
"""Seconds that all look-ups of an alert may take together: perhaps the repository is what has failed."""

BACKUP, SET = "verified backup", "complete backup set"


@dataclass(frozen=True, kw_only=True)
class LastBackup:
    """The last verified backup of a series, or the last complete backup set of a server whose backups can all be used.

    :param of: the series or server, for people.
    :param started_at: None: there is none, or it could not be looked up.
    :param detail: its level, or the number of its databases.
    :param problem: why it could not be looked up.
    """

    kind: str
    of: str
    started_at: datetime | None = None
    age: timedelta | None = None
    detail: str = ""
    problem: str | None = None

    @property
    def short(self) -> str:
        """A few words, for a subject."""
        if self.problem is not None:
            return f"last {self.kind} unknown"
        return f"last {self.kind} {human_age(self.age)} old" if self.age is not None else f"no {self.kind}"

    @property
    def sentence(self) -> str:
        if self.problem is not None:
            return f"the last {self.kind} of {self.of} could not be looked up: {self.problem}"
        if self.started_at is None or self.age is None:
            return f"there is no {self.kind} of {self.of}"
        return f"last {self.kind} of {self.of}: {human_time(self.started_at)}, {human_age(self.age)} old, {self.detail}"

    @property
    def urgency(self) -> tuple[int, timedelta]:
        """The sort key; greater is worse. No backup at all is worst, then an unknown one, then the oldest."""
        if self.problem is not None:
            return 1, timedelta(0)
        return (2, timedelta(0)) if self.age is None else (0, self.age)


def last_backups(
    targets: Sequence[AlertScope], *, timeout: float | None = None, now: datetime | None = None
) -> list[LastBackup]:
    """Look up the last verified backups: that of the first target, which is looked up first, then the worst.

    Never raises.

    :param timeout: seconds for all together; by default :data:`TIMEOUT`.
    """
    now, timeout = now or datetime.now(timezone.utc), TIMEOUT if timeout is None else timeout
    cancel, found = Cancel(), {}

    def look_up() -> None:
        for target in targets:
            try:
                found[target] = _look_up(target, cancel, now)
            except PgBackupError as error:
                found[target] = [_unknown(target, error.message)]
            except Exception as error:  # noqa: BLE001  # its message might quote a secret
                found[target] = [_unknown(target, type(error).__name__)]

    # In a thread, since neither a mount nor a store that does not answer can be interrupted.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout)
    cancel.set()
    late = f"no answer within {timeout:g} s"
    each = [found.get(target) or [_unknown(target, late)] for target in targets]
    if len(each) < 2:
        return each[0] if each else []
    return [each[0][0], *_worst_first([*each[0][1:], *chain(*each[1:])])]


def _unknown(target: AlertScope, problem: str) -> LastBackup:
    return LastBackup(kind=BACKUP, of=target.name, problem=problem)


def _look_up(target: AlertScope, cancel: Cancel, now: datetime) -> list[LastBackup]:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook
    from airflow_pgbackup.hooks.repository import open_repository
    from airflow_pgbackup.repository.set_files import list_sets

    if target.postgres_conn_id is not None:
        database = PgBackupHook(target.postgres_conn_id).get_conninfo().dbname
        if not database:
            raise PgBackupError(
                f"no database given for connection {target.postgres_conn_id}", hint="Set the connection's schema."
            )
        target = replace(target, postgres_conn_id=None, databases=(database,))
    repository = open_repository(target.repository, target.aws_conn_id, cancel=cancel)
    has_sets = not target.is_one_series and bool(list_sets(repository, target.server))
    if has_sets and not target.each:
        return _sets(repository, target, now)
    return _series(repository, target, now, sets=has_sets)


def _series(repository: Repository, target: AlertScope, now: datetime, *, sets: bool) -> list[LastBackup]:
    """Return the last backup of each series, worst first; with `sets`, the last complete sets come before them."""
    from airflow_pgbackup.backup.freshness import freshness
    from airflow_pgbackup.backup.freshness_rules import FreshnessRules
    from airflow_pgbackup.backup.series_selection import SeriesSelection

    # The databases of the server have nothing to do with a dump by pg_dumpall.
    databases = () if target.is_one_series and target.databases is None else target.databases
    found: dict[str, Any] = freshness(
        repository=repository,
        rules=FreshnessRules(max_age=LONGEST, minimum_level="integrity", max_drop=None),
        series=SeriesSelection(server=target.server, databases=databases, cluster=target.cluster, scopes=target.scopes),
        exclude=target.exclude,
        sets=sets,
        now=now,
    )
    of_sets = _worst_first(_of_set(each, now) for each in found["sets"])
    if not found["series"]:
        return [*of_sets, LastBackup(kind=BACKUP, of=target.name)]
    return of_sets + _worst_first(_of_series(each, now) for each in found["series"])


def _worst_first(found: Iterable[LastBackup]) -> list[LastBackup]:
    return sorted(found, key=lambda one: one.urgency, reverse=True)


def _of_series(found: dict[str, Any], now: datetime) -> LastBackup:
    name = str(Series.parse(found["series"]))
    if found["started_at"] is None:
        return LastBackup(kind=BACKUP, of=name)
    started = datetime.fromisoformat(found["started_at"]).astimezone(timezone.utc)
    return LastBackup(kind=BACKUP, of=name, started_at=started, age=now - started, detail=f"level {found['verified']}")


def _sets(repository: Repository, target: AlertScope, now: datetime) -> list[LastBackup]:
    from airflow_pgbackup.backup.set_freshness import judge_sets
    from airflow_pgbackup.backup.set_members import SetMembers

    found = judge_sets(repository, target.server, LONGEST, now, SetMembers(repository, now=now))
    return _worst_first(_of_set(each.as_json(now), now) for each in found)


def _of_set(found: dict[str, Any], now: datetime) -> LastBackup:
    if found["started_at"] is None:
        return LastBackup(kind=SET, of=found["server"])
    started = datetime.fromisoformat(found["started_at"]).astimezone(timezone.utc)
    detail = counted(found["databases"], "database")
    if found["unusable"]:
        detail += f"; {counted(len(found['unusable']), 'backup')} of a newer set cannot be used"
    return LastBackup(kind=SET, of=found["server"], started_at=started, age=now - started, detail=detail)
