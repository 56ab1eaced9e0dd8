"""PgRestoreSetOperator in DAG runs: the example that restores a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from restoring import databases_of, fresh_server
from sets import back_up_set

from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

EXAMPLE = Path(__file__).parents[2] / "dags" / "restore_server.py"


def test_restore_server(
    server18: PostgresServer,
    fresh_database: Callable[..., Any],
    postgres_connection: Callable[..., None],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    repository = open_repository(tmp_path.as_uri())
    repository.init()
    one, two = (fresh_database(server18, None, f"create table t as select {number} as a") for number in (1, 2))
    written = back_up_set(server18, repository, [one.dbname, two.dbname])
    monkeypatch.setenv("PGBACKUP_REMOTE", repository.uri)
    monkeypatch.setenv("PGBACKUP_SERVER", "prod")
    with fresh_server(18, password="secret", tcp=True) as empty:
        postgres_connection("restore_target", empty.params)
        run = run_dag(EXAMPLE, {"prefix": "back_"})
        assert run.states == {"plan": "success", "restore": "success"}
        assert run.results["plan"]["databases"] == []
        assert [each["rows"] for each in run.results["restore"]["databases"]] == [1, 1]
        assert run.results["restore"]["set"] == written.location
        assert databases_of(empty) == {f"back_{one.dbname}", f"back_{two.dbname}"}
        again = run_dag(EXAMPLE, {"prefix": "back_", "set_id": written.id})
        assert [each["outcome"] for each in again.results["restore"]["databases"]] == ["earlier", "earlier"]
        assert run_dag(EXAMPLE, {"set_id": "2020-01-01"}).states == {"plan": "failed", "restore": "upstream_failed"}
