"""The catalogue: what file names alone tell, with foreign, forged and half-deleted things around them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryNotFound
from airflow_pgbackup.repository.catalogue import Backup, find_backup, read_catalogue, read_manifest, read_manifests
from airflow_pgbackup.repository.layout import LEVELS, RESULTS, Series, VerificationName
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import (
    MAX_BYTES,
    Artifact,
    ClientInfo,
    Compression,
    DatabaseSource,
    FileDigest,
    Manifest,
)
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


def manifest(repository: LocalRepository, series: Series = APP, id: str = ID, **changes: object) -> Manifest:
    fields: dict[str, object] = {
        "repository": repository.uuid,
        "series": series,
        "id": id,
        "kind": "database",
        "started_at": NIGHT,
        "finished_at": NIGHT + timedelta(seconds=5),
        "duration_seconds": 5.0,
        "artifact": Artifact(
            name="app.dump",
            format="custom",
            compression=Compression("gzip", None, "pg_dump"),
            size=5,
            sha256="0" * 64,
            files=(FileDigest("app.dump", 5, "0" * 64),),
        ),
        "source": DatabaseSource(
            database="app", server_version="18.4", server_version_num=180004, size_bytes=1, encoding="UTF8", host="h"
        ),
        "client": ClientInfo("pg_dump", "18.4", "/bin/pg_dump"),
        "options": {},
        "origin": {},
        "restore_command": "pg_restore app.dump",
        **changes,
    }
    return Manifest(**fields)  # type: ignore[arg-type]


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
        with pytest.raises(BackupNotFound, match=f"has no backup prod/app/{ID}") as raised:
            read(repository, APP, ID)
        assert "List its backups" in (raised.value.hint or "")


@pytest.mark.parametrize("spoil", ["no artifact", "empty manifest", "huge manifest"])
def test_incomplete(repository: LocalRepository, root: Path, put: Callable[..., None], spoil: str) -> None:
    put(f"prod/app/{ID}/verification-20261122T021500.123456Z-archive-pass.json")
    put(f"prod/app/{ID}/manifest.json", b"" if spoil == "empty manifest" else b"{}")
    if spoil != "no artifact":
        put(f"prod/app/{ID}/app.dump")
    if spoil == "huge manifest":
        os.truncate(root / f"prod/app/{ID}/manifest.json", MAX_BYTES + 1)
    assert (only(repository).state, only(repository).level) == ("incomplete", None)


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
    assert read_catalogue(repository, series=[]).backups == ()
    assert read_catalogue(repository, series=[Series("prod", "nobody")]).backups == ()
    assert {s.server for s in read_catalogue(repository, server="prod").by_series()} == {"prod"}
    assert read_catalogue(repository, server="prod2", series=[APP]).backups == ()
    assert find_backup(repository, Series("prod", None), ID).series.database is None


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
    with pytest.raises(ManifestError, match="is the manifest of prod/other/"):
        read_manifest(repository, APP, ID)


def test_a_huge_manifest_is_not_read(repository: LocalRepository, put: Callable[..., None], root: Path) -> None:
    put(f"prod/app/{ID}/app.dump")
    put(f"prod/app/{ID}/manifest.json")
    os.truncate(root / f"prod/app/{ID}/manifest.json", 1 << 40)
    (error,) = read_manifests(repository, read_catalogue(repository).backups)
    assert "is larger than" in str(error)
