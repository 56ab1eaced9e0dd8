"""fsck on a real directory and a real S3 server: each fault is made, found by its code, repaired where that is safe,
and found no more; a sound repository has no findings."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import manifest_of, verification_of, write_backup, write_verification

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.fsck.findings import CODES, MOST_PER_CODE, FsckReport
from airflow_pgbackup.backup.fsck.folder import FolderContext, check_folder
from airflow_pgbackup.backup.fsck.inventory import Folder
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.removal import GRACE
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import BackupNotFound, Canceled, ConfigurationError, RepositoryError, RepositoryNotFound
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import TEMP_PREFIX, Series, VerificationName, backup_folder
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3 import unfinished
from airflow_pgbackup.repository.s3.options import S3Options

NOW = datetime.now(timezone.utc)
LATER = NOW + timedelta(days=3)
"""When what is written now is older than the grace period."""
APP, OTHER = Series("prod", "app"), Series("prod", "ünï/cødé")
DIRECTORY = {"app.dir/toc.dat": b"toc", "app.dir/1.dat": b"12345"}
ATTEMPT = "7d41c09e"


class Place:
    """A repository and, below it, what holds its files: somebody who alters them goes there."""

    def __init__(self, repository: Repository, root: Path | None, client: Any = None, bucket: str = "") -> None:
        self.repository, self.root, self.client, self.bucket = repository, root, client, bucket

    def put(self, key: str, data: bytes) -> None:
        """Write, over what is there."""
        if self.root:
            path = self.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            self.client.put_object(Bucket=self.bucket, Key=f"pg/{key}", Body=data)

    def get(self, key: str) -> bytes:
        return self.repository.read_bytes(key)

    def remove(self, key: str) -> None:
        if self.root:
            self.repository.delete([key])
        else:
            self.client.delete_object(Bucket=self.bucket, Key=f"pg/{key}")

    def listed(self) -> list[str]:
        return sorted(entry.key for entry in self.repository.list_all())


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        made = Place(LocalRepository(tmp_path / "pg"), tmp_path / "pg")
    else:
        server: S3Server = request.getfixturevalue("s3")
        bucket, client = server.bucket(), server.client()
        repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=server.client))
        made = Place(repository, None, client, bucket)
    made.repository.init()
    return made


@pytest.fixture
def local(tmp_path: Path) -> Place:
    made = Place(LocalRepository(tmp_path / "pg"), tmp_path / "pg")
    made.repository.init()
    return made


def run(place: Place, **options: Any) -> FsckReport:
    report = fsck(repository=place.repository, **{"now": NOW, **options})
    json.dumps(report.as_json(), allow_nan=False)
    assert {finding.code for finding in report.findings} <= CODES
    for finding in report.findings:
        assert finding.message[0].islower() or not finding.message[0].isalpha(), finding.message
        assert not finding.message.endswith(".")
        assert finding.hint.endswith((".", "}")), finding.hint
        assert str(finding).startswith("repaired[" if finding.repaired else f"{finding.severity}[")
    return report


def found(report: FsckReport) -> list[tuple[str, str, str]]:
    return [(one.severity, one.code, one.key) for one in report.findings]


def add(place: Place, *, night: int = 1, series: Series = APP, **options: Any) -> Manifest:
    return write_backup(place.repository, series, NOW - timedelta(days=night), seed=f"{series}{night}", **options)


def folder_of(manifest: Manifest) -> str:
    return backup_folder(manifest.series, manifest.id)


def replaced(place: Place, manifest: Manifest, **changes: Any) -> None:
    place.put(f"{folder_of(manifest)}/manifest.json", replace(manifest, **changes).to_json())


def test_every_code_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "fsck.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == sorted(CODES)


# -- what is sound -----------------------------------------------------------------------------------------------------


def test_a_sound_repository_has_no_findings(place: Place) -> None:
    add(place, looks=["integrity-pass", "archive-pass", "restore-fail"])
    add(place, night=2, members=DIRECTORY, attempt=ATTEMPT)
    add(place, series=OTHER, looks=[])
    write_backup(place.repository, Series("prod", None), NOW - timedelta(hours=2), members={"all.dump": b"1"})
    pin(repository=place.repository, series=APP, id=add(place, night=3).id)
    before = place.listed()
    report = run(place, read="100%", repair=True)
    assert found(report) == []
    assert report.sound
    assert (report.backups, report.series, report.uuid) == (5, 3, place.repository.uuid)
    assert report.read is not None
    assert (report.read.files, report.read.size) == (report.read.of_files, report.read.of_size) == (6, 24)
    assert place.listed() == before
    assert report.as_json()["findings"] == []


def test_an_empty_repository_is_sound(place: Place) -> None:
    report = run(place, read="100%")
    assert (report.backups, report.findings, report.sound) == (0, (), True)


def test_nothing_is_read_unless_asked(local: Place) -> None:
    add(local)
    report = run(local)
    assert report.read is None
    assert report.as_json()["read"] is None


# -- repository.json ---------------------------------------------------------------------------------------------------


def test_no_repository_at_all_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound):
        fsck(repository=LocalRepository(tmp_path / "nowhere"))
    with pytest.raises(RepositoryNotFound):
        fsck(repository=LocalRepository(tmp_path))


def test_a_lost_repository_file_is_found_and_the_hint_gives_it_back(place: Place) -> None:
    add(place)
    uuid = place.repository.uuid
    place.remove("repository.json")
    again = Place(open_again(place), place.root, place.client, place.bucket)
    (finding,) = run(again).findings
    assert (finding.severity, finding.code, finding.key) == ("error", "repository_file", "repository.json")
    assert finding.message == "is missing"
    place.put("repository.json", finding.hint[finding.hint.index("{") :].encode())
    assert run(again).findings == ()
    assert open_again(place).uuid == uuid


def open_again(place: Place) -> Repository:
    """As a new process sees it."""
    if place.root:
        return LocalRepository(place.root)
    return open_repository(place.repository.uri, s3=S3Options(client_factory=lambda: place.client))


@pytest.mark.parametrize("data", [b"", b"{", b'{"format_version": "1.0", "uuid": "x"}', b'{"format_version": "7.0"}'])
def test_a_damaged_repository_file(local: Place, data: bytes) -> None:
    add(local)
    local.put("repository.json", data)
    again = Place(open_again(local), local.root)
    old = NOW + timedelta(days=9)
    local.put("prod/app/20260101T020000Z-3f9ac1/app.dump", b"left")
    report = run(again, repair=True, now=old)
    assert ("error", "repository_file", "repository.json") in found(report)
    assert not any(finding.repaired for finding in report.findings), "this may be another volume"
    hint = next(one.hint for one in report.findings if one.code == "repository_file")
    assert ("Upgrade" in hint) == (b"7.0" in data)


# -- manifests ---------------------------------------------------------------------------------------------------------


@pytest.mark.every_value
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: b"", "manifest"),
        (lambda data: data[:-40], "manifest"),
        (lambda data: data.replace(b'"id"', b'"ID"'), "manifest"),
        (lambda data: data.replace(b'"size": 5', b'"size": 6', 1), "manifest"),
        (lambda data: data.replace(b'"format_version": "1.5"', b'"format_version": "2.0"'), "manifest_newer"),
        (lambda data: bytes(32 * 1024**2 + 1), "manifest"),
    ],
    ids=["empty", "cut", "schema", "contradiction", "newer", "huge"],
)
def test_a_manifest_that_cannot_be_believed(place: Place, spoil: Callable[[bytes], bytes], code: str) -> None:
    key = f"{folder_of(add(place))}/manifest.json"
    data = place.get(key)
    assert spoil(data) != data
    place.put(key, spoil(data))
    report = run(place, repair=True, now=LATER)
    assert found(report) == [("error", code, key)]
    assert not report.sound
    place.put(key, data)
    assert run(place).findings == ()


def test_a_newer_minor_version_is_read(place: Place) -> None:
    manifest = add(place)
    replaced(place, manifest, format_version="1.9", unknown={"from_the_future": True})
    assert run(place).findings == ()


def test_a_backup_that_was_moved(place: Place) -> None:
    manifest = add(place, looks=[])
    other = folder_of(manifest).replace("/app/", "/billing/")
    place.put(f"{other}/app.dump", b"12345")
    place.put(f"{other}/manifest.json", manifest.to_json())
    (finding,) = run(place, repair=True, now=LATER).findings
    assert (finding.severity, finding.code, finding.key) == ("error", "manifest_place", f"{other}/manifest.json")
    assert folder_of(manifest) in finding.hint


def test_a_manifest_with_a_name_that_no_directory_can_have(local: Place) -> None:
    manifest = add(local)
    replaced(local, manifest, series=Series("s" * 300, "app"))
    assert found(run(local)) == [("error", "manifest", f"{folder_of(manifest)}/manifest.json")]


def test_a_manifest_of_another_repository(place: Place) -> None:
    manifest = add(place)
    replaced(place, manifest, repository="0b9f3f3e-1c44-4c6c-9a4e-5f7d1a2b3c4d")
    report = run(place)
    assert found(report) == [("warning", "manifest_repository", f"{folder_of(manifest)}/manifest.json")]
    assert report.sound


def add_of(place: Place, identifiers: str, *, series: Series = APP) -> list[Manifest]:
    """Add a backup of each night, each of the server with that digit as identifier; ``-``: of an unknown one."""
    made = []
    for night, identifier in zip(range(len(identifiers), 0, -1), identifiers, strict=True):
        manifest = add(place, night=night, series=series, looks=[])
        source = replace(manifest.source, system_identifier=None if identifier == "-" else identifier)
        replaced(place, manifest, source=source)
        made.append(manifest)
    return made


def test_servers_that_alternate_in_a_series(place: Place) -> None:
    made = add_of(place, "1-21")
    add_of(place, "12", series=OTHER)
    (finding,) = (report := run(place)).findings
    assert (finding.severity, finding.code, finding.key) == ("warning", "servers", APP.path)
    newest = f"1 (newest backup {made[-1].id}), 2 (newest backup {made[-2].id})"
    assert finding.message == f"backups of servers with different system identifiers alternate: {newest}"
    assert "repository, prefix or server" in finding.hint
    assert report.sound


@pytest.mark.parametrize("identifiers", ["1111", "1122", "1-12-23", "----", "1-1", "2"])
def test_a_migration_is_no_finding(local: Place, identifiers: str) -> None:
    add_of(local, identifiers)
    assert run(local).findings == ()


def test_many_servers_in_a_series_give_a_short_message(local: Place) -> None:
    made = add_of(local, "123451")
    (finding,) = run(local).findings
    assert finding.message.count("newest backup") == 3
    assert finding.message.endswith(f"4 (newest backup {made[-3].id}) and 2 more")


def test_a_backup_from_the_future(place: Place) -> None:
    manifest = add(place, night=-2, looks=[])
    assert found(run(place)) == [("warning", "clock", folder_of(manifest))]
    assert run(place, now=LATER).findings == ()


# -- artifacts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [None, ATTEMPT])
def test_an_artifact_that_is_missing(place: Place, attempt: str | None) -> None:
    manifest = add(place, attempt=attempt)
    place.remove(manifest.artifact_key)
    assert found(run(place, repair=True, now=LATER)) == [("error", "artifact_missing", manifest.artifact_key)]
    place.put(manifest.artifact_key, b"12345")
    assert run(place).findings == ()


def test_an_artifact_of_another_size(place: Place) -> None:
    manifest = add(place)
    place.put(manifest.artifact_key, b"123")
    (finding,) = run(place, read="100%").findings
    assert (finding.code, finding.key) == ("artifact_size", manifest.artifact_key)
    assert finding.message == "has 3 bytes, expected 5"


def test_members_of_a_directory(place: Place) -> None:
    manifest = add(place, members=DIRECTORY, attempt=ATTEMPT)
    extra, missing, other = (f"{manifest.artifact_key}/{name}" for name in ("2.dat", "toc.dat", "1.dat"))
    place.put(extra, b"x")
    place.put(other, b"")
    place.remove(missing)
    assert sorted(found(run(place, repair=True, now=LATER))) == [
        ("error", "artifact_extra", extra),
        ("error", "artifact_missing", missing),
        ("error", "artifact_size", other),
    ]


def test_an_artifact_named_as_the_manifest_is_none(place: Place) -> None:
    manifest = manifest_of(place.repository, APP, NOW - timedelta(days=1), {"manifest.json": b"12345"})
    place.put(f"{folder_of(manifest)}/manifest.json", manifest.to_json())
    (finding,) = run(place).findings
    assert finding.code == "artifact_missing"


# -- re-hashing --------------------------------------------------------------------------------------------------------


def test_a_changed_byte_is_found_by_reading_alone(place: Place) -> None:
    manifest = add(place, members=DIRECTORY)
    key = f"{manifest.artifact_key}/1.dat"
    place.put(key, b"12x45")
    assert run(place).findings == ()
    (finding,) = run(place, read="100%").findings
    assert (finding.severity, finding.code, finding.key) == ("error", "checksum", key)
    expected = next(file.sha256 for file in manifest.artifact.files if file.path == "1.dat")
    assert finding.message.startswith(f"checksum mismatch: expected sha256 {expected}, found ")
    place.put(key, b"12345")
    assert run(place, read="100%").findings == ()


def test_parts_read_every_file_once(place: Place) -> None:
    for night in range(1, 12):
        add(place, night=night, looks=[])
    reads = [run(place, read=f"{number}/4").read for number in range(1, 5)]
    assert sum(read.files for read in reads if read) == 11
    assert all(read and read.of_files == 11 and read.size == 5 * read.files for read in reads)


def test_a_percentage_comes_round_to_a_damaged_file(place: Place) -> None:
    manifests = [add(place, night=night, looks=[]) for night in range(1, 6)]
    place.put(manifests[2].artifact_key, b"1234x")
    days = [day for day in range(20) if not run(place, read="20%", now=NOW + timedelta(days=day)).sound]
    assert days
    assert days[0] <= 8


def test_a_file_that_cannot_be_read(local: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = add(local)
    read = local.repository.read

    def broken(key: str, **options: Any) -> Any:
        if key == manifest.artifact_key:
            raise RepositoryError(f"cannot read {key}: input/output error")
        return read(key, **options)

    monkeypatch.setattr(local.repository, "read", broken)
    (finding,) = run(local, read="100%").findings
    assert (finding.severity, finding.code, finding.key) == ("error", "read", manifest.artifact_key)


@pytest.mark.parametrize("file", ["manifest.json", "verification-"])
def test_one_file_that_cannot_be_read_does_not_end_the_check(
    place: Place, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Such as a bad sector, or an object that is encrypted with a key of somebody else."""
    unreadable, missing = add(place, night=1), add(place, night=2)
    write_verification(place.repository, unreadable, "integrity", "pass", NOW - timedelta(hours=1))
    place.remove(missing.artifact_key)
    read = type(place.repository).read

    def broken(repository: Repository, key: str, **options: Any) -> Any:
        if key.startswith(f"{folder_of(unreadable)}/{file}"):
            raise RepositoryError(f"cannot read {key}: input/output error")
        return read(repository, key, **options)

    monkeypatch.setattr(type(place.repository), "read", broken)
    report = run(place)
    assert (
        found(report)
        == [
            ("error", "read", folder_of(unreadable)),
            ("error", "artifact_missing", missing.artifact_key),
        ][:: 1 if folder_of(unreadable) < missing.artifact_key else -1]
    )


