"""write_set: which set a try of a run adds to, and when a run begins another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from honest import write_backup

from airflow_pgbackup.backup.choose_backup import choose_backup
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.sets.discover import Discovery, FoundDatabase
from airflow_pgbackup.backup.sets.write_set import write_set
from airflow_pgbackup.errors import PartialSet
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, backup_id
from airflow_pgbackup.repository.set_files import list_sets, read_listed_set

NIGHT = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=27)
MORNING = NIGHT + timedelta(hours=7)


def found(at: datetime) -> Discovery:
    databases = FoundDatabase("app", 2), FoundDatabase("crm", 1)
    return Discovery(server_version="18.4", started_at=at, databases=databases)


def dump(repository: Repository, database: str, at: datetime) -> dict[str, object]:
    made = write_backup(repository, Series("prod", database, None), at)
    return dict(choose_backup(repository, made.series.path, made.id, log=print))


def write(
    repository: Repository, discovery: Discovery, *backups: dict[str, object], set_id: str | None = None
) -> BackupSet:
    """Write the set of the same run."""
    return write_set(
        repository=repository,
        server="prod",
        discovery=discovery,
        backups=backups,
        with_globals=False,
        set_id=set_id,
        context=RunContext(seed="the run"),
    )


def sets(repository: Repository) -> list[tuple[str, list[str], list[str]]]:
    """Return id, status of each file, and members of the sets, the newest first."""
    return [
        (one.id, [name.status for name in one.names], [m.id for m in read_listed_set(repository, one).databases])
        for one in list_sets(repository)
    ]


def ids(*backups: dict[str, object]) -> Sequence[object]:
    return [one["id"] for one in backups]


def test_a_cleared_run_that_fails_leaves_the_complete_set(here: Repository) -> None:
    app, crm = (dump(here, name, NIGHT) for name in ("app", "crm"))
    first = write(here, found(NIGHT), app, crm)
    again = dump(here, "app", MORNING)
    second = write(here, found(MORNING), again)
    assert (first.status, second.status) == ("complete", "partial")
    assert (second.started_at, [each.database for each in second.missing]) == (MORNING, ["crm"])
    assert sets(here) == [(second.id, ["partial"], ids(again)), (first.id, ["complete"], ids(app, crm))]
    # As usual, the failed dump and the set are cleared, and not the discovery: its set is completed.
    late = dump(here, "crm", MORNING + timedelta(hours=1))
    assert write(here, found(MORNING), again, late).id == second.id
    assert sets(here) == [
        (second.id, ["partial", "complete"], ids(again, late)),
        (first.id, ["complete"], ids(app, crm)),
    ]


def test_a_cleared_run_that_succeeds_has_a_set_of_its_own_date(here: Repository) -> None:
    old = [dump(here, name, NIGHT) for name in ("app", "crm")]
    first = write(here, found(NIGHT), *old)
    now = NIGHT + timedelta(days=27)
    new = [dump(here, name, now) for name in ("app", "crm")]
    second = write(here, found(now), *new)
    assert (first.started_at, second.started_at) == (NIGHT, now)
    assert sets(here) == [(second.id, ["complete"], ids(*new)), (first.id, ["complete"], ids(*old))]


def test_a_cleared_run_whose_first_set_was_partial_begins_another(here: Repository) -> None:
    app = dump(here, "app", NIGHT)
    first = write(here, found(NIGHT), app)
    new = [dump(here, name, MORNING) for name in ("app", "crm")]
    second = write(here, found(MORNING), *new)
    assert sets(here) == [(second.id, ["complete"], ids(*new)), (first.id, ["partial"], ids(app))]


def test_a_retry_of_the_set_adds_nothing(here: Repository) -> None:
    backups = [dump(here, name, NIGHT) for name in ("app", "crm")]
    first = write(here, found(NIGHT), *backups)
    assert write(here, found(NIGHT), *backups) == first
    assert sets(here) == [(first.id, ["complete"], ids(*backups))]


def test_backups_of_an_earlier_discovery_stay_in_its_set(here: Repository) -> None:
    """Discovery and set are cleared, and a dump is not: the set is no newer than its backups."""
    app = dump(here, "app", NIGHT)
    first = write(here, found(NIGHT), app)
    crm = dump(here, "crm", MORNING)
    second = write(here, found(MORNING), app, crm)
    assert (second.id, second.started_at, second.status) == (first.id, NIGHT, "complete")


@pytest.mark.parametrize("discovered_again", [False, True])
def test_a_cleared_dump_that_fails_leaves_the_complete_set(here: Repository, discovered_again: bool) -> None:
    app, crm = (dump(here, name, NIGHT) for name in ("app", "crm"))
    first = write(here, found(NIGHT), app, crm)
    with pytest.raises(PartialSet) as caught:
        write(here, found(MORNING if discovered_again else NIGHT), app)
    assert caught.value.message == (
        f"complete backup set prod/@sets/{first.id} in {here.uri} was not replaced by a partial one: "
        "missing crm (no backup was made)"
    )
    assert sets(here) == [(first.id, ["complete"], ids(app, crm))]


def test_a_cleared_dump_that_succeeds_is_in_the_same_set(here: Repository) -> None:
    app, crm = (dump(here, name, NIGHT) for name in ("app", "crm"))
    first = write(here, found(NIGHT), app, crm)
    late = dump(here, "crm", MORNING)
    assert write(here, found(NIGHT), app, late).id == first.id
    assert sets(here) == [(first.id, ["complete", "complete"], ids(app, late))]


def test_a_partial_copy_does_not_replace_a_complete_one(here: Repository) -> None:
    app, crm = (dump(here, name, NIGHT) for name in ("app", "crm"))
    first = write(here, found(NIGHT), app, crm, set_id="20261101T000000Z-0a0b0c")
    with pytest.raises(PartialSet, match="was not replaced by a partial one"):
        write(here, found(MORNING), app, set_id=first.id)
    assert sets(here) == [(first.id, ["complete"], ids(app, crm))]


def test_a_copy_of_an_earlier_attempt_is_not_in_the_copied_set(here: Repository) -> None:
    """Airflow keeps the result of an upload that was cleared and did not run again, since its dump failed."""
    old, new = dump(here, "crm", NIGHT), dump(here, "app", MORNING)
    copied = write(here, found(MORNING), new, old, set_id=backup_id(MORNING, seed="the run"))
    assert [(each.database, each.reason) for each in copied.missing] == [
        ("crm", f"backup {old['id']} is older than the set")
    ]
    assert [each.id for each in copied.databases] == ids(new)


def test_another_server_of_the_same_run_begins_another_set(here: Repository) -> None:
    app, crm = (dump(here, name, NIGHT) for name in ("app", "crm"))
    sources = [replace(found(NIGHT), source=source) for source in ("a", "b")]
    assert len({write(here, source, app, crm).id for source in sources}) == 2
