"""The verbs that :mod:`.crash_points` kills at each step, and what must be true of each afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.pin import pin, unpin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.rewrap import rewrap
from airflow_pgbackup.backup.sets.dump_set import dump_set
from airflow_pgbackup.backup.undelete import undelete
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.set_files import list_sets, read_listed_set

from .aftermath import LATER, after_the_grace_period
from .crash_world import STORES, World, script

APP = Series("prod", "app")
KEEP_ONE = Policy(keep_last=1)


def nothing(world: World) -> None:
    """Prepare nothing."""


def no_more(world: World, phase: str) -> Iterator[str]:
    """Check nothing more than what holds for all verbs."""
    return iter(())


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A call of a verb in a world, and its effect.

    :param act: calls it.
    :param repository: the name of the one that it changes.
    :param makes: how many backups a call makes.
    :param repeats: whether a call that does not retry an earlier one, such as tomorrow's dump, makes them again.
    :param removes: how many backups a call deletes, the oldest ones.
    :param seed: whether the verb is told which task it is a retry of.
    :param refusal: in the error of a later call that finds the work done.
    :param prepare: what must be there before.
    :param check: yields what is wrong; ``phase`` is ``killed``, ``same`` after a retry of the task, or ``fresh`` after
        a new call.
    """

    act: Callable[[World, RunContext], object]
    repository: str = "here"
    makes: int = 0
    repeats: bool = False
    removes: int = 0
    refusal: str | None = None
    prepare: Callable[[World], object] = nothing
    check: Callable[[World, str], Iterator[str]] = no_more
    stores: tuple[str, ...] = STORES
    postgres: bool = False
    versioned: bool = False


# -- backups -----------------------------------------------------------------------------------------------------------


def dump(**more: object) -> Callable[[World, RunContext], object]:
    options = {name: more.pop(name) for name in ("format", "jobs") if name in more}
    encrypt = bool(more.pop("encrypt", False))

    def act(world: World, context: RunContext) -> object:
        if encrypt:
            context = world.context(seed=context.seed, encrypt=True)
        return dump_database(
            connection=world.servers.app,
            server="prod",
            repository=world.repository("here"),
            options=DumpOptions(**options),  # type: ignore[arg-type]
            context=context,
            **more,  # type: ignore[arg-type]
        )

    return act


def dump_globals(world: World, context: RunContext) -> object:
    return dump_cluster(
        connection=world.servers.app,
        server="prod",
        repository=world.repository("here"),
        options=DumpAllOptions(globals_only=True),
        context=context,
    )


def dump_a_set(world: World, context: RunContext) -> object:
    return dump_set(
        connection=world.servers.app,
        server="sets",
        repository=world.repository("here"),
        options=DumpOptions(),
        databases=["app"],
        context=context,
    )


def sets_are_complete(world: World, phase: str) -> Iterator[str]:
    repository = world.repository("here")
    sets = [read_listed_set(repository, listed) for listed in list_sets(repository)]
    yield from (f"set {one.id} is {one.status}" for one in sets if one.status != "complete")
    expected = {"killed": (0, 1), "same": (1,), "fresh": (1, 2)}[phase]
    if len(sets) not in expected:
        yield f"{len(sets)} backup sets {phase}, expected {expected}"


def verify_at(level: str, number: int) -> Verb:
    def act(world: World, context: RunContext) -> object:
        here = world.repository("here")
        return verify(reference=world.reference(here, number), repository=here, level=level, context=context)

    def check(world: World, phase: str) -> Iterator[str]:
        backup = world.backups(world.repository("here"))[number]
        if phase != "killed" and (backup.state, backup.level) != ("verified", level):
            yield f"{backup.folder} is {backup.standing} {phase}"

    return Verb(act=act, check=check, postgres=level == "restore")


def upload_number(number: int) -> Verb:
    def act(world: World, context: RunContext) -> object:
        here = world.repository("here")
        there = world.repository("there")
        return upload(reference=world.reference(here, number), source=here, destination=there, context=context)

    return Verb(act=act, repository="there", makes=1)


