"""Evidence of a backup whose files a store does not list, as from a damaged index of a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from honest import write_backup

from airflow_pgbackup.repository import evidence as evidence_module
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest

START = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1)
APP = Series("prod", "app")


@pytest.fixture
def made(here: Repository) -> Manifest:
    return write_backup(here, APP, START, looks=["archive-pass"], members={"app.dump": b"x" * 5})


def omit(repository: Repository, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the listings of a repository lack a key."""
    listed = repository.list

    def without(prefix: str = "") -> Iterator[Entry]:
        return (entry for entry in listed(prefix) if entry.key != key)

    monkeypatch.setattr(repository, "list", without)


def test_a_file_that_is_not_listed_but_exists_is_not_missing(
    here: Repository, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    omit(here, made.key(made.artifact.files[0]), monkeypatch)
    found = read_evidence(here, APP, made.id)
    assert (found.backup.state, found.backup.level, found.backup.problem) == ("verified", "archive", None)


def test_a_file_that_is_not_listed_and_has_another_size_makes_it_incomplete(
    here: Repository, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made.key(made.artifact.files[0])
    here.delete([key])
    here.write_bytes(key, b"x")
    omit(here, key, monkeypatch)
    found = read_evidence(here, APP, made.id)
    assert found.backup.state == "incomplete"
    assert "has 1 bytes, expected 5" in str(found.backup.problem)


def test_a_file_that_does_not_exist_is_missing(here: Repository, made: Manifest) -> None:
    here.delete([made.key(made.artifact.files[0])])
    found = read_evidence(here, APP, made.id)
    assert found.backup.state == "incomplete"
    assert "is missing" in str(found.backup.problem)


def test_no_file_is_asked_for_if_many_are_not_listed(
    here: Repository, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_module, "MOST_ASKED", 0)
    omit(here, made.key(made.artifact.files[0]), monkeypatch)
    assert read_evidence(here, APP, made.id).backup.state == "incomplete"