def test_a_directory_that_cannot_be_listed_does_not_end_the_check(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable, missing = add(local, night=1), add(local, night=2)
    add(local, series=Series("other", "crm"))
    local.remove(missing.artifact_key)
    folder, attempt = folder_of(unreadable), unreadable.artifact_key.rpartition("/")[0]
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path).endswith(attempt):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    report = run(local)
    assert sorted(found(report)) == [("error", "artifact_missing", missing.artifact_key), ("error", "read", folder)]
    (message,) = [finding.message for finding in report.findings if finding.code == "read"]
    assert re.search(rf"cannot list \S+{folder}: permission denied", message)
    assert report.backups == 2  # those that could be listed


def test_a_share_that_is_none(local: Place) -> None:
    with pytest.raises(ConfigurationError, match="invalid share"):
        fsck(repository=local.repository, read="a few")


# -- verifications -----------------------------------------------------------------------------------------------------


def test_verifications_that_are_not_believed(place: Place) -> None:
    manifest = add(place, looks=[])
    at = manifest.started_at + timedelta(minutes=1)
    report = verification_of(manifest, "archive", "pass", at)
    other = replace(report, artifact_sha256="0" * 64)
    moved = replace(report, backup_id="20260101T000000Z-abcdef")
    expected = []
    for minutes, data, code in (
        (1, b"{", "verification"),
        (2, replace(report, checks=()).to_json(), "verification_name"),  # of another minute
        (3, replace(other, finished_at=at + timedelta(minutes=2)).to_json(), "verification_other"),
        (4, replace(moved, finished_at=at + timedelta(minutes=3)).to_json(), "verification_other"),
        (5, replace(report, checks=(), finished_at=at + timedelta(minutes=4)).to_json(), "verification"),
        (6, replace(report, result="fail", finished_at=at + timedelta(minutes=5)).to_json(), "verification_name"),
    ):
        name = VerificationName(manifest.started_at + timedelta(minutes=minutes), "archive", "pass").file
        place.put(f"{folder_of(manifest)}/{name}", data)
        expected.append(("error", code, f"{folder_of(manifest)}/{name}"))
    assert found(run(place, repair=True, now=LATER)) == expected