def rewrap_number(number: int) -> Verb:
    def act(world: World, context: RunContext) -> object:
        here = world.repository("here")
        # From the first listing on, so that a later call finds the same backup.
        reference = {**world.reference(here, 0), "id": world.ids[number]}
        return rewrap(reference=reference, repository=here, context=world.context(seed=context.seed, encrypt=True))

    return Verb(act=act, makes=1)


def adopt_scripts(**how: bool) -> Verb:
    names = ("crm_2025-10-01.sql", "crm_2025-11-01.sql")

    def prepare(world: World) -> None:
        for number, name in enumerate(names, 1):
            (world.old / name).write_bytes(script("xyz" * number))

    def act(world: World, context: RunContext) -> object:
        result = adopt(
            repository=world.repository("here"),
            sources=[world.old],
            server="old",
            database="crm",
            context=context,
            **how,  # type: ignore[arg-type]
        )
        assert not result["skipped"], result["skipped"]
        assert not result["failed"], result["failed"]
        return None

    def check(world: World, phase: str) -> Iterator[str]:
        dates = {f"crm_{b.started_at:%Y-%m-%d}.sql" for b in world.backups(world.repository("here"))}
        files = {path.name for path in world.old.iterdir()}
        yield from (f"{name} is lost" for name in names if name not in dates | files)
        if phase != "killed" and files != (set() if how.get("move") else set(names)):
            yield f"the sources are {sorted(files)} {phase}"

    stores = ("local",) if how.get("link") else STORES
    return Verb(act=act, prepare=prepare, check=check, makes=2, stores=stores)


# -- the repository ----------------------------------------------------------------------------------------------------


def initialize(world: World, context: RunContext) -> object:
    return world.repository("new").init()


def is_initialized(world: World, phase: str) -> Iterator[str]:
    if phase != "killed" and not world.repository("new").uuid:  # raises where there is no repository
        yield "the repository has no UUID"


def prune_one(world: World, context: RunContext) -> object:
    return prune(repository=world.repository("here"), policy=KEEP_ONE, dry_run=False, context=context)


def sweep(world: World, context: RunContext) -> object:
    here = after_the_grace_period(world.repository("here"))
    now = datetime.now(timezone.utc) + LATER
    return prune(repository=here, policy=None, dry_run=False, now=now, context=context)


def repair(world: World, context: RunContext) -> object:
    here = after_the_grace_period(world.repository("here"))
    return fsck(repository=here, repair=True, now=datetime.now(timezone.utc) + LATER).swept


def leave_leftovers(world: World) -> None:
    world.leave_leftovers()


def pin_oldest(world: World, context: RunContext) -> object:
    return pin(repository=world.repository("here"), series=APP, id=world.ids[0], reason="a test")


def unpin_oldest(world: World, context: RunContext) -> object:
    return unpin(repository=world.repository("here"), series=APP, id=world.ids[0])


def pinned(expected: bool) -> Callable[[World, str], Iterator[str]]:
    def check(world: World, phase: str) -> Iterator[str]:
        if phase != "killed" and world.backups(world.repository("here"))[0].pinned is not expected:
            yield f"the backup is {'not ' if expected else ''}pinned {phase}"

    return check


def undelete_oldest(world: World, context: RunContext) -> object:
    return undelete(repository=world.repository("here"), series=APP, id=world.ids[0], context=context).id


# -- restores ----------------------------------------------------------------------------------------------------------


def restore_in(mode: str, before: str | None, *, number: int = -1) -> Verb:
    """:param before: what the target holds before: ``old``, ``empty``, or None where it does not exist."""

    def prepare(world: World) -> None:
        make_target(world, before)

    def act(world: World, context: RunContext) -> object:
        here = world.repository("here")
        target = RestoreTarget(connection=world.target, mode=mode)
        return restore(reference=world.reference(here, number), repository=here, target=target, context=context)

    def check(world: World, phase: str) -> Iterator[str]:
        yield from check_target(world, phase, before)
        most = {"killed": 1, "same": 1, "fresh": 2}[phase] if mode == "replace" else 0
        replaced = [name for name in world.databases() if name != world.database]
        if len(replaced) > most or (phase == "same" and len(replaced) != most):
            yield f"{phase}: {', '.join(replaced)}, expected {most}"
        yield from (
            f"{name} holds {content} {phase}"
            for name in replaced
            if (content := world.content(name)) not in (before, "app")
        )

    refusal = {"create": "already exists", "into_empty": "is not empty|has data|not empty|holds|already"}.get(mode)
    return Verb(act=act, prepare=prepare, check=check, refusal=refusal, postgres=True)


