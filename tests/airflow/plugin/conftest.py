"""The app of the Backups page as Airflow mounts it, with Airflow's own authentication."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from airflow_pgbackup.plugin import BackupsPlugin, details, pages
from airflow_pgbackup.plugin.cache import Cache
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository

Visitor = Callable[[str | None], TestClient]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository that the page shows."""
    made = open_repository(f"file://{tmp_path / 'pg'}")
    made.init()
    monkeypatch.setenv("PGBACKUP_PAGE_REPOSITORIES", made.uri)
    return made


@pytest.fixture
def visitor(airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """A browser without JavaScript: logged out, or in a role of Airflow's simple auth manager."""
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    # A page of a busy machine waits for its reading, too.
    monkeypatch.setattr(pages, "OVERVIEWS", Cache(patience=240.0))
    monkeypatch.setattr(details, "DETAILS", Cache(patience=240.0))
    airflow = FastAPI()
    for each in BackupsPlugin.fastapi_apps:
        airflow.mount(each["url_prefix"], each["app"])
    manager = init_auth_manager()

    def client(role: str | None) -> TestClient:
        made = TestClient(airflow, base_url="http://airflow.test", follow_redirects=False)
        if role is not None:
            token = manager.generate_jwt(SimpleAuthManagerUser(username=role, role=role))
            made.cookies.set("_token", token)
        return made

    return client