@pytest.mark.every_value
@pytest.mark.parametrize("minutes", [-60, 3 * 1440])
def test_a_verification_of_another_time(place: Place, minutes: int) -> None:
    manifest = add(place)
    key = write_verification(
        place.repository, manifest, "archive", "pass", manifest.started_at + timedelta(minutes=minutes)
    )
    assert found(run(place)) == [("warning", "verification_time", key)]


def test_a_name_that_is_almost_a_verification(place: Place) -> None:
    key = f"{folder_of(add(place))}/verification-today.json"
    place.put(key, b"{}")
    assert found(run(place, repair=True, now=LATER)) == [("warning", "foreign_file", key)]
    assert key in place.listed()


# -- leftovers ---------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_manifest(place: Place) -> None:
    add(place)
    folder = folder_of(add(place, night=2, committed=False))
    young = run(place, repair=True)
    assert found(young) == [("note", "running", folder)]
    assert young.sound
    before = run(place, now=LATER)
    assert found(before) == [("warning", "incomplete", folder)]
    assert before.findings[0].repair == "the folder is removed"
    assert "untouched for" in before.findings[0].message
    assert any(key.startswith(folder) for key in place.listed()), "nothing is removed unasked"
    logged: list[str] = []
    repaired = run(place, now=LATER, repair=True, context=RunContext(log=logged.append))
    assert [(one.code, one.repaired) for one in repaired.findings] == [("incomplete", True)]
    assert any(line.startswith(f"removed {folder}") for line in logged)
    assert not any(key.startswith(folder) for key in place.listed())
    assert run(place, now=LATER).findings == ()


