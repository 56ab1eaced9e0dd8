"""prune: delete what the retention policy does not keep, and sweep what crashes have left behind.

The decisions are those of :mod:`airflow_pgbackup.repository.retention`. A plan from file names tells in which series
something would go; every backup of those is read, and what its files prove decides (:mod:`.evidence`). One that its
names make more of than it is takes no place of another, and one that cannot be read stays.

The deletions are ordered so that a crash between any two leaves every remaining backup whole: a manifest goes first, by
a call of its own, and with it the backup is none any more; then the artifact and the history of verifications. What a
crash leaves of that has no manifest, and the next run sweeps it.

Only what is ours goes: the folders of backups, by their exact keys, and temporary files and uploads of our own. What
another attempt at the same backup writes, or has left, goes when it has not grown for the grace period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import groupby

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.backup.removal import GRACE, LEAST_GRACE, is_abandoned, remove_backup, sweep
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, RepositoryError
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import THREADS, Backup, Catalogue, Leftover, read_catalogue
from airflow_pgbackup.repository.entry import UnfinishedWrite
from airflow_pgbackup.repository.evidence import read_evidence, unreadable
from airflow_pgbackup.repository.layout import MANIFEST_FILE, Series, encode_segment
from airflow_pgbackup.repository.retention import Decision, Policy, plan

_MOST_IGNORED = 100
_NAMED = 3


def prune(
    *,
    repository: Repository,
    policy: Policy,
    dry_run: bool,
    series: SeriesSelection | None = None,
    grace: timedelta = GRACE,
    now: datetime | None = None,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Decide, and unless ``dry_run`` delete.

    :param series: only these series; names match exactly: ``app`` never means ``app_staging``.
    :param grace: how long a leftover must not have grown before it is swept; at least an hour.
    :param now: aware, by default the clock's.
    :return: the plan, plain JSON::

        {"repository", "repository_uuid", "dry_run", "now", "policy": {…}, "kept": 12, "removed": 3, "bytes": 4096,
         "decisions": [{"series" (its folder), "id", "started_at", "size", "state", "verified", "keep", "reasons": []}],
         "leftovers": [{"key", "modified", "size" (None where not known)}], "notes": ["a series that …"],
         "swept": ["/tmp/pgbackup-private-…"] (what killed processes left on this machine)}

    :raises ConfigurationError: a grace that is too short.
    :raises RepositoryError: not reachable; or something could not be deleted, after all else has been.
    :raises Canceled: between two backups.
    """
    if grace < LEAST_GRACE:
        raise ConfigurationError(
            f"grace is {grace}", hint=f"give at least {LEAST_GRACE}: a shorter one takes files from a dump that runs"
        )
    context, series = context or RunContext(), series or SeriesSelection()
    named = series.named()
    swept = [] if dry_run else sweep_leftovers(context)
    job = _Prune(repository, policy, now or datetime.now(timezone.utc), context.cancel, context.log)
    job.decide(read_catalogue(repository, server=series.server, series=named), grace)
    job.find_temporary(_prefixes(series.server, named), grace)
    if dry_run:
        job.tell()
    else:
        job.act()
    return {**job.result(dry_run), "swept": swept}


def _prefixes(server: str | None, series: Sequence[Series] | None) -> list[str]:
    if series is not None:
        return sorted({one.path for one in series if server in (None, one.server)})
    return ["" if server is None else encode_segment(server)]


@dataclass(frozen=True, slots=True)
class _Read:
    """:param why: it is less than its file names say."""

    backup: Backup
    why: list[str]


