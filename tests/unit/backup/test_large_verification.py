"""A verdict is recorded even if its details are too many for the file."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from honest import verification_of, write_backup

from airflow_pgbackup.backup import reading_record
from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.reading_record import write_verification
from airflow_pgbackup.backup.restore.loss import describe_backup
from airflow_pgbackup.backup.series_reader import rows_of
from airflow_pgbackup.repository import json_document
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.verification import Check, Difference, Verification

AT = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
APP = Series("prod", "app")


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_document, "MAX_BYTES", 20_000)
    monkeypatch.setattr(reading_record, "_MOST", 5)


def recorded(repository: LocalRepository, result: str, *, tables: int, problems: int = 0) -> tuple[Verification, ...]:
    """Write a verification; return what was given and what was recorded."""
    manifest = write_backup(repository, APP, AT, looks=())
    report = verification_of(manifest, "restore", result, AT)
    report = replace(
        report,
        tables=report.tables * tables,
        checks=(*report.checks, *(Check("restore", "fail", f"wrong {n}") for n in range(problems))),
        differences=tuple(Difference("index", f"public.i{n}", "is missing") for n in range(problems)),
    )
    write_verification(repository, manifest, report)
    return report, *read_evidence(repository, manifest.series, manifest.id).verifications


def test_what_fits_is_recorded_completely(repository: LocalRepository) -> None:
    report, found = recorded(repository, "fail", tables=20, problems=20)
    assert (found.tables, found.checks, found.differences) == (report.tables, report.checks, report.differences)


def test_too_many_tables_are_not_listed(repository: LocalRepository) -> None:
    report, found = recorded(repository, "pass", tables=1000)
    assert (found.result, found.tables) == ("pass", ())
    assert found.checks[:-1] == report.checks
    assert found.checks[-1] == Check("tables not listed", "pass", "the list of 1,000 tables is too long to record")


def test_tables_of_too_many_values_are_not_listed(repository: LocalRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_document, "MOST_VALUES", 100)
    _, found = recorded(repository, "pass", tables=20)
    assert (found.result, found.tables, found.lists_tables) == ("pass", (), False)


def test_tables_that_are_not_listed_are_not_missing(repository: LocalRepository) -> None:
    """Their rows are unknown, not 0: that would be a drop by 100 %, and a loss of every table of the target."""
    write_backup(repository, APP, AT - timedelta(hours=1))
    recorded(repository, "pass", tables=1000)
    now = AT + timedelta(minutes=1)
    result = freshness(repository=repository, rules=FreshnessRules(max_age=timedelta(hours=3)), now=now)
    assert (result["problems"], result["fresh"]) == ([], True)
    evidence = read_evidence(repository, APP, max(repository.folders(APP.path)), now=now)
    assert rows_of(evidence.verifications) is None
    assert "rows not counted" in describe_backup(evidence, now)[-1]


def test_too_many_problems_are_cut(repository: LocalRepository) -> None:
    report, found = recorded(repository, "fail", tables=1000, problems=1000)
    assert (found.result, found.tables, found.differences) == ("fail", (), report.differences[:5])
    assert found.checks[:5] == report.checks[:5]
    assert "2,002 checks and differences, of which the first are listed" in str(found.checks[-1].detail)
