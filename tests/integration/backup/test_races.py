"""Two at once: whatever the order of their steps, and whatever fails, a success is a whole backup.

The steps of real verbs are interleaved by a scheduler, see :mod:`interleaving`: in every order in which one of them is
interrupted once (twice, where that is not too much), and in orders that hypothesis makes up, with an error or a kill at
any step. After each run every listed backup is whole, what was reported as a success is there, a retry succeeds, and a
later prune leaves nothing else behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from honest import write_backup
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaving import KINDS, Fault, in_order, run
from memory_store import MemoryRepository, Store
from racing import (
    APP,
    DIRECTORY,
    KEEP_ALL,
    NOW,
    UPLOADED,
    Place,
    Still,
    do_prune,
    do_upload,
    fresh,
    in_every_order,
    looked_at,
)

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.byte_source import ByteSource
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import is_complete, read_evidence
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import Policy

SCRIPT = b"--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
Make = Callable[[], Place]

# -- the verbs, two at a time ------------------------------------------------------------------------------------------


def older(store: Store, *, manifest: bool) -> Manifest:
    """What a try of two days ago has made of the upload, or left of it."""
    store.ahead = timedelta(days=-2)
    made = write_backup(
        MemoryRepository(store),
        APP,
        UPLOADED.started_at,
        members=DIRECTORY,
        looks=[],
        committed=manifest,
        attempt="0ddba115",
    )
    store.ahead = timedelta(0)
    return made


def uploads(*, conditional: bool = True) -> Place:
    return Place(fresh(conditional=conditional), {"zombie": do_upload, "retry": do_upload})


def uploads_without_conditions() -> Place:
    return uploads(conditional=False)


def upload_and_sweep() -> Place:
    store = fresh()
    older(store, manifest=False)
    return Place(store, {"upload": do_upload, "prune": do_prune})


def adoptions(folder: Path, *, conditional: bool = True) -> Place:
    def act(repository: Repository) -> dict[str, object]:
        return adopt(repository=repository, sources=[folder], server="prod", database="app")

    return Place(fresh(conditional=conditional), {"one": act, "other": act})


def adoption_and_upload_and_sweep(folder: Path) -> Place:
    store = fresh()
    older(store, manifest=False)

    def act(repository: Repository) -> dict[str, object]:
        return adopt(repository=repository, sources=[folder], server="prod", database="app")

    return Place(store, {"adopt": act, "upload": do_upload, "prune": do_prune})


def two_nights(store: Store) -> tuple[dict[str, object], frozenset[str]]:
    """The reference of the older, which ``keep_last=1`` removes."""
    repository = MemoryRepository(store)
    made = [
        write_backup(repository, APP, NOW - timedelta(days=night), members=DIRECTORY, looks=["archive-pass"])
        for night in (2, 1)
    ]
    reference: dict[str, object] = {"series": APP.path, "id": made[0].id, "repository_uuid": repository.uuid}
    return reference, frozenset({made[0].id})


def remove(repository: Repository) -> dict[str, object]:
    return do_prune(repository, Policy(keep_last=1))


def prunes() -> Place:
    store = fresh()
    _, may_go = two_nights(store)
    return Place(store, {"one": remove, "other": remove}, may_go)


def verification_and_prune() -> Place:
    store = fresh()
    reference, may_go = two_nights(store)

    def act(repository: Repository) -> dict[str, object]:
        return verify(reference=reference, repository=repository, level="integrity")

    return Place(store, {"verify": act, "prune": remove}, may_go)


def pin_and_prune() -> Place:
    store = fresh()
    reference, _ = two_nights(store)

    def act(repository: Repository) -> dict[str, object]:
        pin(repository=repository, series=APP, id=str(reference["id"]))
        return {"sha256": None, **reference}

    return Place(store, {"pin": act, "prune": remove})  # one of the two gets its way


def uploads_of_what_is_pruned() -> Place:
    """Two uploads of a backup that the destination's policy does not keep."""
    store = fresh()
    write_backup(MemoryRepository(store), APP, NOW - timedelta(days=1), members=DIRECTORY)
    return Place(store, {"zombie": do_upload, "retry": do_upload, "prune": remove}, frozenset({UPLOADED.id}))


def upload_from_what_is_pruned() -> Place:
    """The store is the source."""
    store = fresh()
    reference, may_go = two_nights(store)
    destination = Still(fresh(), "destination")

    def act(repository: Repository) -> None:
        copied = upload(reference=reference, source=repository, destination=destination)
        assert is_complete(read_evidence(destination, APP, str(copied["id"])))

    return Place(store, {"upload": act, "prune": remove}, may_go)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dumps")
    (made / "app.sql").write_bytes(SCRIPT)
    return made


PAIRS = {
    uploads: 1,
    uploads_without_conditions: 1,
    upload_and_sweep: 1,
    uploads_of_what_is_pruned: 1,
    upload_from_what_is_pruned: 1,
    prunes: 2,
    verification_and_prune: 2,
    pin_and_prune: 2,
}
"""With the number of switches, of which two make some hundred orders, or some thousand where there are more steps."""
pairs = pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)


