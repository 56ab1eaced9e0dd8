"""The report of a period: what it counts, its sentence, its HTML and its picture."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup, write_verification
from nights import NOW, fail, night

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.removal import remove_backup
from airflow_pgbackup.backup.report import Report, as_html, as_text, page, report
from airflow_pgbackup.backup.report import plot as picture
from airflow_pgbackup.backup.report.plot import plot
from airflow_pgbackup.cli import main
from airflow_pgbackup.errors import Canceled, ConfigurationError, RepositoryNotFound
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOSTILE = "<script>alert(1)</script>\u202e'\"../{{ 7*7 }}$x^2$"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = open_repository(f"file://{tmp_path / 'pg'}")
    made.init()
    return made


def add(repository: Repository, database: str, age: timedelta, *looks: str, size: int = 5) -> Manifest:
    members = {"app.dump": b"x" * size}
    return write_backup(
        repository, Series("prod", database), NOW - age, looks=looks, members=members, seed=f"{database}{age}"
    )


def see(*repositories: Repository, **options: Any) -> Report:
    found = report(repositories=repositories, now=NOW, **options)
    json.dumps(found.as_json(), allow_nan=False)
    return found


def test_a_week(repository: Repository) -> None:
    add(repository, "app", 9 * DAY, "archive-pass", size=100)
    for number in range(6):
        add(repository, "app", number * DAY + HOUR, "archive-pass", size=150)
    rehearsed = add(repository, "app", 6 * DAY + HOUR, "archive-pass", size=150)
    write_verification(repository, rehearsed, "restore", "pass", NOW - DAY)
    add(repository, "lost", 2 * HOUR, "archive-fail")
    add(repository, "lost", 3 * DAY, "archive-notproven")
    add(repository, "lost", 4 * DAY)
    (found,) = see(repository).repositories
    lost, app = found.series
    assert (app.made, app.verified, app.rehearsals, app.size_before, app.growth) == (7, 7, 1, 100, 50.0)
    assert app.days == ("rehearsed", *["verified"] * 6)
    assert (lost.made, lost.failed, lost.not_proven, lost.unverified) == (3, 1, 1, 1)
    assert lost.days == ("none", "none", "none", "unverified", "unverified", "none", "failed")
    assert lost.growth is None


def test_sets_and_databases_without_a_backup(repository: Repository) -> None:
    night(repository, 30, "app")
    night(repository, 3, "app")
    night(repository, 0, "app", missing=("new",))
    found = see(repository)
    assert (found.repositories[0].complete_sets, found.repositories[0].partial_sets) == (1, 1)
    assert [one.status.status for one in found.repositories[0].series] == ["no backup", "restorable"]
    assert "  backup sets: 1 complete, 1 partial" in as_text(found)


def test_a_set_with_a_failed_or_removed_backup_is_no_longer_complete(repository: Repository) -> None:
    night(repository, 3, "app", "crm")
    fail(repository, night(repository, 2, "app", "crm").databases[1])
    lost = night(repository, 1, "app", "crm").databases[0]
    remove_backup(repository, read_evidence(repository, lost.parsed_series, lost.id).backup)
    found = see(repository)
    (each,) = found.repositories
    assert (each.complete_sets, each.damaged_sets, each.partial_sets) == (1, 2, 0)
    assert "  backup sets: 1 complete, 2 no longer complete, 0 partial" in as_text(found)
    assert "1 complete, 2 no longer complete, 0 partial" in as_html(found)


def test_a_set_whose_record_cannot_be_read_is_not_complete(repository: Repository) -> None:
    """One whose file name says that it was partial never was."""
    for made in (night(repository, 2, "app"), night(repository, 1, "app", missing=("new",))):
        path = repository.local_path(f"{made.location}/{made.name.file}")
        assert path is not None
        path.write_bytes(b"{}")
    (each,) = see(repository).repositories
    assert (each.complete_sets, each.damaged_sets, each.partial_sets) == (0, 1, 1)


def test_a_newest_set_that_cannot_be_read_is_noted(repository: Repository) -> None:
    night(repository, 1, "app")
    made = night(repository, 0, "app")
    path = repository.local_path(f"{made.location}/{made.name.file}")
    assert path is not None
    path.write_bytes(b"{}")
    found = see(repository)
    assert not found.in_danger
    assert not found.all_restorable
    assert "#1a6334" not in as_html(found).split("<table")[0]
    for text in ("\n".join(as_text(found)), as_html(found)):
        assert f"backup set {made.location} cannot be read" in text
        assert "1 note on backup sets: other databases may have no backup" in text


def test_a_repository_that_cannot_be_read(repository: Repository, tmp_path: Path) -> None:
    add(repository, "app", HOUR, "archive-pass")
    lost = open_repository(f"file://{tmp_path / 'unmounted'}")
    found = see(lost, repository)
    assert found.sentence == (
        "1 of 2 repositories could not be read. 1 of 1 database can be restored to a point less than 26 h old."
    )
    assert [each.uri for each in found.unread] == [lost.uri]
    assert "Nothing is known about its backups." in as_html(found)
    assert see(lost).sentence == "The repository could not be read."
    with pytest.raises(RepositoryNotFound):
        see(lost, skip_unreadable=False)


def test_an_empty_repository(repository: Repository) -> None:
    found = see(repository)
    assert found.sentence == "There is no backup."
    assert "It has no backup." in as_html(found)
    assert not found.all_restorable
    assert "#1a6334" not in as_html(found)  # the color of good news
    assert plot(found).startswith(b"\x89PNG")


def test_an_empty_repository_beside_another(repository: Repository, tmp_path: Path) -> None:
    add(repository, "app", HOUR, "restore-pass")
    wiped = open_repository(f"file://{tmp_path / 'wiped'}")
    wiped.init()
    found = see(repository, wiped)
    assert found.sentence.endswith(" less than 26 h old. 1 repository has no backup.")
    assert not found.all_restorable
    assert as_text(found)[-2:] == ["Open problems:", "  1 repository has no backup"]
    assert see(repository).all_restorable


def test_a_repository_with_nothing_but_sets_is_empty(repository: Repository, tmp_path: Path) -> None:
    copies = open_repository(f"file://{tmp_path / 'copies'}")
    copies.init()
    night(repository, 0, "app", "crm")
    night(copies, 0, "app", "crm")
    shutil.rmtree(tmp_path / "copies" / "prod" / "app")
    shutil.rmtree(tmp_path / "copies" / "prod" / "crm")
    found = see(repository, copies)
    assert [each.uri for each in found.empty] == [copies.uri]
    assert found.sentence == (
        "2 of 2 databases can be restored to a point less than 26 h old. 1 repository has no backup."
    )
    assert not found.all_restorable


@pytest.mark.parametrize("days", [0, -1, 367, True, "7", 1.5])
def test_an_invalid_period(repository: Repository, days: Any) -> None:
    with pytest.raises(ConfigurationError, match="invalid number of days"):
        see(repository, days=days)
    with pytest.raises(ConfigurationError, match="no repository given"):
        see()


def test_a_canceled_report(repository: Repository) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Canceled):
        see(repository, context=RunContext(cancel=cancel))


def test_the_html_is_fit_for_mail_and_hostile_names_are_text(repository: Repository) -> None:
    add(repository, HOSTILE, HOUR, "archive-pass")
    found = see(repository)
    html = as_html(found, picture="cid:plot")
    assert "<script" not in html
    assert "\u202e" not in html
    assert ">49<" not in html
    assert not re.search(r"<link|<style|\son\w+=|javascript:|https?://", html)
    assert 'src="cid:plot"' in html
    assert "\u202e" not in "\n".join(as_text(found))
    assert plot(found).startswith(b"\x89PNG")


def test_a_hostile_name_in_the_sentence_is_escaped(repository: Repository) -> None:
    add(repository, HOSTILE, HOUR, "archive-fail")
    found = see(repository)
    assert "prod/<script>alert(1)</script>\\u202e" in as_text(found)[0]
    assert "\u202e" not in as_html(found)


def test_the_command_writes_private_files_that_find_each_other(repository: Repository, tmp_path: Path) -> None:
    for name in ("pages", "pictures"):
        (tmp_path / name).mkdir()
    html, plotted = tmp_path / "pages" / "report.html", tmp_path / "pictures" / "50%#1.png"
    umask = os.umask(0o077)
    try:
        assert main(["report", repository.uri, "--html", str(html), "--plot", str(plotted)]) == 0
    finally:
        os.umask(umask)
    assert 'src="../pictures/50%25%231.png"' in html.read_text()
    assert [one.stat().st_mode & 0o777 for one in (html, plotted)] == [0o600, 0o600]


@pytest.mark.filterwarnings("error")
def test_a_name_that_the_font_lacks_is_drawn_escaped(repository: Repository) -> None:
    add(repository, "数据库", HOUR, "archive-pass")
    assert plot(see(repository)).startswith(b"\x89PNG")


def test_open_problems_come_last(repository: Repository, tmp_path: Path) -> None:
    add(repository, "app", HOUR, "archive-pass")
    add(repository, "lost", HOUR, "archive-fail")
    add(repository, "lost", DAY, "archive-notproven")
    add(repository, "lost", 2 * DAY)
    found = see(repository, open_repository(f"file://{tmp_path / 'unmounted'}"))
    says = [
        "1 repository could not be read: their backups are unknown",
        "1 backup failed verification",
        "1 backup could not be verified: the result is not proven",
        "1 backup unverified",
        "2 of 2 series not rehearsed in this period",
    ]
    assert as_text(found)[-6:] == ["Open problems:", *(f"  {one}" for one in says)]
    assert all(f"<li>{one}</li>" in as_html(found) for one in says)


def test_a_report_without_open_problems(repository: Repository) -> None:
    add(repository, "app", HOUR, "archive-pass", "restore-pass")
    found = see(repository)
    assert found.all_restorable
    assert "Open problems" not in as_html(found)
    assert "Open problems:" not in as_text(found)


def test_a_long_report_is_bounded(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_ROWS", 2)
    monkeypatch.setattr(picture, "MOST_SERIES", 2)
    for name in "abcde":
        add(repository, name, HOUR, "archive-pass")
    found = see(repository, days=60)
    assert "3 more series are not listed." in as_html(found)
    assert "  3 more series are not listed" in as_text(found)
    assert plot(found).startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, real = see(repository), builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match="matplotlib") as raised:
        plot(found)
    assert "airflow-pgbackup[report]" in str(raised.value.hint)
