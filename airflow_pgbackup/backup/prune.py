"""prune: delete the backups that the retention policy does not keep, and sweep the leftovers of crashes.

:mod:`airflow_pgbackup.repository.retention` decides. A plan from file names shows in which series a backup would be
deleted; every backup of those series is read, and its files decide (:mod:`.evidence`). A backup whose file names claim
more than its files prove is ignored by the retention rules, and one that cannot be read is kept. Members of the newest
complete backup set of a server are kept, too (:mod:`.set_retention`).

Before the first deletion, the kept backups that justify it are checked again, over all series (:mod:`.kept_backups`),
and once more before the first backup of the set before the newest is deleted (:mod:`.removal_order`).

The deletions are ordered so that a crash between any two leaves every remaining backup complete: the manifest is
deleted first, by a call of its own, which ends the backup; then the artifact and the verifications. What a crash leaves
has no manifest, and the next run sweeps it.

Only files of this package are deleted: the folders of backups, by their exact keys, and our own temporary files and
uploads. What another attempt at the same backup writes, or has left, is deleted when it has not grown for the grace
period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import groupby

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.kept_backups import KeptBackups
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.removal import GRACE, PINNED, UNLISTED, check_grace, is_abandoned, remove_backup, sweep
from airflow_pgbackup.backup.removal_order import RemovalOrder
from airflow_pgbackup.backup.series_selection import SeriesSelection, require_server
from airflow_pgbackup.backup.set_retention import ServerSets, remove_set
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import MOST_FOREIGN, Backup, Catalogue, Leftover, read_catalogue
from airflow_pgbackup.repository.entry import UnfinishedWrite
from airflow_pgbackup.repository.layout import MANIFEST_FILE, Series, encode_segment
from airflow_pgbackup.repository.replacement import delayed
from airflow_pgbackup.repository.retention import Decision, Policy, plan
from airflow_pgbackup.repository.set_files import ListedSet
from airflow_pgbackup.text import first_of

_Decide = Callable[[Sequence[Backup]], list[Decision]]

_MOST_IGNORED = 100
_NAMED = 3


def prune(
    *,
    repository: Repository,
    policy: Policy | None,
    dry_run: bool,
    series: SeriesSelection | None = None,
    grace: timedelta = GRACE,
    now: datetime | None = None,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Decide which backups to keep, and delete the others unless ``dry_run``.

    :param policy: None keeps every backup and backup set: only leftovers are swept.
    :param series: only these series; names match exactly: ``app`` never means ``app_staging``.
    :param grace: how long a leftover must not have grown before it is swept; at least an hour.
    :param now: aware; by default the clock's time.
    :return: the plan, plain JSON::

        {"repository", "repository_uuid", "dry_run", "now", "policy": {…}, "kept": 12, "removed": 3, "bytes": 4096,
         "locked": 2 (of those kept, the ones that only an object lock of the store keeps),
         "decisions": [{"series" (its folder), "id", "started_at", "size", "state", "verified", "keep", "reasons": []}],
         "leftovers": [{"key", "modified", "size" (None where not known)}],
         "sets": ["prod/@sets/…"] (backup sets without any backup left, removed unless only some series are pruned),
         "notes": ["prod/app: no backup verified at archive: nothing is deleted", …],
         "ignored": [{"series", "id", "why": […]}] (backups whose files prove less than their names),
         "swept": ["/tmp/pgbackup-private-…"] (leftovers of killed processes on this machine)}

    :raises ConfigurationError: the grace period is too short.
    :raises RepositoryError: the repository is not reachable; or a deletion failed, and all others were done.
    :raises Canceled: between two backups.
    """
    check_grace(grace)
    context, series = context or RunContext(), series or SeriesSelection()
    named = series.named()
    swept = [] if dry_run else sweep_leftovers(context)
    job = _Prune(repository, policy, now or datetime.now(timezone.utc), context.cancel, context.log)
    catalogue = read_catalogue(repository, server=series.server, series=named)
    if named is None:
        require_server(repository, series.server, catalogue)
    job.decide(catalogue, grace, complete=named is None)
    job.find_temporary(_prefixes(series.server, named), grace)
    if dry_run:
        job.log_plan()
    else:
        job.act()
    job.log_summary(dry_run)
    return {**job.result(dry_run), "swept": swept}


