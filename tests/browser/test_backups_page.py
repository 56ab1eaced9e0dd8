"""The Backups page in a real Chromium, in front of a real Airflow with a login, with backups of an example DAG.

One test with many checks, each reported: an Airflow takes half a minute to start, and workers of pytest share none.
Chromium is the one on the PATH, or PGBACKUP_TEST_CHROMIUM. No package index has one, so elsewhere this is skipped,
except in CI, where it fails.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from honest import write_backup

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

sys.path.insert(0, str(Path(__file__).parents[1] / "airflow"))
from live import LiveAirflow

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NOW = datetime.now(timezone.utc).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOSTILE = "<script>alert(1)</script>\u202e'\"../{{ 7*7 }}"
EXAMPLE = Path(__file__).parents[2] / "dags" / "dvdrental_nightly.py"
PASSWORDS = {"admin": "pw-admin-3141", "viewer": "pw-viewer-2718"}
PATIENCE = 240_000
"""Milliseconds that a page may take on a busy machine."""


@dataclass
class World:
    """An Airflow with backups, and a browser.

    :ivar said: what pages wrote on the console, and dialogs that they opened.
    """

    airflow: LiveAirflow
    browser: Browser
    tokens: dict[str, str]
    database: str
    canary: Callable[[object], None]
    said: list[str] = field(default_factory=list)

    @property
    def start(self) -> str:
        return f"{self.airflow.url}/pgbackup/"

    @contextmanager
    def page(self, role: str | None = "viewer", *, width: int = 1280, theme: str = "light") -> Iterator[Page]:
        """A new window, logged in."""
        context = self.browser.new_context(viewport={"width": width, "height": 900})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
        if role is not None:
            context.add_cookies([{"name": "_token", "value": self.tokens[role], "url": self.airflow.url}])
        page = context.new_page()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        try:
            yield page
        finally:
            context.close()

    def open(self, page: Page, address: str) -> str:
        """Open an address of the page, when the repository has been read; return its text."""
        until = time.monotonic() + PATIENCE / 1000
        while True:
            answer = page.goto(address)
            assert answer is not None
            assert answer.status == 200, (address, answer.status)
            content = page.content()
            self.canary(content)
            if "Reading the repository" not in content:
                return content
            assert time.monotonic() < until, content

    def backup(self, page: Page) -> str:
        """Follow the first backup of a series' page; return the text of its page."""
        page.wait_for_url("**/series?**")
        page.locator("tbody a").first.click()
        page.locator(".facts").wait_for()
        return page.inner_text("main")

    def addresses(self, page: Page) -> list[str]:
        """Every page that can be reached from the first one by links of ours, each once."""
        seen, waiting = [], [self.start]
        while waiting:
            address = waiting.pop(0)
            if address in seen:
                continue
            seen.append(address)
            self.open(page, address)
            links = page.eval_on_selector_all("a[href]:not([data-airflow])", "links => links.map(link => link.href)")
            waiting += [link for link in links if link.startswith(self.start)]
            assert all(link.startswith(self.start) for link in links), links
        return seen


def logged_out_sees_nothing(world: World) -> None:
    for path in ("", "series?repository=0&series=main%2Fcrm", "backup", "actions/verify", "x"):
        for method in ("GET", "POST"):
            request = urllib.request.Request(
                f"{world.start}{path}", method=method, data=b"" if method == "POST" else None
            )
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=240)
            assert refused.value.code in (401, 405), (method, path)
            assert b"crm" not in refused.value.read()


def a_login_leads_to_the_page_in_airflows_navigation(world: World) -> None:
    with world.page(None) as page:
        page.goto(f"{world.airflow.url}/")
        page.fill("input[name=username]", "viewer")
        page.fill("input[name=password]", PASSWORDS["viewer"])
        page.press("input[name=password]", "Enter")
        page.click("a[href*='plugin/backups']")
        frame = page.frame_locator("iframe[title=Backups]")
        frame.get_by_role("heading", name="Backups", exact=True).wait_for()
        lead = frame.locator(".lead").inner_text()
        assert re.match(r"\d+ of \d+ databases can be restored", lead), lead
        frame.get_by_role("link", name="crm").first.click()
        frame.get_by_role("heading", name="main/crm").wait_for()
        frame.get_by_role("link", name="Backups").click()
        frame.locator("tr", has_text=world.database).first.get_by_role("link").click()
        frame.get_by_role("heading", name=f"dvdrental/{world.database}").wait_for()
        frame.locator("tbody a").first.click()
        frame.get_by_role("link", name="dvdrental_nightly / dump").click()  # a page of Airflow, around the frame
        page.wait_for_url("**/dags/dvdrental_nightly/runs/**")
        world.said.clear()  # what Airflow's own pages say is not ours