def test_a_copy_that_keeps_the_times_of_its_files_may_still_be_running(local: Place) -> None:
    folder = folder_of(add(local, night=5, committed=False))
    assert local.root is not None
    for path in (local.root / folder).rglob("*"):
        os.utime(path, (0, 0))
    assert found(run(local, repair=True)) == [("note", "running", folder)]


def test_a_pinned_folder_without_a_manifest_stays(place: Place) -> None:
    manifest = add(place, looks=[])
    pin(repository=place.repository, series=APP, id=manifest.id)
    place.remove(f"{folder_of(manifest)}/manifest.json")
    report = run(place, now=LATER, repair=True)
    assert found(report) == [("warning", "incomplete", folder_of(manifest))]
    assert not report.findings[0].repaired
    assert manifest.artifact_key in place.listed()


def test_another_attempt_at_a_backup(place: Place) -> None:
    manifest = add(place, attempt=ATTEMPT)
    other = f"{folder_of(manifest)}/0badbeef"
    place.put(f"{other}/app.dump", b"half")
    assert found(run(place, repair=True)) == [("note", "running", other)]
    assert found(run(place, now=LATER)) == [("warning", "attempt", other)]
    assert [one.repaired for one in run(place, now=LATER, repair=True).findings] == [True]
    assert run(place, now=LATER, read="100%").findings == ()
    assert manifest.artifact_key in place.listed()


