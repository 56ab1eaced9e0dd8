"""The catalogue: what file names alone tell, with foreign, forged and half-deleted things around them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import manifest_of
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, ManifestError, RepositoryNotFound
from airflow_pgbackup.repository.catalogue import (
    Backup,
    Leftover,
    find_backup,
    find_folder,
    read_catalogue,
    read_manifest,
    read_manifests,
    select_series,
    series_order,
)
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import LEVELS, RESULTS, Series, VerificationName
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import MAX_BYTES, Manifest
from airflow_pgbackup.repository.state import standing

NIGHT = datetime(2026, 11, 22, 2, 0, tzinfo=timezone.utc)
APP = Series("prod", "app")
ID = "20261122T020000Z-3f9ac1"


def seen(marks: str) -> list[VerificationName]:
    """``archive-pass restore-fail``: a history, one a minute."""
    return [VerificationName(NIGHT + timedelta(minutes=n), *mark.split("-")) for n, mark in enumerate(marks.split())]


@pytest.mark.parametrize(
    ("history", "state", "level"),
    [
        ("", "written", None),
        ("integrity-pass", "verified", "integrity"),
        ("archive-pass", "verified", "archive"),
        ("archive-pass integrity-pass", "verified", "archive"),
        ("integrity-pass archive-pass restore-pass", "verified", "restore"),
        ("archive-fail", "failed", None),
        ("archive-pass integrity-fail", "failed", None),
        ("archive-pass restore-fail", "failed", None),
        # Only a look that is as deep takes a failure back, and then what was true before has to be shown again.
        ("restore-fail archive-pass", "failed", None),
        ("restore-fail archive-pass restore-pass", "verified", "restore"),
        ("restore-pass integrity-fail integrity-pass", "verified", "integrity"),
        ("integrity-fail archive-pass", "verified", "archive"),
        ("integrity-fail restore-fail integrity-pass", "failed", None),
        # A rehearsal that could not run says nothing about the backup.
        ("restore-notproven", "notproven", None),
        ("archive-pass restore-notproven", "verified", "archive"),
        ("restore-notproven archive-fail restore-notproven", "failed", None),
    ],
)
def test_standing(history: str, state: str, level: str | None) -> None:
    assert standing(seen(history)) == (state, level)
    assert standing(reversed(seen(history))) == (state, level), "a listing may come in any order"


def test_of_two_results_at_one_instant_the_failure_counts() -> None:
    both = [VerificationName(NIGHT, "archive", "fail"), VerificationName(NIGHT, "archive", "pass")]
    assert standing(both) == standing(reversed(both)) == ("failed", None)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(LEVELS), st.sampled_from(RESULTS)), max_size=6))
def test_a_level_is_never_claimed_without_a_pass_after_the_last_failure(events: list[tuple[int, str, str]]) -> None:
    history = [VerificationName(NIGHT + timedelta(minutes=at), level, result) for at, level, result in events]
    state, level = standing(history)
    failures = [v.at for v in history if v.result == "fail"]
    good = [v.level for v in history if v.result == "pass" and all(v.at > at for at in failures)]
    if state == "verified":
        assert level in good
    else:
        assert level is None
    if not failures:
        assert level == (max(good, key=LEVELS.index) if good else None)
    assert (state == "failed") <= bool(failures)


# -- a repository with things in it ---------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pg"


@pytest.fixture
def repository(root: Path) -> LocalRepository:
    made = LocalRepository(root)
    made.init()
    return made


@pytest.fixture
def put(root: Path) -> Callable[..., None]:
    def write(key: str, data: bytes = b"x") -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def manifest(repository: LocalRepository, series: Series = APP) -> Manifest:
    return manifest_of(repository, series, NIGHT, {"app.dump": b"12345"}, id=ID)


def only(repository: LocalRepository) -> Backup:
    (backup,) = read_catalogue(repository).backups
    return backup


def test_names_tell_the_state(repository: LocalRepository, put: Callable[..., None]) -> None:
    put(f"prod/app/{ID}/app_2026-11-22_0200.dump", b"12345")
    put(f"prod/app/{ID}/manifest.json", b"never read")
    assert only(repository) == Backup(
        series=APP,
        id=ID,
        started_at=NIGHT,
        committed_at=only(repository).committed_at,
        size=5,
        state="written",
    )
    put(f"prod/app/{ID}/verification-20261122T021500.123456Z-archive-pass.json", b"nor this")
    put(f"prod/app/{ID}/pin.json")
    backup = only(repository)
    assert (backup.state, backup.level, backup.size, backup.pinned) == ("verified", "archive", 5, True)
    assert [v.file for v in backup.verifications] == ["verification-20261122T021500.123456Z-archive-pass.json"]


@pytest.mark.usefixtures("utime_counts")
def test_times_are_those_of_the_files(repository: LocalRepository, put: Callable[..., None], root: Path) -> None:
    name = VerificationName(NIGHT, "archive", "pass")
    for minute, file in enumerate(("app.dump", "manifest.json", name.file)):
        put(f"prod/app/{ID}/{file}")
        at = (NIGHT + timedelta(minutes=minute)).timestamp()
        os.utime(root / f"prod/app/{ID}/{file}", (at, at))
    backup = only(repository)
    assert backup.committed_at == NIGHT + timedelta(minutes=1)
    assert backup.stored_at == {name: NIGHT + timedelta(minutes=2)}
    (root / f"prod/app/{ID}/manifest.json").unlink()
    (leftover,) = read_catalogue(repository).leftovers
    assert (leftover.modified, leftover.attempt) == (NIGHT + timedelta(minutes=2), None)


@pytest.mark.usefixtures("utime_counts")
def test_attempts_are_listed_where_more_than_one_has_written(
    repository: LocalRepository, put: Callable[..., None], root: Path
) -> None:
    put(f"prod/app/{ID}/manifest.json")
    put(f"prod/app/{ID}/0123abcd/app.dir/toc.dat", b"123")
    put(f"prod/app/{ID}/0123abcd/app.dir/1.dat", b"4")
    assert only(repository).attempts == ()
    put(f"prod/app/{ID}/89abcdef/app.dump", b"56789")
    os.utime(root / f"prod/app/{ID}/89abcdef/app.dump", (NIGHT.timestamp(), NIGHT.timestamp()))
    backup = only(repository)
    one, other = backup.attempts
    assert (one.attempt, one.size, one.folder) == ("0123abcd", 4, f"prod/app/{ID}/0123abcd")
    assert other == Leftover(series=APP, id=ID, size=5, modified=NIGHT, attempt="89abcdef")
    assert backup.size == 9
    found, entries = find_folder(repository, APP, ID)
    assert found == backup
    assert sorted(entries) == [
        "0123abcd/app.dir/1.dat",
        "0123abcd/app.dir/toc.dat",
        "89abcdef/app.dump",
        "manifest.json",
    ]


def test_what_a_listing_shows_as_json(repository: LocalRepository, put: Callable[..., None]) -> None:
    put(f"prod/app/{ID}/app.dump", b"12345")
    put(f"prod/app/{ID}/manifest.json")
    put(f"prod/app/{ID}/{VerificationName(NIGHT, 'archive', 'pass').file}")
    assert only(repository).as_json() == {
        "series": "prod/app",
        "id": ID,
        "started_at": "2026-11-22T02:00:00+00:00",
        "size": 5,
        "state": "verified",
        "verified": "archive",
    }


def test_a_directory_is_the_sum_of_its_members(repository: LocalRepository, put: Callable[..., None]) -> None:
    put(f"prod/app/{ID}/manifest.json")
    put(f"prod/app/{ID}/app.dir/toc.dat", b"123")
    # Whatever a member is called, it is a member.
    put(f"prod/app/{ID}/app.dir/manifest.json", b"4567")
    put(f"prod/app/{ID}/app.dir/verification-20261122T021500.123456Z-archive-fail.json", b"89")
    put(f"prod/app/{ID}/app.dir/pin.json", b"0")
    backup = only(repository)
    assert (backup.size, backup.state, backup.pinned) == (10, "written", False)


def test_a_folder_without_a_manifest_is_not_a_backup(repository: LocalRepository, put: Callable[..., None]) -> None:
    put(f"prod/app/{ID}/app.dump", b"123")
    put(f"prod/app/{ID}/verification-20261122T021500.123456Z-archive-pass.json", b"4")
    catalogue = read_catalogue(repository)
    assert catalogue.backups == ()
    (leftover,) = catalogue.leftovers
    assert (leftover.series, leftover.id, leftover.size, leftover.folder) == (APP, ID, 4, f"prod/app/{ID}")
    for read in (find_backup, read_manifest):
        with pytest.raises(BackupNotFound) as raised:
            read(repository, APP, ID)
        assert raised.value.message == f"{repository.uri} has no backup prod/app/{ID}"
        assert raised.value.hint == "List its backups with pgbackup list; prune may have deleted it."


@pytest.mark.parametrize("spoil", ["no artifact", "empty manifest", "huge manifest"])
def test_incomplete(repository: LocalRepository, root: Path, put: Callable[..., None], spoil: str) -> None:
    put(f"prod/app/{ID}/verification-20261122T021500.123456Z-archive-pass.json")
    put(f"prod/app/{ID}/manifest.json", b"" if spoil == "empty manifest" else b"{}")
    if spoil != "no artifact":
        put(f"prod/app/{ID}/app.dump")
    if spoil == "huge manifest":
        os.truncate(root / f"prod/app/{ID}/manifest.json", MAX_BYTES + 1)
    assert (only(repository).state, only(repository).level) == ("incomplete", None)


def test_the_largest_manifest_is_not_incomplete(
    repository: LocalRepository, root: Path, put: Callable[..., None]
) -> None:
    put(f"prod/app/{ID}/app.dump")
    put(f"prod/app/{ID}/manifest.json")
    os.truncate(root / f"prod/app/{ID}/manifest.json", MAX_BYTES)
    assert only(repository).state == "written"


def test_foreign_things_are_passed_over(repository: LocalRepository, put: Callable[..., None], root: Path) -> None:
    put(f"prod/app/{ID}/app.dump")
    put(f"prod/app/{ID}/manifest.json")
    foreign = [
        "README.txt",
        "prod/notes.txt",
        "prod/app/notes.txt",
        "prod/app/20261122T020000Z/manifest.json",  # no suffix
        "prod/app/20261322T020000Z-3f9ac1/manifest.json",  # no such month
        "prod/a b/20261122T020000Z-3f9ac1/manifest.json",  # not an encoded name
        "a/b/c/20261122T020000Z-3f9ac1/manifest.json",
    ]
    for key in foreign:
        put(key)
    (root / "prod/app/20261121T020000Z-000000").mkdir()  # an empty folder
    (root / "elsewhere").symlink_to(root / "prod")
    catalogue = read_catalogue(repository)
    assert [b.id for b in catalogue.backups] == [ID]
    assert catalogue.leftovers == ()
    assert sorted(catalogue.foreign) == sorted(foreign)


def test_an_object_named_like_a_folder_hides_no_backup(
    repository: LocalRepository, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"prod/app/{ID}/app.dump")
    put(f"prod/app/{ID}/manifest.json")
    # As in S3, where a key may be the beginning of other keys.
    entries = [Entry(f"prod/app/{ID}", 1, NIGHT), *repository.list("prod")]
    monkeypatch.setattr(repository, "list", lambda prefix: iter(entries))
    catalogue = read_catalogue(repository)
    assert [backup.id for backup in catalogue.backups] == [ID]
    assert catalogue.foreign == (f"prod/app/{ID}",)


def test_a_hundred_foreign_keys_are_listed(repository: LocalRepository, put: Callable[..., None]) -> None:
    others = [APP, Series("prod", "crm")]
    for series in others:
        for number in range(60):
            put(f"{series.path}/notes-{number:02}.txt")
            put(f"{series.path}/notes/{number:02}.txt")
    for found in (read_catalogue(repository).foreign, read_catalogue(repository, series=others).foreign):
        assert (len(found), len(set(found))) == (100, 100)
        assert all(key.startswith("prod/app/notes") for key in found)


def test_series_are_exact(repository: LocalRepository, put: Callable[..., None]) -> None:
    series = [
        APP,
        Series("prod", "app_staging"),
        Series("prod", "app/staging"),
        Series("prod", ".."),
        Series("prod", "@cluster"),
        Series("prod", None),
        Series("prod2", "app"),
        Series("prod/app", "x"),
    ]
    for one in series:
        put(f"{one.path}/{ID}/x.dump")
        put(f"{one.path}/{ID}/manifest.json")
    assert set(read_catalogue(repository).by_series()) == set(series)
    assert list(read_catalogue(repository, series=[APP]).by_series()) == [APP]
    assert list(read_catalogue(repository, series=[APP, series[3], series[5]]).by_series()) == [
        Series("prod", ".."),
        APP,
        Series("prod", None),
    ]
    assert list(read_catalogue(repository, series=[APP, series[6]]).by_series()) == [APP, series[6]]
    assert read_catalogue(repository, series=[]).backups == ()
    assert read_catalogue(repository, series=[Series("prod", "nobody")]).backups == ()
    assert {s.server for s in read_catalogue(repository, server="prod").by_series()} == {"prod"}
    assert read_catalogue(repository, server="prod2", series=[APP]).backups == ()
    assert find_backup(repository, Series("prod", None), ID).series.database is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"server": "prod", "databases": None}, None),
        ({"server": None, "databases": None}, None),
        ({"server": "prod", "databases": []}, []),
        ({"server": "prod", "databases": ["b", "a", "b"]}, [Series("prod", "b"), Series("prod", "a")]),
        ({"server": "prod", "databases": None, "cluster": True}, [Series("prod", None)]),
        (
            {"server": "prod", "databases": ["app"], "cluster": True, "scopes": ["roles", "globals", "roles"]},
            [APP, Series("prod", None), Series("prod", None, "roles"), Series("prod", None, "globals")],
        ),
    ],
)
def test_series_that_are_asked_for(asked: dict[str, Any], expected: list[Series] | None) -> None:
    assert select_series(**asked) == expected


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"server": "prod", "databases": "app"}, "databases is 'app'", "Pass a list of names."),
        ({"server": "prod", "databases": None, "scopes": "roles"}, "scopes is 'roles'", "Pass a list of names."),
        (
            {"server": "prod", "databases": None, "scopes": ["roles", "rolls", "x"]},
            "unknown scope 'rolls'",
            "Choose from globals, roles, tablespaces.",
        ),
        *(
            (
                {"server": None, "databases": None, **named},
                "databases are named without their server",
                "Pass server= as in the dumps; by default it is the connection id.",
            )
            for named in ({"databases": ["app"]}, {"cluster": True}, {"scopes": ["roles"]})
        ),
    ],
)
def test_series_that_cannot_be_asked_for(asked: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        select_series(**asked)
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_what_pg_dumpall_made_comes_last() -> None:
    in_order = [
        Series("prod", "app"),
        Series("prod", "zoo"),
        Series("prod", None),
        Series("prod", None, "globals"),
        Series("prod", None, "roles"),
        Series("stage", "app"),
    ]
    mixed = [in_order[place] for place in (3, 5, 1, 4, 0, 2)]
    assert sorted(mixed, key=series_order) == in_order


def test_newest_first(repository: LocalRepository, put: Callable[..., None]) -> None:
    ids = ["20261122T020000Z-000000", "20261122T020000Z-ffffff", "20251122T020000Z-000000", "99991231T235959Z-000000"]
    for id in ids:
        put(f"prod/app/{id}/x.dump")
        put(f"prod/app/{id}/manifest.json")
    assert [b.id for b in read_catalogue(repository).backups] == [ids[3], ids[1], ids[0], ids[2]]


def test_an_unmounted_volume_is_no_empty_repository(root: Path) -> None:
    with pytest.raises(RepositoryNotFound, match="does not exist"):
        read_catalogue(LocalRepository(root))


def test_manifests_are_read_only_for_what_is_shown(repository: LocalRepository, put: Callable[..., None]) -> None:
    other = "20261121T020000Z-3f9ac1"
    for id in (ID, other):
        put(f"prod/app/{id}/app.dump")
    put(f"prod/app/{ID}/manifest.json", manifest(repository).to_json())
    put(f"prod/app/{other}/manifest.json", b"{forged")
    good, bad = read_manifests(repository, read_catalogue(repository).backups)
    assert good == manifest(repository)
    assert isinstance(bad, ManifestError)
    assert "not JSON" in bad.message


def test_a_manifest_in_the_wrong_place_is_not_believed(repository: LocalRepository, put: Callable[..., None]) -> None:
    put(f"prod/app/{ID}/manifest.json", manifest(repository, Series("prod", "other")).to_json())
    with pytest.raises(ManifestError) as raised:
        read_manifest(repository, APP, ID)
    place = repository.location(f"prod/app/{ID}/manifest.json")
    assert raised.value.message == f"{place} is the manifest of prod/other/{ID}"
    assert raised.value.hint == (
        "The folder was moved or copied: check which backup the artifact beside it belongs to."
    )


def test_a_huge_manifest_is_not_read(repository: LocalRepository, put: Callable[..., None], root: Path) -> None:
    put(f"prod/app/{ID}/app.dump")
    put(f"prod/app/{ID}/manifest.json")
    os.truncate(root / f"prod/app/{ID}/manifest.json", 1 << 40)
    (error,) = read_manifests(repository, read_catalogue(repository).backups)
    assert "is larger than" in str(error)