def the_series_of_the_example_dag_is_there(world: World) -> None:
    with world.page() as page:
        world.open(page, world.start)
        rows = page.locator("tr", has_text=world.database)
        assert rows.count() == 2  # the dump, and its copy in S3
        assert "restorable" in rows.first.inner_text()
        rows.first.get_by_role("link").click()
        text = world.backup(page)
        assert "dvdrental_nightly / dump" in text
        assert "rental" in text
        link = page.locator("a[data-airflow]").first
        href = str(link.evaluate("link => link.href"))
        assert href.startswith(f"{world.airflow.url}/dags/dvdrental_nightly/runs/")


def the_worst_comes_first(world: World) -> None:
    with world.page() as page:
        world.open(page, world.start)
        chips = page.locator("section").first.locator("tbody .chip").all_inner_texts()
        assert chips[:3] == ["failed", "not verified", "late"], chips
        assert set(chips[3:]) == {"restorable"}
        assert "main/legacy (verification failed)" in page.inner_text(".lead")


def every_link_works_and_nothing_is_said(world: World) -> None:
    with world.page() as page:
        addresses = world.addresses(page)
    assert len(addresses) > 12
    assert world.said == []


def hostile_names_are_inert(world: World) -> None:
    with world.page() as page:
        world.open(page, world.start)
        row = page.locator("tr", has_text="<script>alert(1)</script>")
        assert row.count() == 1
        assert "\u202e" not in page.content()
        row.get_by_role("link").click()
        assert "alert(1)" in world.backup(page)
    assert world.said == []


def axe_finds_nothing(world: World) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with world.page() as page:
        addresses = world.addresses(page)
    kinds = {re.sub(r"\?.*", "", address): address for address in addresses}
    assert len(kinds) == 3
    found = []
    for theme in ("light", "dark"):
        for width in (1280, 390):
            with world.page(width=width, theme=theme) as page:
                for address in kinds.values():
                    world.open(page, address)
                    assert page.evaluate("document.documentElement.dataset.theme") == theme
                    # By the driver, which our Content-Security-Policy does not bind.
                    for violation in Axe().run(page).response["violations"]:
                        nodes = [node["target"] for node in violation["nodes"][:3]]
                        found.append((theme, width, address, violation["id"], nodes))
    assert found == []


def a_phone_needs_no_scrolling_sideways(world: World) -> None:
    with world.page(width=390) as page:
        for address in world.addresses(page):
            world.open(page, address)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, address


def the_keyboard_reaches_each_link_and_shows_where_it_is(world: World) -> None:
    with world.page() as page:
        world.open(page, world.start)
        links = page.eval_on_selector_all(
            "a[href], summary, input, button", "all => all.map(one => one.textContent.trim())"
        )
        reached = []
        for _ in links:
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim()"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached == links


