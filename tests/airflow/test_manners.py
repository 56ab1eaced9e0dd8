"""What a person sees in Airflow: log lines and their levels, names of mapped tasks, retries."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

RunDag = Callable[..., Any]


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> ConnectionParams:
    params = fresh_database(server18, None, "CREATE TABLE film (id int)", "INSERT INTO film VALUES (1)")
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from airflow_pgbackup.repository.open import open_repository

    folder = tmp_path / "repository"
    open_repository(folder.as_uri()).init()
    return folder


def test_a_failure(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(
        f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, tables=["nosuch"])'
    )
    assert run.errors == [
        "pg_dump: error: no matching tables were found",
        "pg_dump failed (exit 1): no matching tables were found",
        "hint: Check the patterns; they are those of psql's \\d.",
    ]
    assert "AirflowFailException: pg_dump failed (exit 1): no matching tables were found\n" in run.output


def labels() -> dict[tuple[str, int], str | None]:
    """The names of the mapped task instances, as the grid shows them."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.execute(
            select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.rendered_map_index).where(
                TaskInstance.dag_id == "case"
            )
        )
        return {(task, index): label for task, index, label in rows if index >= 0}


def test_names_of_mapped_tasks(
    database: ConnectionParams,
    server18: PostgresServer,
    fresh_database: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    run_dag: RunDag,
) -> None:
    one, two = database.dbname, fresh_database(server18, None).dbname
    run = run_dag(f"""
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
names = {[one, two, "no/such"]!r}
common = dict(postgres_conn_id="db", repository={folder.as_uri()!r})
dumps = PgDumpOperator.partial(task_id="dump", **common).expand(database=names[:2])
PgBackupVerifyOperator.partial(task_id="verify").expand(backup=dumps.output)
PgBackupUploadOperator.partial(
    task_id="own", destination={(tmp_path / "second").as_uri()!r}, init_repository=True, minimum_level=None,
    map_index_template="{{{{ task.backup['database'] }}}}",
).expand(backup=dumps.output)
PgBackupCheckOperator.partial(task_id="check", server="main", **common).expand(database=names)
PgBackupFreshnessSensor.partial(task_id="fresh", repository={folder.as_uri()!r}, max_age=60).expand(server=["db", "x"])
pg_backup.override(group_id="group").partial(**common).expand(database=names[:2])
""")
    found = labels()
    for task in ("dump", "verify", "group.dump", "group.verify"):
        assert [found[task, 0], found[task, 1]] == [f"db/{one}", f"db/{two}"], run.output
    assert [found["own", 0], found["own", 1]] == [one, two]
    assert [found["check", index] for index in (0, 1, 2)] == [f"main/{one}", f"main/{two}", "main/no/such"]
    assert run.states["check[2]"] == "failed"
    assert [found["fresh", 0], found["fresh", 1]] == ["db", "x"]


def test_what_a_fresh_and_a_stale_repository_show(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(f"""
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
dump = pg_backup(postgres_conn_id="db", repository={folder.as_uri()!r})
common = dict(repository={folder.as_uri()!r}, max_age=3600, server="db")
fresh = PgBackupFreshnessSensor(task_id="fresh", **common)
names = ["a", "b", "c", "d", {database.dbname!r}]
stale = PgBackupFreshnessSensor(task_id="stale", databases=names, **common)
dump >> [fresh, stale]
""")
    assert run.states["fresh"] == "success", run.output
    table = [line.split(" [airflow.")[0].split("] ", 1)[1] for line in run.output.splitlines() if "[info" in line]
    start = next(number for number, line in enumerate(table) if line.startswith("series "))
    assert table[start].split() == ["series", "age", "level", "size"]
    assert re.fullmatch(rf"db/{database.dbname} +\d+\.\d s +archive +\d+\.\d KiB *", table[start + 1])
    assert run.errors == [f"db/{name}: no backup" for name in "abcd"]
    assert run.failure == "not fresh: db/a: no backup; db/b: no backup; db/c: no backup; and 1 more"
