"""fsck and backup sets: a file that says what it should not, and a newest complete set that lacks a backup."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nights import NOW, night

from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.fsck.findings import Fault
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import backup_folder
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options


@pytest.fixture(params=["directory", "bucket"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    if request.param == "directory":
        made = open_repository(f"file://{tmp_path / 'pg'}")
    else:
        server: S3Server = request.getfixturevalue("s3")
        made = open_repository(f"s3://{server.bucket()}/pg", s3=S3Options(client_factory=server.client))
    made.init()
    return made


def findings(repository: Repository) -> list[tuple[str, str, str]]:
    report = fsck(repository=repository, now=NOW)
    assert report.backups
    return [(one.severity, one.code, one.key) for one in report.findings]


def key(made: BackupSet) -> str:
    return f"{made.location}/{made.name.file}"


def remove(repository: Repository, made: BackupSet, *databases: str) -> None:
    for member in made.databases:
        if member.database in databases:
            folder = backup_folder(member.parsed_series, member.id)
            repository.delete([entry.key for entry in repository.list(folder)])


def test_sound_sets_have_no_findings(repository: Repository) -> None:
    night(repository, 3, "app")
    night(repository, 2, "app", "crm")
    night(repository, 1, "app", missing=("crm",))
    assert findings(repository) == []


def test_a_backup_that_the_newest_complete_set_names_is_missing(repository: Repository) -> None:
    older, newest = night(repository, 3, "app"), night(repository, 2, "app", "crm", "hr", "ops", "web")
    remove(repository, older, "app")  # as retention does
    remove(repository, newest, "app", "crm", "hr", "web")
    partial = night(repository, 1, "app", "crm", missing=("hr",))
    remove(repository, partial, "app")
    report = fsck(repository=repository, now=NOW)
    (finding,) = report.findings
    assert (finding.severity, finding.code, finding.key) == ("warning", "set_member", key(newest))
    assert finding.message.startswith("names 4 of 5 backups that do not exist: ")
    assert finding.message.endswith(" and 1 more")
    assert report.sound  # each backup that exists can be restored


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"x" * 34_000_000, "more than 33554432"),
        (b'{"kind": "pgbackup set", "format_version": "1.0"}', "schema"),
        (b'{"format_version": "9.0"}', "9.0"),
    ],
    ids=["empty", "huge", "schema", "newer"],
)
def test_a_file_that_is_no_set(tmp_path: Path, data: bytes, says: str) -> None:
    repository = open_repository(f"file://{tmp_path / 'pg'}")
    repository.init()
    made = night(repository, 1, "app")
    (tmp_path / "pg" / key(made)).write_bytes(data)
    (finding,) = fsck(repository=repository, now=NOW).findings
    assert (finding.severity, finding.code, finding.key) == ("error", "set", key(made))
    assert says in finding.message
    assert finding.hint


def test_a_file_of_another_set(repository: Repository) -> None:
    made, other = night(repository, 2, "app"), night(repository, 1, "app")
    misplaced = f"{made.location}/{other.name.file}"
    repository.write_bytes(misplaced, other.to_json())
    assert findings(repository) == [("error", "set", misplaced)]


def test_a_set_from_the_future_counts_for_nothing(repository: Repository) -> None:
    made = night(repository, 1, "app", "crm")
    remove(repository, made, "crm")
    future = replace(made, finished_at=NOW + timedelta(days=9), databases=made.databases[:1])
    repository.write_bytes(f"{future.location}/{future.name.file}", future.to_json())
    assert findings(repository) == [("warning", "set_member", key(made)), ("warning", "clock", key(future))]


def test_sets_that_cannot_be_read_do_not_end_the_check(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night(repository, 1, "app")
    read = type(repository).read

    def broken(self: Repository, asked: str, **options: Any) -> Any:
        if asked == key(made):
            raise RepositoryError(f"cannot read {asked}: input/output error")
        return read(self, asked, **options)

    monkeypatch.setattr(type(repository), "read", broken)
    (finding,) = fsck(repository=repository, now=NOW).findings
    assert isinstance(finding, Fault)
    assert (finding.severity, finding.code, finding.key) == ("error", "read", key(made))


def test_a_backup_that_came_after_the_listing_is_not_missing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(repository, 2, "app")
    list_all = type(repository).list_all
    listings: list[str] = []

    def listing(self: Repository, prefix: str = "") -> Any:
        found = list(list_all(self, prefix))
        listings.append(prefix)
        if len(listings) == 1:  # the set is listed, its backups are not, as in a listing that takes minutes
            found += self.list(night(self, 1, "app", "crm").location)
            found.sort(key=lambda entry: entry.key)
        return found

    monkeypatch.setattr(type(repository), "list_all", listing)
    assert findings(repository) == []
    assert len(listings) > 1