@pairs
def test_in_every_order(make: Make) -> None:
    assert in_every_order(make, PAIRS[make]) > 30


@pytest.mark.parametrize("conditional", [True, False])
def test_two_adoptions(folder: Path, conditional: bool) -> None:
    assert in_every_order(lambda: adoptions(folder, conditional=conditional), 2) > 100


ORDERS = st.lists(st.integers(0, 2), max_size=60)
FAULTS = st.dictionaries(st.integers(0, 1), st.builds(Fault, st.integers(1, 40), st.sampled_from(KINDS)), max_size=2)


def go_through(place: Place, picks: list[int], faults: dict[int, Fault]) -> None:
    names = list(place.actions)
    looked_at(place, run(place, in_order(picks), {names[number]: fault for number, fault in faults.items()}))


@pairs
@given(picks=ORDERS, faults=FAULTS)
@settings(max_examples=40)
def test_whatever_fails(make: Make, picks: list[int], faults: dict[int, Fault]) -> None:
    go_through(make(), picks, faults)


def test_a_pin_stays_when_the_answer_to_the_deletion_is_lost() -> None:
    """The store deletes the manifest, prune is not told so, and the pin was written in between."""
    place = pin_and_prune()
    faults = {"prune": Fault(6, "lost")}
    done = run(place, in_order([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), faults)
    looked_at(place, done)
    assert done.actors["pin"].succeeded
    assert isinstance(done.actors["prune"].error, RepositoryError)


@given(picks=ORDERS, faults=FAULTS, conditional=st.booleans())
@settings(max_examples=40)
def test_whatever_fails_of_two_adoptions(
    folder: Path, picks: list[int], faults: dict[int, Fault], conditional: bool
) -> None:
    go_through(adoptions(folder, conditional=conditional), picks, faults)


@given(picks=ORDERS, faults=FAULTS)
@settings(max_examples=40)
def test_whatever_fails_of_three(folder: Path, picks: list[int], faults: dict[int, Fault]) -> None:
    go_through(adoption_and_upload_and_sweep(folder), picks, faults)


# -- dumps: fewer orders, since each is two real ones ------------------------------------------------------------------


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, "create table t as select generate_series(1, 10) n")


def dumps(database: ConnectionParams, *, conditional: bool = True, policy: Policy | None = None) -> Place:
    """A task that is believed dead and its retry; or a dump beside a prune."""

    def act(repository: Repository) -> dict[str, object]:
        options = DumpOptions(format="plain")
        return dump_database(
            connection=database, server="prod", repository=repository, options=options, context=RunContext(seed="task")
        )

    store = fresh(conditional=conditional)
    if policy is None:
        return Place(store, {"zombie": act, "retry": act})
    _, may_go = two_nights(store)
    return Place(store, {"dump": act, "prune": lambda repository: do_prune(repository, policy)}, may_go)


@pytest.mark.parametrize("number", range(12))
def test_two_dumps_of_one_task(database: ConnectionParams, number: int) -> None:
    random_ = random.Random(number)
    place = dumps(database, conditional=number % 3 > 0)
    faults = {"zombie": Fault(random_.randint(1, 20), random_.choice(KINDS))} if number % 2 else {}
    done = run(place, in_order([random_.randint(0, 1) for _ in range(60)]), faults)
    looked_at(place, done)
    assert done.actors["retry"].succeeded, done
    assert faults or done.actors["zombie"].succeeded, done


@pytest.mark.parametrize("number", range(4))
def test_a_dump_beside_a_prune(database: ConnectionParams, number: int) -> None:
    random_ = random.Random(number)
    place = dumps(database, policy=Policy(keep_last=1))
    done = run(place, in_order([random_.randint(0, 1) for _ in range(60)]))
    looked_at(place, done)
    assert all(actor.succeeded for actor in done.actors.values()), done


# -- a writer that stood still for longer than the grace period --------------------------------------------------------


def test_an_attempt_that_was_swept_is_no_success() -> None:
    """Stopped between its artifact and its manifest, for days."""

    class Stopped(Still):
        def _write(self, key: str, source: ByteSource, *, size_hint: int | None, sha256: str | None) -> Entry:
            if key.endswith("manifest.json"):
                do = prune(repository=Still(store), policy=KEEP_ALL, dry_run=False, now=NOW + timedelta(days=3))
                assert [one["size"] for one in do["leftovers"]] == [UPLOADED.artifact.size]
            return super()._write(key, source, size_hint=size_hint, sha256=sha256)

    store = fresh()
    with pytest.raises(RepositoryError, match=r"was removed while it was being written: .* is missing"):
        do_upload(Stopped(store))
    assert set(store.objects) == {"repository.json"}
    assert do_upload(Still(store))["id"] == UPLOADED.id