@dataclass
class _Prune:
    repository: Repository
    policy: Policy
    now: datetime
    cancel: Cancel
    log: Callable[[str], None]
    decisions: list[Decision] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    temporary: list[UnfinishedWrite] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: list[dict[str, object]] = field(default_factory=list)

    def decide(self, catalogue: Catalogue, grace: timedelta) -> None:
        backups = self._believe(catalogue.backups)
        decisions = plan(backups, self.policy, self.now)
        if locks := self._locks([d.backup for d in decisions if not d.keep]):
            decisions = plan([replace(b, locked=locks.get((b.series, b.id))) for b in backups], self.policy, self.now)
        self.decisions = decisions
        found = [*catalogue.leftovers, *(one for backup in catalogue.backups for one in backup.attempts)]
        old = [one for one in found if self.now - one.modified >= grace]
        self.leftovers = [one for one in old if is_abandoned(self.repository, one)]
        for series, members in Catalogue(tuple(backups)).by_series().items():
            if not any(self.policy.counts(backup) for backup in members):
                why = f"is verified at {self.policy.minimum_level}" if self.policy.minimum_level else "is whole"
                self._note(f"{series}: none of {len(members)} backups {why}, so all are kept")
        if catalogue.foreign:
            more = " …" if len(catalogue.foreign) > 3 else ""
            self._note(f"not ours, left alone: {', '.join(catalogue.foreign[:3])}{more}")

    def find_temporary(self, prefixes: Iterable[str], grace: timedelta) -> None:
        for prefix in prefixes:
            self.temporary += self.repository.unfinished_writes(grace, prefix=prefix, say=self._note)

    def tell(self) -> None:
        for decision in self.decisions:
            name = f"{decision.backup.series}/{decision.backup.id}"
            self.log(f"{'keep' if decision.keep else 'remove'} {name}: {'; '.join(decision.reasons)}")
        for one in self.leftovers:
            self.log(f"sweep {one.folder}: no backup, {human_bytes(one.size)}, since {one.modified.isoformat()}")
        for item in self.temporary:
            self.log(f"sweep {item.key}: a temporary file or upload, since {item.modified.isoformat()}")

    def act(self) -> None:
        """Oldest first: whatever stops us, it is the newest that are still there.

        :raises RepositoryError: when all has been tried.
        """
        removals = sorted((d.backup for d in self.decisions if not d.keep), key=lambda b: (b.started_at, b.id))
        steps: list[tuple[str, Callable[[], None]]] = []
        steps += [(f"{one.series}/{one.id}", partial(self._remove, one)) for one in removals]
        steps += [(f"{one.series}/{one.id}", partial(self._remove, one)) for one in self.leftovers]
        steps += [(one.key, partial(self.repository.remove_unfinished, [one])) for one in self.temporary]
        failed: list[tuple[str, RepositoryError]] = []
        for name, step in steps:
            self.cancel.check()
            try:
                step()
            except RepositoryError as error:
                self.log(f"cannot remove {name}: {error}")
                failed.append((name, error))
        if failed:
            name, first = failed[0]
            raise RepositoryError(
                f"{len(failed)} of {len(steps)} deletions failed; the first, {name}: {first.message}", hint=first.hint
            )

    def result(self, dry_run: bool) -> dict[str, object]:
        removed = [d.backup for d in self.decisions if not d.keep]
        for series, group in groupby(self.decisions, key=lambda decision: decision.backup.series):
            mine = list(group)
            if gone := [decision.backup for decision in mine if not decision.keep]:
                self.log(
                    f"{series}: {len(mine) - len(gone)} of {len(mine)} backups {'would be ' if dry_run else ''}kept, "
                    f"{len(gone)} removed, {human_bytes(sum(b.size for b in gone))}"
                )
        if not removed:
            self.log(f"nothing to remove: all {len(self.decisions)} backups are kept")
        return {
            "repository": self.repository.uri,
            "repository_uuid": self.repository.uuid,
            "dry_run": dry_run,
            "now": self.now.isoformat(),
            "policy": self.policy.describe(),
            "kept": len(self.decisions) - len(removed),
            "removed": len(removed),
            "bytes": sum(backup.size for backup in removed),
            "decisions": [_json(decision) for decision in self.decisions],
            "leftovers": [
                *(
                    {"key": one.folder, "modified": one.modified.isoformat(), "size": one.size}
                    for one in self.leftovers
                ),
                *({"key": one.key, "modified": one.modified.isoformat(), "size": None} for one in self.temporary),
            ],
            "notes": self.notes,
            "ignored": self.ignored,
        }

    def _remove(self, one: Backup | Leftover) -> None:
        if isinstance(one, Backup):
            name, kept = f"{one.series}/{one.id}", remove_backup(self.repository, one)
        else:
            name = one.folder if one.attempt else f"{one.series}/{one.id}"
            kept = sweep(self.repository, one)
        if kept:
            self._note(f"{name} {kept}")
        else:
            self.log(f"removed {name}, {human_bytes(one.size)}")

    def _believe(self, listed: Sequence[Backup]) -> list[Backup]:
        """The same backups; those of a series that would lose one as their own files prove them, which are read here.

        :raises Canceled: in between.
        """
        touched = {decision.backup.series for decision in plan(listed, self.policy, self.now) if not decision.keep}
        with ThreadPoolExecutor(THREADS) as pool:
            read = dict(pool.map(self._read, [backup for backup in listed if backup.series in touched]))
        for series, members in groupby(listed, key=lambda backup: backup.series):
            ignored = [(b.id, read[b.folder].why) for b in members if b.folder in read and read[b.folder].why]
            for id, why in ignored[: max(0, _MOST_IGNORED - len(self.ignored))]:
                self.ignored.append({"series": series.path, "id": id, "why": why[:_NAMED]})
            for id, why in ignored[:_NAMED]:
                self._note(f"{series}/{id} is not what its file names say: {why[0]}")
            if len(ignored) > _NAMED:
                self._note(f"{series}: {len(ignored) - _NAMED} more backups are not what their file names say")
        return [read[b.folder].backup if b.folder in read else b for b in listed]

    def _read(self, backup: Backup) -> tuple[str, _Read]:
        self.cancel.check()
        try:
            evidence = read_evidence(self.repository, backup.series, backup.id, now=self.now)
        except BackupNotFound:
            evidence = unreadable(backup, "it disappeared meanwhile")
        except RepositoryError as error:  # of this one: it stays, and takes no place of another
            evidence = unreadable(backup, error.message)
        problem = evidence.backup.problem
        return backup.folder, _Read(evidence.backup, [*([problem] if problem else []), *evidence.ignored])

    def _locks(self, backups: Sequence[Backup]) -> dict[tuple[Series, str], str]:
        """Which of them the store would not give up, and why. The manifest is the last file of a dump, so its lock is
        the one that ends last; a delete would "succeed" all the same where the bucket keeps versions."""

        def ask(backup: Backup) -> str | None:
            return self.repository.locked(f"{backup.folder}/{MANIFEST_FILE}")

        with ThreadPoolExecutor(THREADS) as pool:
            return {(b.series, b.id): lock for b, lock in zip(backups, pool.map(ask, backups), strict=True) if lock}

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            self.log(line)


def _json(decision: Decision) -> dict[str, object]:
    backup = decision.backup
    return {
        "series": backup.series.path,
        "id": backup.id,
        "started_at": backup.started_at.isoformat(),
        "size": backup.size,
        "state": backup.state,
        "verified": backup.level,
        "keep": decision.keep,
        "reasons": list(decision.reasons),
    }