def test_what_grew_meanwhile_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that writes again into what looked like a leftover, between the look and the removal."""
    folder = folder_of(add(place, committed=False))

    def sweep_later(repository: Repository, leftover: Any) -> str | None:
        from airflow_pgbackup.backup.removal import sweep

        return sweep(repository, replace(leftover, modified=leftover.modified - timedelta(seconds=5)))

    monkeypatch.setattr("airflow_pgbackup.backup.fsck.run.sweep", sweep_later)
    (finding,) = run(place, now=LATER, repair=True).findings
    assert not finding.repaired
    assert finding.message.endswith("is being written: kept")
    assert any(key.startswith(folder) for key in place.listed())


@pytest.mark.usefixtures("utime_counts")
def test_temporary_files(local: Place) -> None:
    manifest = add(local)
    assert local.root is not None
    temporary = local.root / folder_of(manifest) / f"{TEMP_PREFIX}12-abc"
    temporary.write_bytes(b"half")
    scratch = local.root / "prod" / f"{TEMP_PREFIX}13-abc"
    (scratch / "inside").mkdir(parents=True)
    (scratch / "inside" / "toc.dat").write_bytes(b"half")
    empty = local.root / "prod/app/20260101T020000Z-3f9ac1"
    empty.mkdir()
    link = local.root / "prod" / f"{TEMP_PREFIX}14-abc"
    link.symlink_to(local.root.parent)
    every = (temporary, scratch, empty, link)
    keys = sorted(path.relative_to(local.root).as_posix() for path in every)
    assert found(run(local, repair=True)) == [("note", "running", key) for key in keys]
    old = time.time() - 3 * 86400
    for path in (*every, scratch / "inside" / "toc.dat", scratch / "inside"):
        os.utime(path, (old, old), follow_symlinks=False)
    assert found(run(local)) == [("warning", "temporary", key) for key in keys]
    assert [one.repaired for one in run(local, repair=True).findings] == [True] * 4
    assert run(local).findings == ()
    assert not any(os.path.lexists(path) for path in every)


def test_multipart_uploads(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, client = s3.bucket(), s3.client()
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))
    repository.init()
    place = Place(repository, None, client, bucket)
    key = f"{folder_of(add(place))}/{ATTEMPT}/app.dump"
    ours = client.create_multipart_upload(Bucket=bucket, Key=f"pg/{key}")["UploadId"]
    client.upload_part(Bucket=bucket, Key=f"pg/{key}", UploadId=ours, PartNumber=1, Body=b"half")
    foreign = client.create_multipart_upload(Bucket=bucket, Key="pg/somebody's")["UploadId"]
    place.put(f"{TEMP_PREFIX}probe-1", b"probe")
    assert found(run(place, repair=True)) == [
        ("note", "running", f"{TEMP_PREFIX}probe-1"),
        ("note", "running", key),
    ]
    clock_of_this_machine_is_fast = run(place, now=LATER, repair=True)
    assert found(clock_of_this_machine_is_fast) == [
        ("note", "running", f"{TEMP_PREFIX}probe-1"),
        ("note", "running", key),
    ]
    monkeypatch.setattr(unfinished, "server_time", lambda answer: LATER)
    assert found(run(place, now=LATER)) == [
        ("warning", "temporary", f"{TEMP_PREFIX}probe-1"),
        ("warning", "upload", key),
    ]
    assert [one.repaired for one in run(place, now=LATER, repair=True).findings] == [True, True]
    assert run(place, now=LATER).findings == ()
    left = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert [one["UploadId"] for one in left] == [foreign]


def test_a_store_that_lists_no_uploads(local: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def unfinished_writes(older_than: timedelta, *, prefix: str = "", say: Any = None) -> list[Any]:
        say("incomplete uploads are not swept: the store cannot list them")
        return []

    monkeypatch.setattr(local.repository, "unfinished_writes", unfinished_writes)
    assert found(run(local)) == [("warning", "uploads_unlisted", "")]


def test_a_grace_that_is_too_short(local: Place) -> None:
    with pytest.raises(ConfigurationError, match="invalid grace 0:10:00"):
        fsck(repository=local.repository, repair=True, grace=timedelta(minutes=10))


# -- what is not ours --------------------------------------------------------------------------------------------------


def test_foreign_files_are_named_and_stay(place: Place) -> None:
    manifest = add(place, attempt=ATTEMPT)
    foreign = [
        "README.txt",
        "prod/notes.txt",
        "prod/app/old.dump",
        f"{folder_of(manifest)}/notes.txt",
        f"{folder_of(manifest)}/{ATTEMPT}/notes.txt",
    ]
    for key in foreign:
        place.put(key, b"x")
    report = run(place, repair=True, now=LATER)
    assert found(report) == [("warning", "foreign_file", key) for key in sorted(foreign)]
    assert set(foreign) <= set(place.listed())
    assert report.sound


def test_names_that_somebody_has_decoded(place: Place) -> None:
    manifest = add(place, series=OTHER, looks=[])
    folder = folder_of(manifest).replace("%C3%BCn%C3%AF", "ünï")
    assert folder != folder_of(manifest)
    place.put(f"{folder}/app.dump", b"12345")
    place.put(f"{folder}/manifest.json", manifest.to_json())
    (finding,) = run(place, repair=True, now=LATER).findings
    assert (finding.severity, finding.code, finding.key) == ("error", "undecodable", folder.rpartition("/")[0])
    assert f"Rename it to {OTHER.path}," in finding.hint


def test_a_manifest_at_another_depth(place: Place) -> None:
    manifest = add(place, looks=[])
    key = f"prod/app/copy of {manifest.id}/manifest.json"
    place.put(key, manifest.to_json())
    assert found(run(place)) == [("error", "manifest_place", key)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_backup_that_was_moved_into_the_folder_of_another_stays(place: Place, committed: bool) -> None:
    outer = folder_of(add(place, attempt=ATTEMPT, committed=committed))
    inner = add(place, night=2)
    for key in [key for key in place.listed() if key.startswith(folder_of(inner))]:
        place.put(f"{outer}/{inner.id}/{key.rpartition('/')[2]}", place.get(key))
        place.remove(key)
    place.put(f"{outer}/notes/of the dba.txt", b"x")
    kept = [key for key in place.listed() if inner.id in key or "notes" in key]
    report = run(place, repair=True, now=LATER)
    assert found(report)[0] == ("error", "manifest_place", f"{outer}/{inner.id}/manifest.json")
    assert ("warning", "foreign_file", f"{outer}/notes/of the dba.txt") in found(report)
    assert [one.code for one in report.findings if one.repaired] == ([] if committed else ["incomplete"])
    assert set(kept) <= set(place.listed())
    assert bool([key for key in place.listed() if ATTEMPT in key]) == committed


def test_very_many_backups_in_the_folder_of_another(local: Place) -> None:
    at = [f"moved/{number}/{file}" for number in range(30_000) for file in ("app.dump", "manifest.json")]
    folder = Folder(APP, "20261122T020000Z-3f9ac1", {path: Entry(path, 1, NOW) for path in at})
    context = FolderContext(local.repository, None, NOW, GRACE, Cancel())
    began = time.process_time()
    checked = check_folder(folder, context)
    assert {one.code for one in checked.findings.all} == {"manifest_place"}
    assert time.process_time() - began < 10, "the time does not grow with the square of their number"


def test_very_many_foreign_files_are_counted(local: Place) -> None:
    assert local.root is not None
    for number in range(MOST_PER_CODE + 7):
        (local.root / f"{number:05}.txt").touch()
    report = run(local)
    assert len(report.findings) == MOST_PER_CODE
    assert report.more == (("foreign_file", 7),)
    assert report.as_json()["more"] == {"foreign_file": 7}


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "file"])
def test_a_pin_that_is_no_regular_file(local: Place, what: str) -> None:
    folder = folder_of(add(local))
    assert local.root is not None
    path = local.root / folder / "pin.json"
    if what == "link":
        path.symlink_to("/etc/hostname")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
        if what == "file":
            (path / "inside").touch()
    assert found(run(local, repair=True, now=LATER)) == [("error", "pin", f"{folder}/pin.json")]
    assert os.path.lexists(path)


def test_a_pin_below_a_prefix(s3: S3Server) -> None:
    bucket, client = s3.bucket(), s3.client()
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))
    repository.init()
    place = Place(repository, None, client, bucket)
    folder = folder_of(add(place))
    place.put(f"{folder}/pin.json/inside", b"x")
    assert found(run(place)) == [("error", "pin", f"{folder}/pin.json")]


def test_links_where_files_belong(local: Place) -> None:
    manifest = add(local)
    directory = add(local, night=2, members=DIRECTORY, attempt=ATTEMPT)
    assert local.root is not None
    artifact = local.root / manifest.artifact_key
    artifact.rename(local.root.parent / "app.dump")
    artifact.symlink_to(local.root.parent / "app.dump")
    members = local.root / directory.artifact_key
    members.rename(local.root.parent / "app.dir")
    members.symlink_to(local.root.parent / "app.dir")
    (local.root / folder_of(manifest) / "shortcut").symlink_to("/etc")
    assert found(run(local, repair=True)) == [
        ("error", "not_regular", directory.artifact_key),
        ("error", "artifact_missing", f"{directory.artifact_key}/1.dat"),
        ("error", "artifact_missing", f"{directory.artifact_key}/toc.dat"),
        ("error", "not_regular", manifest.artifact_key),
        ("warning", "foreign_file", f"{folder_of(manifest)}/shortcut"),
    ]


def test_a_link_in_the_place_of_a_manifest(local: Place) -> None:
    manifest = add(local)
    assert local.root is not None
    path = local.root / folder_of(manifest) / "manifest.json"
    path.rename(local.root.parent / "manifest.json")
    path.symlink_to(local.root.parent / "manifest.json")
    report = run(local, repair=True, now=LATER)
    assert found(report) == [("error", "not_regular", f"{folder_of(manifest)}/manifest.json")]
    assert (local.root / manifest.artifact_key).exists()


def test_names_that_are_not_keys(place: Place) -> None:
    folder = folder_of(add(place))
    place.put("a\x01b", b"x")
    place.put(f"{folder}/a\x01b", b"x")
    assert found(run(place, repair=True, now=LATER)) == [
        ("warning", "foreign_file", "a\x01b"),
        ("warning", "foreign_file", f"{folder}/a\x01b"),
    ]


# -- others at work ----------------------------------------------------------------------------------------------------


def test_a_prune_meanwhile_is_no_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes the backup between the listing and the reading of its manifest."""
    manifest = add(place)
    read_bytes, folder = place.repository.read_bytes, folder_of(manifest)

    def removed(key: str, **options: Any) -> bytes:
        if key.startswith(folder):
            place.repository.delete([entry.key for entry in place.repository.list(folder)])
        return read_bytes(key, **options)

    monkeypatch.setattr(place.repository, "read_bytes", removed)
    assert run(place).findings == ()


