"""The link from a task to its backup on the Backups page: as Airflow stores it in XCom, and as the page answers it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from fastapi.testclient import TestClient

from airflow_pgbackup.links import PAGE_PREFIX, PAGE_ROUTE, BackupPageLink, PlaceOnPage
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.provider_info import get_provider_info

START = f"plugin/{PAGE_ROUTE}{PAGE_PREFIX}/"


class Task:
    """What the link needs of an operator."""

    def __init__(self, place: PlaceOnPage | None) -> None:
        self.place_on_page = place


def link(*place: str) -> str:
    return BackupPageLink().get_link(Task(PlaceOnPage(*place) if place else None), ti_key=None)  # type: ignore[arg-type]


def links() -> dict[str, str]:
    """The links that Airflow has stored, by task."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.scalars(
            select(XComModel).where(XComModel.key == BackupPageLink().xcom_key).order_by("timestamp")
        )
        return {row.task_id: XComModel.deserialize_value(row) for row in rows}


def test_the_link_is_registered() -> None:
    assert f"{BackupPageLink.__module__}.{BackupPageLink.__name__}" in get_provider_info()["extra-links"]


def test_the_repository_is_named_as_references_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", "s3://a/pg/, file:///var/my%20backups, file://localhost/other/")
    assert link("s3://a/pg") == START
    assert link("s3://a/pg", "prod/app") == f"{START}series?repository=s3%3A%2F%2Fa%2Fpg&series=prod%2Fapp"
    assert parse_qs(urlsplit(link("file:///var/my%20backups", "a/b", "i")).query) == {
        "repository": ["file:///var/my%20backups"],
        "series": ["a/b"],
        "id": ["i"],
    }
    assert link("file:///other", "a/b").startswith(f"{START}series?repository=file%3A%2F%2F%2Fother&")


def test_a_fleet_may_name_any_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_FLEET", "/opt/fleet.yaml")  # which only the API server may have
    assert link("s3://a/pg") == START


@pytest.mark.parametrize("configured", ["", "s3://b/pg", "s3://a/pg-copy", "s3://a", "/var/backups", "file://host/x"])
def test_what_the_page_does_not_show_has_no_link(configured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", configured)
    assert link("s3://a/pg", "prod/app", "20261122T020000Z-3f9ac1") == ""
    assert link() == ""


@pytest.mark.parametrize("setting", ["PAGE_MAX_AGE", "PAGE_LEVEL"])
def test_an_invalid_configuration_of_the_page_gives_no_link(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", "s3://a/pg")
    monkeypatch.setenv(f"PGBACKUP_{setting}", "/no/such")
    assert link("s3://a/pg", "prod/app") == ""


@pytest.mark.parametrize("name", ["a&id=x#y", '"><script>', "../..", "%2F", "\u202e", "javascript:alert(1)"])
def test_a_hostile_name_is_encoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", "s3://a/pg")
    found = urlsplit(link("s3://a/pg", name, "i"))
    assert (found.scheme, found.netloc, found.path, found.fragment) == ("", "", f"{START}backup", "")
    assert parse_qs(found.query) == {"repository": ["s3://a/pg"], "series": [name], "id": ["i"]}
    assert not set(found.geturl()) & set("\"<>' ")


def test_the_links_of_a_run_lead_to_its_backup(
    server18: PostgresServer,
    tmp_path: Path,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    run_dag: Callable[..., Any],
    visitor: Callable[[str | None], TestClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, copy = (tmp_path / "shown").as_uri(), (tmp_path / "copy").as_uri()
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", shown)
    database = fresh_database(server18, None, "CREATE TABLE film (id int)")
    postgres_connection("db", database)
    source = f"""
from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator

dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository="{shown}", init_repository=True)
verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
mapped = PgBackupVerifyOperator.partial(task_id="mapped").expand(backup=[dump.output])
upload = PgBackupUploadOperator(
    task_id="upload", backup=dump.output, destination="{copy}", minimum_level=None, init_repository=True
)
restore = PgRestoreOperator(
    task_id="restore", backup=dump.output, postgres_conn_id="db", mode="replace", plan_only=True
)
options = {{"repository": "{shown}", "delete": False, "keep_last": 1}}
one = PgBackupPruneOperator(task_id="prune_one", server="db", databases=["{database.dbname}"], **options)
every = PgBackupPruneOperator(task_id="prune", **options)
roles = PgDumpAllOperator(task_id="roles", postgres_conn_id="db", repository="{shown}", roles_only=True)
dump >> [one, every, roles]
"""
    run = run_dag(source)
    assert set(run.states.values()) == {"success"}, run.output
    found = links()
    where = urlencode({"repository": shown})
    backup = f"backup?{where}&series=db%2F{database.dbname}&id={run.results['dump']['id']}"
    assert {task: found[task] for task in run.states if task in found} == {
        **dict.fromkeys(("dump", "verify", "restore"), START + backup),
        "upload": "",
        "prune_one": f"{START}series?{where}&series=db%2F{database.dbname}",
        "prune": START,
        "roles": f"{START}backup?{where}&series=db%2F%40roles&id={run.results['roles']['id']}",
    }
    assert found["mapped"] == START + backup
    for address in {*found.values()} - {""}:
        page = visitor("viewer").get(address.removeprefix(f"plugin/{PAGE_ROUTE}"))
        assert page.status_code == 200, page.text
    assert run.results["dump"]["id"] in visitor("viewer").get(f"{PAGE_PREFIX}/{backup}").text