def _prefixes(server: str | None, series: Sequence[Series] | None) -> list[str]:
    if series is not None:
        return sorted({one.path for one in series if server in (None, one.server)})
    return ["" if server is None else encode_segment(server)]


@dataclass
class _Prune:
    repository: Repository
    policy: Policy | None
    now: datetime
    cancel: Cancel
    log: Callable[[str], None]
    decisions: list[Decision] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    temporary: list[UnfinishedWrite] = field(default_factory=list)
    sets: list[ListedSet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: list[dict[str, object]] = field(default_factory=list)
    kept: KeptBackups | None = None
    set_before: set[tuple[Series, str]] = field(default_factory=set)
    server_sets: ServerSets | None = None
    stayed: set[tuple[Series, str]] = field(default_factory=set)
    """Backups whose deletion failed."""
    pinned: set[tuple[Series, str]] = field(default_factory=set)
    """Backups that were pinned before they could be deleted."""

    def decide(self, catalogue: Catalogue, grace: timedelta, *, complete: bool) -> None:
        """Decide about the backups of a catalogue.

        :param complete: it has all series of its servers.
        """
        if self.policy is not None:
            self._apply(self.policy, catalogue, complete=complete)
        found = [*catalogue.leftovers, *(one for backup in catalogue.backups for one in backup.attempts)]
        old = [one for one in found if self.now - one.modified >= grace]
        self.leftovers = [one for one in old if is_abandoned(self.repository, one)]
        for one in old:
            if one.attempt is None and one not in self.leftovers:
                self._note(f"{one.name} {UNLISTED}")
        if foreign := catalogue.foreign:
            least = ", at least" if len(foreign) == MOST_FOREIGN else ""
            self._note(f"ignored foreign files: {first_of(foreign, 3)}{least}")

    def _apply(self, policy: Policy, catalogue: Catalogue, *, complete: bool) -> None:
        sets = ServerSets.of(self.repository, catalogue, self.now, self._note, complete=complete)
        self.kept = kept = KeptBackups(
            self.repository, policy, self.now, self.cancel, self._note, sets.usable_members()
        )
        dropped = sets.dropped_since(catalogue.by_series())
        decide: _Decide = partial(plan, policy=policy, now=self.now, in_sets=sets.kept(), dropped_since=dropped)
        if policy.replace_after is not None:
            decide = self._delayed(decide, kept, policy.replace_after, catalogue, complete=complete)
        backups = self._with_evidence(catalogue.backups, decide, kept)
        decisions = decide(backups)
        if locks := self._locks([d.backup for d in decisions if not d.keep]):
            decisions = decide([replace(b, locked=locks.get(b.identity)) for b in backups])
        self._hold_unjudged(kept, sets)
        self.decisions = kept.apply(decisions)
        self._note_locked()
        self.set_before = sets.members_before_newest(backups)
        self.server_sets = sets if complete else None
        self._find_empty_sets()
        for series, members in Catalogue(tuple(backups)).by_series().items():
            if not any(policy.counts(backup) for backup in members):
                level = policy.minimum_level
                why = f"no backup verified at {level}" if level else "no complete backup"
                self._note(f"{series}: {why}: nothing is deleted")

    def _hold_unjudged(self, kept: KeptBackups, sets: ServerSets) -> None:
        for server, why in sets.unjudged.items():
            kept.hold(server, why)

    def _find_empty_sets(self) -> None:
        """Find the sets of which no backup stays."""
        if self.server_sets is not None:
            self.sets = self.server_sets.without_backups(
                one.backup for one in self.decisions if one.keep or one.backup.identity in self.stayed
            )

    def _only_locked(self) -> list[Backup]:
        """Return the backups that nothing but an object lock keeps."""
        return [d.backup for d in self.decisions if d.keep and d.backup.locked and len(d.reasons) == 1]

    def _note_locked(self) -> None:
        if locked := self._only_locked():
            dates = [str(backup.locked) for backup in locked if str(backup.locked).startswith("until ")]
            ends = f"{min(dates)} at the earliest" if dates else "by a legal hold"
            are = "is" if len(locked) == 1 else "are"
            self._note(f"{counted(len(locked), 'backup')} that no rule keeps {are} locked, {ends}")

    def _delayed(
        self, decide: _Decide, kept: KeptBackups, span: timedelta, catalogue: Catalogue, *, complete: bool
    ) -> _Decide:
        """Return a decision by which a backup is kept until what replaces it has been stored for a while."""
        by = self.now - span
        sets = ServerSets.of(self.repository, catalogue, self.now, self._note, complete=complete, stored_by=by)
        self._hold_unjudged(kept, sets)
        kept.members |= sets.usable_members()
        dropped = sets.dropped_since(catalogue.by_series())
        earlier = partial(plan, policy=kept.policy, now=self.now, in_sets=sets.kept(), dropped_since=dropped)
        return lambda backups: delayed(decide(backups), earlier, self.now, span)

    def find_temporary(self, prefixes: Sequence[str], grace: timedelta) -> None:
        for prefix in prefixes:
            self.temporary += self.repository.unfinished_writes(grace, prefix=prefix, say=self._note)
        if prefixes and "" not in prefixes:
            try:
                self.temporary += self.repository.old_probes(grace)
            except RepositoryError as error:  # the role may be limited to the folders
                self._note(f"probes are not swept: {error.message}")

    def log_plan(self) -> None:
        for decision in self.decisions:
            name = decision.backup.name
            self.log(f"{'keep' if decision.keep else 'delete'} {name}: {'; '.join(decision.reasons)}")
        for one in self.leftovers:
            self.log(
                f"sweep {one.folder}: incomplete, {human_bytes(one.size)}, unchanged since {one.modified.isoformat()}"
            )
        for empty in self.sets:
            self.log(f"delete {empty.location}: no backup of this set remains")
        for item in self.temporary:
            self.log(f"sweep {item.key}: a temporary file or upload, unchanged since {item.modified.isoformat()}")

    def act(self) -> None:
        """Delete, backups first, in their :mod:`.removal_order`.

        :raises RepositoryError: a deletion failed, and all others were tried.
        """
        tried, failed = 0, list[tuple[str, RepositoryError]]()
        for name, step in self._steps():
            self.cancel.check()
            tried += 1
            try:
                step()
            except RepositoryError as error:
                self.log(f"cannot delete {name}: {error}")
                failed.append((name, error))
        if failed:
            name, first = failed[0]
            raise RepositoryError(
                f"{len(failed)} of {tried} deletions failed; the first: {name}: {first.message}", hint=first.hint
            )

    def _steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield what to delete and how."""
        if self.kept:
            order = RemovalOrder(self.kept, self.decisions, self.set_before)
            yield from ((one.name, partial(self._remove, one)) for one in order)
            self.decisions = [self._unless_pinned(one) for one in order.decisions]
            self._find_empty_sets()  # backups of them may have stayed
        yield from ((one.name, partial(self._remove, one)) for one in self.leftovers)
        yield from ((one.location, partial(self._remove_set, one)) for one in self.sets)
        yield from ((one.key, partial(self.repository.remove_unfinished, [one])) for one in self.temporary)

    def _unless_pinned(self, decision: Decision) -> Decision:
        if decision.backup.identity not in self.pinned:
            return decision
        return Decision(replace(decision.backup, pinned=True), True, (PINNED,))

    def log_summary(self, dry_run: bool) -> None:
        for series, group in groupby(self.decisions, key=lambda decision: decision.backup.series):
            mine = list(group)
            if deleted := [decision.backup for decision in mine if not decision.keep]:
                size = human_bytes(sum(backup.size for backup in deleted))
                self.log(
                    f"{series}: {len(mine) - len(deleted)} of {len(mine)} backups "
                    f"{'would be ' if dry_run else ''}kept, {len(deleted)} deleted ({size})"
                )
        if self.policy is None:
            swept = counted(len(self.leftovers) + len(self.temporary), "leftover")
            self.log(f"{'would sweep' if dry_run else 'swept'} {swept}; no backup is deleted")
        elif all(decision.keep for decision in self.decisions):
            self.log(f"nothing to delete: {len(self.decisions)} kept")

    def result(self, dry_run: bool) -> dict[str, object]:
        removed = [decision.backup for decision in self.decisions if not decision.keep]
        return {
            "repository": self.repository.uri,
            "repository_uuid": self.repository.uuid,
            "dry_run": dry_run,
            "now": self.now.isoformat(),
            "policy": None if self.policy is None else self.policy.describe(),
            "kept": len(self.decisions) - len(removed),
            "removed": len(removed),
            "locked": len(self._only_locked()),
            "bytes": sum(backup.size for backup in removed),
            "decisions": [_json(decision) for decision in self.decisions],
            "leftovers": [
                *(
                    {"key": one.folder, "modified": one.modified.isoformat(), "size": one.size}
                    for one in self.leftovers
                ),
                *({"key": one.key, "modified": one.modified.isoformat(), "size": None} for one in self.temporary),
            ],
            "sets": [one.location for one in self.sets],
            "notes": self.notes,
            "ignored": self.ignored,
        }

    def _remove(self, one: Backup | Leftover) -> None:
        if isinstance(one, Backup):
            name, key = one.name, one.identity
            try:
                why_kept = remove_backup(self.repository, one)
            except RepositoryError:
                self.stayed.add(key)
                raise
            if why_kept == PINNED:
                self.pinned.add(key)
        else:
            name = one.folder if one.attempt else one.name
            why_kept = sweep(self.repository, one)
        if why_kept:
            self._note(f"{name} {why_kept}")
        else:
            self.log(f"deleted {name} ({human_bytes(one.size)})")

    def _remove_set(self, one: ListedSet) -> None:
        remove_set(self.repository, one)
        self.log(f"deleted {one.location}: no backup of this set remains")

    def _with_evidence(self, listed: Sequence[Backup], decide: _Decide, kept: KeptBackups) -> list[Backup]:
        """Return the same backups; in a series that would lose one, as their files prove them.

        :raises Canceled: before each backup.
        """
        touched = {decision.backup.series for decision in decide(listed) if not decision.keep}
        read = kept.read(backup for backup in listed if backup.series in touched)
        for series, members in groupby(listed, key=lambda backup: backup.series):
            ignored = [(b.id, why) for b in members if b.folder in read and (why := read[b.folder][1])]
            for id, why in ignored[: max(0, _MOST_IGNORED - len(self.ignored))]:
                self.ignored.append({"series": series.path, "id": id, "why": why[:_NAMED]})
            for id, why in ignored[:_NAMED]:
                self._note(f"{series}/{id}: its files do not prove its state: {why[0]}")
            if len(ignored) > _NAMED:
                self._note(
                    f"{series}: the files of {counted(len(ignored) - _NAMED, 'more backup')} do not prove their state"
                )
        return [read[b.folder][0] if b.folder in read else b for b in listed]

    def _locks(self, backups: Sequence[Backup]) -> dict[tuple[Series, str], str]:
        """Return the backups that the store has locked, and why. The manifest is the last file of a dump, so its lock
        ends last; in a versioned bucket a delete would "succeed" nevertheless. If somebody has overwritten the manifest
        without a lock, the lock of an older version counts."""
        protection = self.repository.protection

        def ask(backup: Backup) -> str | None:
            key = f"{backup.folder}/{MANIFEST_FILE}"
            if lock := protection.locked(key):
                return lock
            try:
                versions = list(protection.versions(backup.folder))
            except RepositoryError:  # the credentials may not list versions, or the store has none
                return None
            older = (one for one in versions if one.key == key and not (one.latest or one.deleted))
            return next((lock for one in older if (lock := protection.locked(key, one.id))), None)

        with request_threads() as pool:
            return {b.identity: lock for b, lock in zip(backups, pool.map(ask, backups), strict=True) if lock}

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            self.log(line)


def _json(decision: Decision) -> dict[str, object]:
    return {**decision.backup.as_json(), "keep": decision.keep, "reasons": list(decision.reasons)}