def make_target(world: World, content: str | None) -> None:
    if content is not None:
        world.execute(f"create database {world.database} template template0")
    if content == "old":
        world.execute("create table old as select 1 as a", database=world.database)


def check_target(world: World, phase: str, before: str | None) -> Iterator[str]:
    """The target holds all of the old or all of the new, and after a retry the new."""
    content = world.content(world.database) if world.database in world.databases() else None
    if content not in ((before, "app") if phase == "killed" else ("app",)):
        yield f"the target holds {content} {phase}"


def refresh_target(world: World, context: RunContext) -> object:
    here = world.repository("here")
    return refresh(reference=world.reference(here), repository=here, target=world.target, keep=1, context=context)


def make_old_target(world: World) -> None:
    make_target(world, "old")


def is_refreshed(world: World, phase: str) -> Iterator[str]:
    yield from check_target(world, phase, "old")
    kept = [name for name in world.databases() if name != world.database]
    # A refresh that was killed before it dropped older copies leaves that to the next one.
    if len(kept) > 1:
        yield f"{phase}: kept {', '.join(kept)}, expected one"
    yield from (
        f"{name} holds {content} {phase}" for name in kept if (content := world.content(name)) not in ("old", "app")
    )


def prune_first(world: World) -> None:
    prune_one(world, world.context())


VERBS = {
    "init": Verb(act=initialize, repository="new", check=is_initialized),
    "dump": Verb(act=dump(), makes=1, repeats=True, postgres=True),
    "dump-directory": Verb(act=dump(format="directory", jobs=2), makes=1, repeats=True, postgres=True),
    "dump-plain": Verb(act=dump(format="plain", count_rows=True), makes=1, repeats=True, postgres=True),
    "dump-tar": Verb(act=dump(format="tar"), makes=1, repeats=True, postgres=True),
    "dump-encrypted": Verb(act=dump(encrypt=True), makes=1, repeats=True, postgres=True),
    "dump-verifying": Verb(act=dump(read_along=True), makes=1, repeats=True, postgres=True),
    "dump-globals": Verb(act=dump_globals, makes=1, repeats=True, postgres=True),
    "dump-set": Verb(act=dump_a_set, makes=2, repeats=True, check=sets_are_complete, postgres=True),
    "verify": verify_at("archive", 1),
    "verify-directory": verify_at("archive", 0),
    "rehearse": verify_at("restore", 1),
    "upload": upload_number(1),
    "upload-directory": upload_number(0),
    "rewrap": rewrap_number(1),
    "rewrap-directory": rewrap_number(0),
    "adopt": adopt_scripts(),
    "adopt-link": adopt_scripts(link=True),
    "adopt-move": adopt_scripts(move=True),
    "adopt-link-move": adopt_scripts(link=True, move=True),
    "prune": Verb(act=prune_one, removes=1),
    "sweep": Verb(act=sweep, prepare=leave_leftovers),
    "fsck-repair": Verb(act=repair, prepare=leave_leftovers),
    "pin": Verb(act=pin_oldest, check=pinned(True)),
    "unpin": Verb(act=unpin_oldest, prepare=lambda world: pin_oldest(world, world.context()), check=pinned(False)),
    "undelete": Verb(
        act=undelete_oldest,
        prepare=prune_first,
        makes=1,
        stores=("s3",),
        versioned=True,
        refusal="was not deleted or overwritten",
    ),
    "restore-create": restore_in("create", None),
    "restore-create-directory": restore_in("create", None, number=0),
    "restore-into-empty": restore_in("into_empty", "empty"),
    "restore-replace": restore_in("replace", "old"),
    "refresh": Verb(act=refresh_target, prepare=make_old_target, check=is_refreshed, postgres=True),
}
