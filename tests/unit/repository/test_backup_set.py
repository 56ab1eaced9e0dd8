"""Backup sets in a repository: written once, read with suspicion, and never taken for backups."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.fsck.run import fsck
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryNotFound
from airflow_pgbackup.repository.backup_set import Absent, BackupSet, SetMember
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.layout import Series, split_key
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.set_files import find_set, list_sets, read_set, write_set
from airflow_pgbackup.repository.set_layout import SetName, set_folder, split_set_key

NIGHT = datetime(2026, 11, 22, 2, 0, tzinfo=timezone.utc)
ID = "20261122T020000Z-3f9ac1"
ODD = 'Ärger "x"/../@sets'


def member(database: str | None, server: str = "prod", id: str = "20261122T020100Z-0a0b0c") -> SetMember:
    series = Series(server, database, None if database else "globals").path
    key = f"{series}/{id}/7d41c09e/x.dump"
    return SetMember(series=series, id=id, database=database, size=1, sha256="0" * 64, key=key, level="archive")


def a_set(server: str = "prod", **changes: Any) -> BackupSet:
    fields: dict[str, Any] = {
        "id": ID,
        "server": server,
        "status": "complete",
        "started_at": NIGHT,
        "finished_at": NIGHT,
        "server_version": "18.4",
        "globals": member(None, server),
        "databases": (member("app", server), member(ODD, server)),
    }
    return BackupSet(**{**fields, **changes})


PARTIAL = {"status": "partial", "missing": (Absent("billing", "no backup of this run"),)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pg"


@pytest.fixture
def repository(root: Path) -> LocalRepository:
    made = LocalRepository(root)
    made.init()
    return made


@pytest.fixture
def put(root: Path) -> Callable[..., str]:
    def write(content: bytes, name: str, id: str = ID, server: str = "prod") -> str:
        path = root / server / "@sets" / id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path.relative_to(root))

    return write


def test_a_set_is_read_as_it_was_written(repository: LocalRepository) -> None:
    before = datetime.now(timezone.utc)
    written = write_set(repository, a_set())
    assert before <= written.finished_at <= datetime.now(timezone.utc)
    assert replace(written, finished_at=NIGHT) == a_set()
    assert read_set(repository, "prod", ID) == written
    assert [each.database for each in written.members] == [None, "app", ODD]
    assert written.members[2].parsed_series == Series("prod", ODD)
    (listed,) = list_sets(repository)
    assert (listed.server, listed.id, listed.status) == ("prod", ID, "complete")
    assert (listed.started_at, listed.names[-1].at) == (NIGHT, written.finished_at)


def test_the_same_set_adds_no_file_whoever_writes_it(repository: LocalRepository) -> None:
    first = write_set(repository, a_set(origin={"try_number": 1}))
    assert write_set(repository, a_set(origin={"try_number": 2})) == first
    assert find_set(repository, "prod", ID).names == (first.name,)


def test_a_later_file_counts_and_the_earlier_one_stays(repository: LocalRepository) -> None:
    partial = write_set(repository, a_set(**PARTIAL))
    complete = write_set(repository, a_set())
    assert find_set(repository, "prod", ID).names == (partial.name, complete.name)
    assert read_set(repository, "prod", ID) == complete
    assert find_set(repository, "prod", ID).status == "complete"
    assert write_set(repository, a_set(**PARTIAL)).status == "partial", "a set can also lose a member"
    assert read_set(repository, "prod", ID).status == "partial"


def test_what_is_written_later_counts_although_clocks_differ(
    repository: LocalRepository, put: Callable[..., str]
) -> None:
    ahead = replace(a_set(**PARTIAL), finished_at=datetime.now(timezone.utc) + timedelta(minutes=3))
    put(ahead.to_json(), ahead.name.file)
    written = write_set(repository, a_set())
    assert written.finished_at > ahead.finished_at
    assert read_set(repository, "prod", ID) == written


def test_sets_are_listed_by_server_newest_first(repository: LocalRepository, root: Path) -> None:
    later = a_set(id="20261123T020000Z-3f9ac1", started_at=NIGHT + timedelta(days=1))
    for each in (a_set(), later, a_set("Ä/b"), a_set("a", **PARTIAL)):
        write_set(repository, each)
    (root / "%zz").mkdir()  # not an encoded name
    assert [(one.server, one.id, one.status) for one in list_sets(repository)] == [
        ("a", ID, "partial"),
        ("prod", later.id, "complete"),
        ("prod", ID, "complete"),
        ("Ä/b", ID, "complete"),
    ]
    assert [one.id for one in list_sets(repository, "prod")] == [later.id, ID]
    assert list_sets(repository, "nowhere") == []


def test_there_is_no_such_set(repository: LocalRepository, tmp_path: Path) -> None:
    for id in (ID, "..", "../app", "", "latest"):
        with pytest.raises(BackupNotFound, match="has no backup set prod/@sets/"):
            read_set(repository, "prod", id)
    with pytest.raises(RepositoryNotFound):
        list_sets(LocalRepository(tmp_path / "unmounted"))


def test_files_from_the_future_are_ignored(repository: LocalRepository, put: Callable[..., str]) -> None:
    written = write_set(repository, a_set(**PARTIAL))
    future = replace(a_set(), finished_at=datetime.now(timezone.utc) + timedelta(days=1000))
    put(future.to_json(), future.name.file)
    assert read_set(repository, "prod", ID) == written
    assert list_sets(repository)[0].status == "partial"
    assert write_set(repository, a_set()).finished_at < future.finished_at
    put(future.to_json(), future.name.file, id="20261123T020000Z-3f9ac1")
    assert list_sets(repository)[0].status == "partial", "no file of it counts"
    with pytest.raises(ManifestError, match="is from the future"):
        read_set(repository, "prod", "20261123T020000Z-3f9ac1")


def forged(**changes: Any) -> bytes:
    return json.dumps({**json.loads(a_set().to_json()), **changes}).encode()


APP = json.loads(a_set().to_json())["databases"][0]
AFTER = "set-20261122T030000.000000Z-complete.json"
FORGERIES = {
    "not JSON": (b"x", "is not JSON"),
    "a list": (b"[]", "without a valid format version"),
    "a later format": (forged(format_version="2.0"), "of format version 2.0, this release reads 1.x"),
    "deep": (forged(x=json.loads("[" * 100 + "]" * 100)), "nested more than 32 levels deep"),
    "another kind": (forged(kind="manifest"), "violates its schema at kind"),
    "another place": (forged(server="other", databases=[], globals=None), "is set-.* of other/@sets/"),
    "a server that no folder has": (forged(server="\ud800", databases=[], globals=None), "is not valid unicode"),
    "a server that is too long": (forged(server="x" * 300, databases=[], globals=None), "takes 300 bytes"),
    "another time": (forged(finished_at="2026-11-22T03:00:01Z"), "is set-20261122T030001"),
    "another start": (forged(started_at="2026-11-22T02:00:01Z"), "did not start at"),
    "complete with a gap": (
        forged(missing=[{"database": "b", "reason": ""}]),
        "it is complete, and 1 backups are missing",
    ),
    "partial without a gap": (forged(status="partial"), "it is partial, and 0 backups are missing"),
    "a snapshot": (forged(snapshot=True), "violates its schema at snapshot"),
    "another server's backup": (
        forged(databases=[{**APP, "series": "other/app", "key": "other/app/x"}]),
        "'other/app' is not the series of a member",
    ),
    "another database": (forged(databases=[{**APP, "database": "b"}]), "is not the series of a member"),
    "a cluster": (
        forged(globals={**APP, "database": None, "series": "prod/@cluster"}),
        "is not the series of a member",
    ),
    "globals among databases": (
        forged(databases=[{**APP, "database": None, "series": "prod/@globals"}]),
        "is not the series of a member",
    ),
    "a path": (forged(databases=[{**APP, "series": "../../etc"}]), "is not the series of a member"),
    "a key elsewhere": (forged(databases=[{**APP, "key": "/etc/passwd"}]), "is not a key of backup prod/app/"),
    "a key that no store can have": (
        forged(databases=[{**APP, "key": f"prod/app/{APP['id']}/\ud800"}]),
        "is not a key of backup prod/app/",
    ),
    "a way out": (
        forged(databases=[{**APP, "key": f"prod/app/{APP['id']}/../../x"}]),
        "is not a key of backup prod/app/",
    ),
    "one twice": (forged(databases=[APP, APP]), "lists a database twice"),
    "there and missing": (
        forged(status="partial", missing=[{"database": "app", "reason": ""}]),
        "lists a database twice",
    ),
    "an id": (forged(databases=[{**APP, "id": "x"}]), "violates its schema at databases/0/id"),
    "a number": (forged(databases=[{**APP, "size": 10**30}]), "does not fit into 64 bits"),
    "a digest": (forged(databases=[{**APP, "sha256": "0" * 64 + "\n"}]), "violates its schema at databases/0/sha256"),
    "globals twice": (forged(status="partial", globals_missing="x"), "both present and missing"),
}


@pytest.mark.parametrize(("content", "why"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_set_is_refused(
    repository: LocalRepository, put: Callable[..., str], content: bytes, why: str
) -> None:
    older = replace(a_set(**PARTIAL), finished_at=NIGHT + timedelta(minutes=30))
    put(older.to_json(), older.name.file)
    if b'"finished_at": "2026-11-22T02:00:00Z"' in content:
        content = content.replace(b'"finished_at": "2026-11-22T02:00:00Z"', b'"finished_at": "2026-11-22T03:00:00Z"')
    status = "partial" if b'"partial"' in content else "complete"
    key = put(content, AFTER.replace("complete", status))
    with pytest.raises(ManifestError, match=rf"^backup set prod/@sets/{ID} cannot be read: .*{why}") as caught:
        read_set(repository, "prod", ID)
    assert key in (caught.value.hint or "") or "Upgrade" in (caught.value.hint or "")
    assert write_set(repository, a_set()).status == "complete", "a new file takes its place"
    assert read_set(repository, "prod", ID).status == "complete"


def test_a_huge_file_is_not_read(repository: LocalRepository, put: Callable[..., str]) -> None:
    put(b" " * (32 * 1024**2 + 1), AFTER)
    with pytest.raises(ManifestError, match="a set of 33554433 bytes, more than 33554432"):
        read_set(repository, "prod", ID)


def test_a_set_that_contradicts_itself_is_not_written(repository: LocalRepository) -> None:
    with pytest.raises(ManifestError, match="it is partial, and 0 backups are missing"):
        write_set(repository, a_set(status="partial"))
    assert list_sets(repository) == []


def test_a_set_is_no_backup(repository: LocalRepository, put: Callable[..., str], root: Path) -> None:
    write_set(repository, a_set(**PARTIAL))
    stray = put(b"x", "notes.txt")
    catalogue = read_catalogue(repository)
    assert (catalogue.backups, catalogue.leftovers) == ((), ())
    assert catalogue.foreign == (stray,)
    assert read_catalogue(repository, server="prod").foreign == (stray,)
    assert find_set(repository, "prod", ID).others == (stray,)
    (file,) = (path for path in (root / "prod/@sets" / ID).iterdir() if path.suffix == ".json")
    assert split_key(str(file.relative_to(root))) is None
    assert split_set_key(str(file.relative_to(root))) == ("prod", ID, file.name)
    result = prune(
        repository=repository,
        policy=Policy(keep_last=1),
        dry_run=False,
        now=datetime.now(timezone.utc) + timedelta(days=9),
    )
    assert result["leftovers"] == []
    assert file.exists()
    report = fsck(repository=repository)
    assert [(each.code, each.key, each.message) for each in report.findings] == [
        ("foreign_file", stray, "not a file of a backup set")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "set-20261122T030000Z-complete.json",
        "set-20261399T030000.000000Z-complete.json",
        "set-20261122T030000.000000Z-whole.json",
        "set-20261122T030000.000000Z-complete.json.bak",
        "set.json",
    ],
)
def test_other_names_are_not_those_of_a_set(name: str, repository: LocalRepository, put: Callable[..., str]) -> None:
    put(a_set().to_json(), name)
    assert SetName.parse(name) is None
    assert list_sets(repository) == []


def test_a_database_named_sets_is_a_series_of_its_own(repository: LocalRepository) -> None:
    assert Series("prod", "@sets").path == "prod/%40sets"
    assert set_folder("prod", ID) == f"prod/@sets/{ID}"
    with pytest.raises(ValueError, match="not an encoded name"):
        Series.parse("prod/@sets")
