"""The first view of the Backups page: who may see it, what it says, and that what a repository holds is inert."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from fastapi.testclient import TestClient
from honest import write_backup
from nights import night

from airflow_pgbackup.links import PAGE_PREFIX
from airflow_pgbackup.plugin import BackupsPlugin, cache, pages, sources
from airflow_pgbackup.plugin.cache import Cache
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

Visitor = Callable[[str | None], TestClient]
NOW = datetime.now(timezone.utc).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STATIC = ("/static/backups.css", "/static/backups.js")
PAGES = ("/", "/series", "/backup", "/nothing")
EVERY = (*PAGES, *STATIC)
HOSTILE = ["<script>alert(1)</script>", "../../etc/passwd", "a'b\"c", "\u202egnp.exe", "{{ 7*7 }}", "x" * 80]


def see(visitor: Visitor, role: str | None = "viewer", path: str = "/") -> str:
    answer = visitor(role).get(f"{PAGE_PREFIX}{path}")
    assert answer.status_code == 200, answer.text
    return answer.text


def words(html: str) -> str:
    """The text of a page, without tags."""
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", html).split()))


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages on the page grow after minutes, and this module may have been imported long ago."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(timezone.utc).replace(microsecond=0))


def add(repository: Repository, database: str, age: timedelta, *looks: str) -> None:
    write_backup(repository, Series("prod", database), NOW - age, looks=looks, seed=f"{database}{age}")


@pytest.mark.parametrize("path", [*PAGES, "/actions/verify", "/static/nothing", "/../../etc/passwd"])
def test_nobody_sees_anything_without_a_login(visitor: Visitor, repository: Repository, path: str) -> None:
    add(repository, "payroll", HOUR, "archive-pass")
    answer = visitor(None).get(f"{PAGE_PREFIX}{path}")
    assert answer.status_code in (401, 404)
    assert "payroll" not in answer.text
    if not path.startswith("/.."):  # which a client resolves to a path outside of the app
        assert answer.status_code == (404 if path == "/static/nothing" else 401)
        links = [urljoin(str(answer.url), link) for link in re.findall(r'(?:href|src)="([^"]*)"', answer.text)]
        assert [visitor(None).get(link).status_code for link in links[:2]] == [200, 200], "its style sheet and script"
        if answer.status_code == 401:
            assert "Log in to Airflow" in answer.text
            assert links[2] == "http://airflow.test/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_no_method_without_a_login(visitor: Visitor, repository: Repository, method: str) -> None:
    for path in EVERY:
        public = method == "HEAD" and path in STATIC
        assert visitor(None).request(method, f"{PAGE_PREFIX}{path}").status_code == (200 if public else 401)
        if method != "HEAD":
            assert visitor("admin").request(method, f"{PAGE_PREFIX}{path}").status_code == 404


def test_head_answers_as_get_does(visitor: Visitor, repository: Repository) -> None:
    client = visitor("viewer")
    for path in EVERY:
        asked, headed = client.get(f"{PAGE_PREFIX}{path}"), client.head(f"{PAGE_PREFIX}{path}")
        assert (headed.status_code, headed.headers["content-type"]) == (
            asked.status_code,
            asked.headers["content-type"],
        )
    assert client.head(f"{PAGE_PREFIX}/").status_code == 200


@pytest.mark.parametrize("token", ["", "x", "a.b.c"])
def test_a_forged_login(visitor: Visitor, repository: Repository, token: str) -> None:
    client = visitor(None)
    client.cookies.set("_token", token)
    assert client.get(f"{PAGE_PREFIX}/").status_code in (401, 403)


@pytest.mark.parametrize("role", ["viewer", "user", "op", "admin"])
def test_who_may_see_assets_sees_the_page(visitor: Visitor, repository: Repository, role: str) -> None:
    add(repository, "app", HOUR, "archive-pass")
    assert "1 of 1 database can be restored to a point less than 26 h old." in words(see(visitor, role))


def test_every_response_forbids_what_the_page_does_not_need(visitor: Visitor, repository: Repository) -> None:
    for role in ("viewer", None):
        for path in EVERY:
            headers = visitor(role).get(f"{PAGE_PREFIX}{path}").headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
    page = see(visitor)
    assert not re.search(r"<script(?! src=\"static/backups\.js\"></script>)|<style|style=|\son\w+=|javascript:", page)


def test_the_worst_comes_first_with_its_reason(visitor: Visitor, repository: Repository) -> None:
    add(repository, "fine", HOUR, "restore-pass")
    add(repository, "late", 3 * DAY, "archive-pass")
    add(repository, "lost", HOUR, "archive-fail")
    page = see(visitor)
    text = words(page)
    assert "1 of 3 databases can be restored to a point less than 26 h old; 2 cannot: prod/lost" in text
    assert re.findall(r'class="server">prod/</span>(\w+)</a>', page) == ["lost", "late", "fine"]
    assert "the newest verified backup is 3 days old, more than 26 h" in text
    assert 'class="lead bad"' in page


def test_a_series_is_found_by_a_part_of_its_name(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_ROWS", 2)
    for name in ("crm", "Shop", "shop_archive", "späti"):
        add(repository, name, HOUR, "archive-pass")
    assert "2 more series are not listed. Find them by a part of their names." in words(see(visitor))
    for find, names in {
        "shop": ["Shop", "shop_archive"],
        "SPÄ": ["späti"],
        "prod/c": ["crm"],
        " crm ": ["crm"],
        "%": [],
        "x" * 400: [],
    }.items():
        page = see(visitor, path=f"/?find={quote(find)}")
        assert re.findall(r'class="server">prod/</span>([^<]+)</a>', page) == names
        assert ("in its name." in words(page)) is not bool(names)
        assert "4 of 4 databases can be restored" in words(page), "of all, not of what was found"


@pytest.mark.parametrize("find", [*HOSTILE, "\0", '" autofocus onfocus="alert(1)'])
def test_a_search_is_text(visitor: Visitor, repository: Repository, find: str) -> None:
    add(repository, "app", HOUR, "archive-pass")
    page = see(visitor, path=f"/?find={quote(find)}")
    assert "<script>alert" not in page
    assert 'onfocus="' not in page
    assert "\u202e" not in page
    assert ">49<" not in page


def test_no_row_is_made_in_the_event_loop(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, "app", HOUR, "archive-pass")
    in_loop: list[bool] = []

    def note(*arguments: Any, **options: Any) -> Any:
        in_loop.append(asyncio._get_running_loop() is not None)
        return trend(*arguments, **options)

    trend = pages.trend
    monkeypatch.setattr(pages, "trend", note)
    see(visitor)
    assert in_loop == [False, False]


def test_a_repository_in_which_all_is_well(visitor: Visitor, repository: Repository) -> None:
    add(repository, "app", HOUR, "archive-pass")
    assert 'class="lead good"' in see(visitor)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(visitor: Visitor, repository: Repository, name: str) -> None:
    add(repository, name, HOUR, "archive-pass")
    page = see(visitor)
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert ">49<" not in page
    links = re.findall(r'href="(series[^"]*)"', page)
    assert len(links) == 1
    assert re.fullmatch(r"series\?repository=0&amp;series=[\w.%~-]+", links[0])


def test_without_configuration_the_page_says_how(visitor: Visitor) -> None:
    assert "page_repositories = s3://my-backups/pg" in see(visitor)


def test_an_empty_repository(visitor: Visitor, repository: Repository) -> None:
    text = words(see(visitor))
    assert "There is no backup." in text
    assert "The repository is empty." in text
    assert 'class="lead bad"' in see(visitor)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///nowhere/at/all", "no repository"),
        ("ftp://somewhere/pg", "ftp"),
        ("file:///nowhere/a, file:///nowhere/b", "nowhere/b"),
    ],
)
def test_a_repository_that_is_not_there(visitor: Visitor, monkeypatch: pytest.MonkeyPatch, uri: str, says: str) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", uri)
    page = see(visitor)
    assert says in page
    assert 'role="alert"' in page


def test_a_newer_repository_and_one_that_is_damaged(visitor: Visitor, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "pg" / "repository.json").write_text('{"format_version": "9.0", "uuid": "x"}')
    assert 'role="alert"' in see(visitor)


def test_the_other_repositories_are_shown_beside_one_that_is_lost(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, "app", HOUR, "archive-pass")
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", f"file:///nowhere,{repository.uri}")
    page = see(visitor)
    assert "1 of 1 database can be restored" in words(page)
    assert 'role="alert"' in page
    assert 'class="lead bad"' in page  # of the lost one, nothing is known


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PAGE_LEVEL", "certain", "page_level"),
        ("PAGE_MAX_AGE", "soon", "page_max_age"),
        ("PAGE_RETENTION", "{", "page_retention is invalid: not a JSON object Give "),
        ("PAGE_RETENTION", '{"keep_daly": 7}', "unknown parameter 'keep_daly' Did you mean 'keep_daily'?"),
        ("PAGE_RETENTION", "[7]", "page_retention is invalid: not a JSON object"),
        ("PAGE_RETENTION", '{"keep_within": "a month"}', "Write hours, days and weeks like 36h, 30d"),
        ("PAGE_FLEET", "/nowhere/fleet.yaml", "/nowhere/fleet.yaml"),
    ],
)
def test_an_invalid_setting_is_named(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"PGBACKUP_{name}", value)
    answer = visitor("viewer").get(f"{PAGE_PREFIX}/")
    assert answer.status_code == 500
    assert says in words(answer.text)
    assert "HINT" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("uri", ["s3://KEY:hunter2@bucket/pg", "KEY:hunter2@bucket", "s3://bucket/pg?key=hunter2"])
def test_a_secret_in_a_uri_is_shown_to_nobody(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", f"{repository.uri}, {uri}")
    answer = visitor("viewer").get(f"{PAGE_PREFIX}/")
    assert answer.status_code == 500
    assert "page_repositories is invalid: URI 2 holds credentials or options" in words(answer.text)
    assert "hunter2" not in answer.text


def test_a_fleet_gives_repositories_and_targets(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_backup(repository, Series("crm", "app"), NOW - 30 * HOUR)
    write_backup(repository, Series("erp", "app"), NOW - 30 * HOUR)
    (tmp_path / "fleet.yaml").write_text(
        f"""
        defaults:
          repository: "{repository.uri}"
          retention: {{keep_last: 1}}
          alerts: {{on_failure: a_module_beside_the_dags.mail}} # which the API server does not have
        servers:
          crm: {{freshness: {{schedule: "@daily", max_age: 36h}}}}
          erp: {{}}
        """
    )
    monkeypatch.delenv("PGBACKUP_PAGE_REPOSITORIES")
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", str(tmp_path / "fleet.yaml"))
    text = words(see(visitor))
    assert "1 of 2 databases can be restored to a point within their targets; 1 cannot: erp/app" in text
    assert "keeps all 1" in text


def test_a_fleet_with_many_repositories_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sources, "plain_uri", lambda uri: asked.append(uri) or uri)
    servers = "\n".join(f"  db{number}: {{repository: 's3://backups/{number}'}}" for number in range(50))
    (tmp_path / "fleet.yaml").write_text(f"servers:\n{servers}")
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", str(tmp_path / "fleet.yaml"))
    found = sources.read_sources()
    assert [[*one.targets.servers] for one in found] == [[f"db{number}"] for number in range(50)]
    assert len(asked) == 2 * 50


def test_a_server_of_the_fleet_without_any_backup_has_a_row(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copies = open_repository(f"file://{tmp_path / 'copies'}")
    copies.init()
    add(repository, "app", HOUR, "archive-pass")
    add(copies, "app", HOUR, "archive-pass")
    fleet = tmp_path / "fleet.yaml"
    monkeypatch.delenv("PGBACKUP_PAGE_REPOSITORIES")
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", str(fleet))

    def shown(*servers: str) -> str:
        defaults = f"defaults: {{repository: '{repository.uri}', upload_to: '{copies.uri}'}}"
        fleet.write_text("\n".join([defaults, "servers:", *(f"  {one}" for one in servers)]))
        monkeypatch.setattr(pages, "OVERVIEWS", Cache(patience=240.0))
        return see(visitor)

    assert 'class="lead good"' in shown("prod: {}")
    page = shown("prod: {}", "crm: {}", "shop: {databases: [web, 'tmp*']}")
    assert 'class="lead bad"' in page
    assert (
        "1 of 3 databases can be restored to a point less than 26 h old; 2 cannot: crm/* (no backup), shop/web"
        in words(page)
    )
    assert "there is no backup of this server yet" in page
    assert re.findall(r'href="series[^"]*=([^"]*)"', page) == ["prod%2Fapp"] * 2
    # As for databases, any copy counts.
    write_backup(copies, Series("crm", "mail"), NOW - HOUR)
    write_backup(copies, Series("shop", "web"), NOW - HOUR)
    page = shown("prod: {}", "crm: {}", "shop: {databases: [web, 'tmp*']}")
    assert 'class="lead good"' in page
    assert page.count("there is no backup of this server yet") == 2
    # Whatever names the mapping gives, as the server reads them.
    page = shown("prod: {}", "crm: {databases: [Mail, Mail, 'm[ae]il', '\"Other\"']}")
    assert 'class="lead good"' in page
    shutil.rmtree(tmp_path / "copies" / "crm")
    page = shown("prod: {}", "crm: {databases: [Mail, Mail, 'm[ae]il', '\"Other\"']}")
    assert "2 cannot: crm/Other (no backup), crm/mail (no backup)" in words(page)
    assert page.count("there is no backup of this server yet") == 4


@pytest.mark.parametrize(("named", "row"), [("", "prod/*"), ("databases: [app]", "prod/app")])
def test_a_server_of_the_fleet_is_missing_whatever_others_have_its_name(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str, row: str
) -> None:
    others = open_repository(f"file://{tmp_path / 'others'}")
    others.init()
    write_backup(repository, Series("crm", "app"), NOW - HOUR)
    add(others, "app", HOUR, "archive-pass")
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"defaults: {{repository: '{repository.uri}'}}\nservers: {{crm: {{}}, prod: {{{named}}}}}")
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", others.uri)
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", str(fleet))
    page = see(visitor)
    assert 'class="lead bad"' in page
    text = f"2 of 3 databases can be restored to a point less than 26 h old; 1 cannot: {row} (no backup)."
    assert text in words(page)


def test_a_page_is_not_green_if_the_copies_of_a_fleet_are_gone(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wiped = open_repository(f"file://{tmp_path / 'wiped'}")
    wiped.init()
    add(repository, "app", HOUR, "archive-pass")
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"defaults: {{repository: '{repository.uri}', upload_to: '{wiped.uri}'}}\nservers: {{prod: {{}}}}")
    monkeypatch.delenv("PGBACKUP_PAGE_REPOSITORIES")
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", str(fleet))
    page = see(visitor)
    assert 'class="lead bad"' in page
    assert "1 of 1 database can be restored to a point less than 26 h old. 1 repository has no backup." in words(page)


def test_a_page_is_not_green_beside_an_empty_repository(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add(repository, "app", HOUR, "archive-pass")
    wiped = open_repository(f"file://{tmp_path / 'wiped'}")
    wiped.init()
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", f"{repository.uri} {wiped.uri}")
    page = see(visitor)
    assert 'class="lead bad"' in page
    assert "1 of 1 database can be restored to a point less than 26 h old. 1 repository has no backup." in words(page)


@pytest.mark.parametrize("how", ["another connection", "a slash", "named beside the fleet"])
def test_a_server_has_the_target_of_its_fleet_wherever_it_is_shown(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    write_backup(repository, Series("crm", "app"), NOW - 10 * HOUR)
    erp = {"another connection": "aws_conn_id: other", "a slash": f"repository: '{repository.uri}/'"}.get(how, "")
    (tmp_path / "fleet.yaml").write_text(
        f"""
        defaults: {{repository: "{repository.uri}", retention: {{keep_last: 1}}}}
        servers:
          crm: {{freshness: {{schedule: "@daily", max_age: 6h}}}}
          erp: {{{erp}}}
        """
    )
    if how != "named beside the fleet":
        monkeypatch.delenv("PGBACKUP_PAGE_REPOSITORIES")
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", str(tmp_path / "fleet.yaml"))
    page = see(visitor)
    text = words(page)
    assert (
        "0 of 2 databases can be restored to a point within their targets; 2 cannot: erp/* (no backup), crm/app" in text
    )
    assert page.count("<h2") == (2 if how == "another connection" else 1)
    assert "keeps all 1" in text


def test_a_slow_repository_is_read_once_and_the_page_says_so(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go, calls = threading.Event(), []
    read = pages.overview

    def slow(**arguments: Any) -> Any:
        calls.append(arguments)
        assert go.wait(240)
        return read(**arguments)

    add(repository, "app", HOUR, "archive-pass")
    monkeypatch.setattr(pages, "overview", slow)
    monkeypatch.setattr(pages, "OVERVIEWS", Cache(patience=0.2))
    for _ in range(3):
        page = see(visitor)
        assert "Reading the repository" in page
        assert 'http-equiv="refresh"' in page
    assert len(calls) == 1
    monkeypatch.setattr(pages.OVERVIEWS, "_patience", 240.0)
    go.set()
    assert "1 of 1 database can be restored" in words(see(visitor))


def test_repositories_are_read_at_the_same_time(
    visitor: Visitor, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    other = open_repository(f"file://{tmp_path / 'other'}")
    other.init()
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", f"{repository.uri} {other.uri}")
    add(repository, "app", HOUR, "archive-pass")
    add(other, "crm", HOUR, "archive-pass")
    both, read = threading.Barrier(2), pages.overview

    def meet(**arguments: Any) -> Any:
        both.wait(240)  # broken unless the other repository is being read, too
        return read(**arguments)

    monkeypatch.setattr(pages, "overview", meet)
    monkeypatch.setattr(pages, "OVERVIEWS", Cache(patience=240.0))
    assert "2 of 2 databases can be restored" in words(see(visitor))


def test_a_reading_that_fails_leaves_the_last_one_in_view(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add(repository, "app", HOUR, "archive-pass")
    monkeypatch.setattr(pages, "OVERVIEWS", Cache(lifetime=0.0, patience=240.0))
    see(visitor)
    shutil.move(tmp_path / "pg", tmp_path / "unmounted")
    limit = datetime.now(timezone.utc) + timedelta(seconds=240)
    while 'role="alert"' not in (page := see(visitor)):
        assert datetime.now(timezone.utc) < limit
    assert "1 of 1 database can be restored" in words(page)
    assert "The data below was read" in page
    assert 'class="lead bad"' in page


def test_backups_age_while_their_repository_cannot_be_read(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, "app", HOUR, "archive-pass")
    see(visitor)
    monkeypatch.setattr(pages, "datetime", SimpleNamespace(now=lambda zone: datetime.now(zone) + 2 * DAY))
    page = see(visitor)
    assert "0 of 1 database can be restored" in words(page)
    assert "late the newest verified backup is 49 h old, more than 26 h" in words(page)


def test_a_reading_of_long_ago_is_not_shown_without_its_age(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    clock, go, read = [1000.0], threading.Event(), pages.overview
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    add(repository, "app", HOUR, "archive-pass")
    assert 'class="lead good"' in see(visitor)
    clock[0] += 3 * 86400
    add(repository, "crm", HOUR, "archive-fail")
    assert "1 of 2 databases can be restored" in words(see(visitor)), "it waited for a new reading"

    def slow(**arguments: Any) -> Any:
        assert go.wait(240)
        return read(**arguments)

    monkeypatch.setattr(pages, "overview", slow)
    monkeypatch.setattr(pages.OVERVIEWS, "_patience", 0.2)
    clock[0] += 3 * 86400
    page = see(visitor)
    assert "This was read 72 h 0 min ago." in words(page)
    assert 'http-equiv="refresh"' in page
    go.set()


def test_a_page_is_not_green_if_a_set_may_name_other_databases(visitor: Visitor, repository: Repository) -> None:
    add(repository, "app", HOUR, "archive-pass")
    night(repository, 1, "app")
    made = night(repository, 0, "app")
    path = repository.local_path(f"{made.location}/{made.name.file}")
    assert path is not None
    path.write_bytes(b"{}")
    assert 'class="lead bad"' in see(visitor)


def test_a_defect_is_in_the_log_and_not_on_the_page(
    visitor: Visitor, repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**arguments: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(pages, "overview", broken)
    page = see(visitor)
    assert "internal error: ZeroDivisionError" in page
    assert "secret detail" not in page
    assert "secret detail" in caplog.text


def test_airflow_knows_the_page() -> None:
    from importlib.metadata import entry_points

    (point,) = [one for one in entry_points(group="airflow.plugins") if one.name == "pgbackup"]
    assert point.load() is BackupsPlugin
    (view,) = BackupsPlugin.external_views
    assert (view["url_route"], view["href"]) == ("backups", "pgbackup/")
