"""Worlds for races: a store, verbs that run in it concurrently, and what must hold in every order of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from honest import write_backup
from interleaving import Actor, Killed, Run, World, every_order
from memory_store import MemoryRepository, Store

from airflow_pgbackup.backup.pin import unpin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.errors import BackupNotFound, OutcomeUnknown, PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import is_complete, read_evidence
from airflow_pgbackup.repository.layout import Series, VerificationName, split_key
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import Policy

APP = Series("prod", "app")
NOW = datetime.now(timezone.utc).replace(microsecond=0)
DIRECTORY = {"app.dir/toc.dat": b"PGDMP", "app.dir/1.dat": b"\n.\n"}
KEEP_ALL = Policy(keep_last=100)
LATER = timedelta(days=3)


class Place(World):
    """A world around one store.

    :param store: in memory, or a function that opens a real repository.
    :param actions: actor's name to its action, which gets a repository of its own.
    :param may_go: ids of backups that a prune in this world may delete.
    """

    def __init__(
        self,
        store: Store | Callable[[], Repository],
        actions: dict[str, Callable[[Repository], Any]],
        may_go: frozenset[str] = frozenset(),
    ) -> None:
        def opened() -> Repository:
            return MemoryRepository(store) if isinstance(store, Store) else store()

        def action(act: Callable[[Repository], Any]) -> Callable[[], Any]:
            return lambda: act(opened())

        super().__init__({name: action(act) for name, act in actions.items()}, self.seen)
        self.store = store if isinstance(store, Store) else Store()
        self.repository = opened()
        self.may_go = may_go

    def seen(self, actor: Actor) -> None:
        """Check at an actor's success that the backups it returned are complete."""
        for reference in references(actor.value):
            if reference["id"] not in self.may_go:
                evidence = read_evidence(self.repository, Series.parse(str(reference["series"])), str(reference["id"]))
                assert is_complete(evidence), f"{actor.name} succeeded without a complete backup"

    def check(self, done: Run) -> None:
        """Check that listed and returned backups are complete, retries succeed, and prune leaves no other file."""
        self.store.let_through()
        errors = [actor.error for actor in done.actors.values() if actor.error]
        assert all(isinstance(error, PgBackupError | Killed) for error in errors), errors
        self._all_whole()
        for actor in done.actors.values():
            if actor.error:
                self.seen(Actor(actor.name, actor.action, value=self._again(actor)))
        self._all_whole()
        for actor in done.actors.values():
            if actor.succeeded:
                self.seen(actor)
        self._sweep()
        left = {entry.key for entry in self.repository.list()} - {"repository.json"}
        for manifest in self._all_whole():
            folder = f"{manifest.series.path}/{manifest.id}/"
            left -= {f"{folder}manifest.json", f"{folder}pin.json", *map(manifest.key, manifest.artifact.files)}
            left -= {key for key in left if VerificationName.parse(key.removeprefix(folder))}
        assert not left, "left behind for good"

    def _sweep(self) -> None:
        keys = {entry.key for entry in self.repository.list()}
        for series, id, path in filter(None, map(split_key, keys)):
            # prune keeps everything with a pin, even what is left of a backup when an earlier prune was killed.
            if path == "pin.json" and f"{series.path}/{id}/manifest.json" not in keys:
                unpin(repository=self.repository, series=series, id=id)
        self.store.ahead = LATER
        prune(repository=self.repository, policy=KEEP_ALL, dry_run=False, now=datetime.now(timezone.utc) + LATER)

    def _again(self, actor: Actor) -> Any:
        try:
            return self.actions[actor.name]()
        except BackupNotFound:  # it verified or pinned a backup that a prune deleted
            assert "prune" in self.actions
            return None

    def _all_whole(self) -> list[Manifest]:
        found = []
        for backup in read_catalogue(self.repository).backups:
            evidence = read_evidence(self.repository, backup.series, backup.id)
            assert is_complete(evidence), f"{backup.folder} is listed, but {backup.standing}"
            found.append(evidence.require_manifest())
        return found


def references(value: Any) -> Iterator[dict[str, object]]:
    """Yield the references of backups in the result of a verb."""
    if isinstance(value, dict) and "sha256" in value:
        yield value
    elif isinstance(value, dict) and "adopted" in value:
        assert not value["skipped"], value["skipped"]
        yield from (*value["adopted"], *value["present"])


def fresh(*, conditional: bool = True) -> Store:
    """Return a store with an empty repository."""
    store = Store(conditional=conditional)
    MemoryRepository(store).init()
    return store


class Still(MemoryRepository):
    """A repository whose operations are not steps, for a source that no actor changes."""

    def _step(self, what: str) -> None:
        pass


SOURCE = fresh()
UPLOADED = write_backup(MemoryRepository(SOURCE, "source"), APP, NOW - timedelta(days=9), members=DIRECTORY)
REFERENCE: dict[str, object] = {
    "series": APP.path,
    "id": UPLOADED.id,
    "repository": "memory://source",
    "repository_uuid": MemoryRepository(SOURCE).uuid,
}


def do_upload(repository: Repository) -> dict[str, object]:
    return upload(reference=REFERENCE, source=Still(SOURCE, "source"), destination=repository)


def do_prune(repository: Repository, policy: Policy = KEEP_ALL) -> dict[str, object]:
    return prune(repository=repository, policy=policy, dry_run=False)


def looked_at(place: Place, done: Run) -> None:
    """Check a run; a failure shows its steps."""
    try:
        place.check(done)
    except (AssertionError, PgBackupError) as error:
        error.add_note(str(done)) if hasattr(error, "add_note") else print(done)
        raise


def in_every_order(make: Callable[[], Place], switches: int) -> int:
    """Check every order, and return their number. Each actor succeeds, or finds that a prune deleted its backup."""
    places: list[Place] = []

    def begin() -> Place:
        places.append(make())
        return places[-1]

    count = 0
    for done in every_order(begin, switches=switches):
        count += 1
        looked_at(places.pop(), done)
        for actor in done.actors.values():
            pruned = isinstance(actor.error, BackupNotFound | OutcomeUnknown) and "prune" in done.actors
            hinted = not isinstance(actor.error, BackupNotFound) or actor.error.hint
            assert actor.succeeded or (pruned and hinted), f"{actor.name} failed without a fault: {actor.error!r}{done}"
    return count