@pytest.mark.parametrize("lost", ["manifest.json", "verification-"])
def test_a_listed_file_that_does_not_exist_is_a_fault(local: Place, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    manifest = add(local)
    folder, read_bytes = folder_of(manifest), local.repository.read_bytes
    write_verification(local.repository, manifest, "archive", "pass", manifest.finished_at)

    def missing(key: str, **options: Any) -> bytes:
        if key.startswith(f"{folder}/{lost}"):
            raise BackupNotFound(f"{key} does not exist")
        return read_bytes(key, **options)

    monkeypatch.setattr(local.repository, "read_bytes", missing)
    assert found(run(local)) == [("error", "read", folder)]


def test_a_dump_that_commits_meanwhile_is_no_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = add(place, committed=False)
    list_all, looks = place.repository.list_all, Counter[str]()

    def commit(prefix: str = "") -> Any:
        listed = list(list_all(prefix))
        looks[prefix] += 1
        if not prefix:
            place.put(f"{folder_of(manifest)}/manifest.json", manifest.to_json())
        return iter(listed)

    monkeypatch.setattr(place.repository, "list_all", commit)
    assert run(place, now=LATER, repair=True).findings == ()
    assert looks == {"": 1, folder_of(manifest): 1}


def test_ctrl_c(local: Place) -> None:
    add(local)
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Canceled):
        run(local, context=RunContext(cancel=cancel))


def test_requests_of_a_bucket(s3: S3Server) -> None:
    """One LIST per 1,000 keys, one GET for each manifest and verification, and none of an artifact."""
    requests: Counter[str] = Counter()
    read: list[str] = []
    bucket, client = s3.bucket(), s3.client()
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    repository.init()
    for night in range(1, 31):
        write_backup(repository, APP, NOW - timedelta(days=night), seed=str(night))
    client.meta.events.register("before-call.s3", lambda model, **_: requests.update([model.name]))
    client.meta.events.register("before-parameter-build.s3.GetObject", lambda params, **_: read.append(params["Key"]))
    assert fsck(repository=repository, now=NOW).findings == ()
    assert requests == {"GetObject": 61, "ListObjectsV2": 2, "ListObjectVersions": 1, "ListMultipartUploads": 1}
    assert not [key for key in read if key.endswith(".dump")]


def test_a_file_of_many_pieces(local: Place) -> None:
    data = os.urandom(5 * 1024**2 + 3)
    manifest = add(local, members={"app.dump": data})
    assert run(local, read="1/1").findings == ()
    local.put(manifest.artifact_key, data[:-1] + bytes([data[-1] ^ 1]))
    assert [one.code for one in run(local, read="1/1").findings] == ["checksum"]