def commands_can_be_copied(world: World) -> None:
    with world.page() as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        world.open(page, world.start)
        page.get_by_role("link", name="crm").first.click()
        world.backup(page)
        page.get_by_role("button", name="Copy").first.press("Enter")
        page.get_by_role("button", name="Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.inner_text("#restore-ours")
        assert copied.startswith("pgbackup restore file://")


def a_task_links_to_its_backup(world: World) -> None:
    ((run_id,),) = [
        tuple(row.values()) for row in world.airflow.rows("select run_id from dag_run where dag_id = ?", EXAMPLE.stem)
    ]
    with world.page() as page:
        page.goto(f"{world.airflow.url}/dags/{EXAMPLE.stem}/runs/{run_id}/tasks/dump/details")
        page.get_by_role("link", name="Backup", exact=True).click()
        page.wait_for_url("**/plugin/backups/pgbackup/backup?**")
        frame = page.frame_locator("iframe[title=Backups]")
        frame.get_by_role("link", name="dvdrental_nightly / dump").wait_for()
        world.said.clear()  # what Airflow's own pages say is not ours


def who_may_trigger_the_dag_can_have_a_backup_verified(world: World) -> None:
    with world.page("viewer") as page:
        world.open(page, backup_of_crm(world, page))
        assert page.locator("form").count() == 0
    with world.page("admin") as page:
        address = backup_of_crm(world, page)
        page.goto(f"{world.airflow.url}/plugin/backups/pgbackup/{address.removeprefix(world.start)}")
        frame = page.frame_locator("iframe[title=Backups]")
        frame.get_by_role("button", name="Verify now").dblclick()
        frame.get_by_text("the run is queued").wait_for()
        (made,) = world.airflow.rows("select * from dag_run where dag_id = 'verify_backup'")
        assert (made["triggering_user_name"], made["state"]) == ("admin", "queued")
        conf = json.loads(made["conf"])
        assert (conf["series"], conf["backup_id"]) == ("main/crm", address.rpartition("=")[2])
        frame.get_by_role("link", name="The run in Airflow").click()
        page.wait_for_url(f"**/dags/verify_backup/runs/{made['run_id']}**")
        world.said.clear()  # what Airflow's own pages say is not ours


def backup_of_crm(world: World, page: Page) -> str:
    """The address of the newest backup of a series."""
    world.open(page, world.start)
    page.get_by_role("link", name="crm").first.click()
    page.get_by_role("heading", name="main/crm").wait_for()
    return str(page.locator("tbody a").first.evaluate("link => link.href"))


CHECKS = (
    logged_out_sees_nothing,
    a_login_leads_to_the_page_in_airflows_navigation,
    the_series_of_the_example_dag_is_there,
    the_worst_comes_first,
    every_link_works_and_nothing_is_said,
    hostile_names_are_inert,
    axe_finds_nothing,
    a_phone_needs_no_scrolling_sideways,
    the_keyboard_reaches_each_link_and_shows_where_it_is,
    commands_can_be_copied,
    a_task_links_to_its_backup,
    who_may_trigger_the_dag_can_have_a_backup_verified,
)


@pytest.mark.timeout(2700)
def test_the_page_in_a_browser(
    tmp_path: Path,
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., ConnectionParams],
    assert_no_canary: Callable[[object], None],
) -> None:
    chromium = _chromium()
    from playwright.sync_api import sync_playwright

    database = fresh_database(server18, None, "create table rental (id int)", "insert into rental values (1), (2)")
    local, remote = open_repository((tmp_path / "pg").as_uri()), f"s3://{s3.bucket()}/pg"
    open_repository(remote, s3=S3Options(client_factory=s3.client)).init()
    local.init()
    fill(local)
    airflow = LiveAirflow(
        tmp_path / "airflow", environment(tmp_path, database, s3, local.uri, remote), processes=("api-server",)
    )
    for example in (EXAMPLE, EXAMPLE.with_name("verify_backup.py")):
        shutil.copy(example, airflow.dags)
    with airflow:
        airflow.run("dags", "reserialize")
        airflow.run("dags", "test", EXAMPLE.stem)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tokens = {name: token(airflow, name) for name in PASSWORDS}
            world = World(airflow, browser, tokens, database.dbname, assert_no_canary)
            failures = []
            for check in CHECKS:
                world.said.clear()
                try:
                    check(world)
                except Exception:
                    failures.append(f"{check.__name__}: {traceback.format_exc()}")
            browser.close()
    assert not failures, "\n".join(failures)


def fill(repository: Repository) -> None:
    """Series in each status."""

    def add(database: str, age: timedelta, *looks: str) -> None:
        write_backup(repository, Series("main", database), NOW - age, looks=looks, seed=f"{database}{age}")

    for number in range(4):
        add("crm", number * DAY + HOUR, "restore-pass")
    add("orders", 3 * DAY, "archive-pass")
    add("analytics", 2 * HOUR)
    add("legacy", 2 * HOUR, "archive-fail")
    add(HOSTILE, HOUR, "archive-pass")


def environment(directory: Path, database: ConnectionParams, s3: S3Server, local: str, remote: str) -> dict[str, str]:
    passwords = directory / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    connections: dict[str, dict[str, Any]] = {
        "DVDRENTAL": {
            "conn_type": "postgres",
            "host": database.host,
            "port": int(database.port),
            "login": database.user,
            "password": database.get_password(),
            "schema": database.dbname,
        },
        "AWS_DEFAULT": {
            "conn_type": "aws",
            "login": s3.access_key,
            "password": s3.secret_key,
            "extra": {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"},
        },
    }
    return {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "PGBACKUP_LOCAL": local,
        "PGBACKUP_REMOTE": remote,
        "PGBACKUP_PAGE_REPOSITORIES": f"{local}, {remote}",
        "PGBACKUP_REPOSITORIES": f"{local},{remote}",
        "PGBACKUP_PAGE_VERIFY_DAG_ID": "verify_backup",
        "PGBACKUP_PAGE_RETENTION": '{"keep_daily": 2}',
        **{f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()},
    }


def token(airflow: LiveAirflow, user: str) -> str:
    """Log in as a program does."""
    body = json.dumps({"username": user, "password": PASSWORDS[user]}).encode()
    request = urllib.request.Request(
        f"{airflow.url}/auth/token", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=240) as answer:
        return str(json.load(answer)["access_token"])


def _chromium() -> str:
    found = os.environ.get("PGBACKUP_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if importlib.util.find_spec("playwright") and found:
        return found
    lacking = "Playwright and a Chromium on the PATH, or in PGBACKUP_TEST_CHROMIUM, are needed"
    if os.environ.get("CI"):
        pytest.fail(lacking)
    pytest.skip(lacking)
