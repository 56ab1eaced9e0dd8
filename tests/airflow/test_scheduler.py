"""A live scheduler: an example's scheduled run, the DAG that its verified backup starts, and how failures look and are
retried."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The directory of this file is on sys.path (pytest's rootdir mode "prepend").
import pytest
from live import LiveAirflow

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

EXAMPLE = Path(__file__).parents[2] / "dags" / "dvdrental_nightly.py"
FOLLOWING = EXAMPLE.with_name("on_verified_backup.py")
REFRESHING = EXAMPLE.with_name("refresh_staging.py")

# One run that competes with nothing else for the two places of tasks.
ONCE = 'schedule="@once", start_date=__import__("pendulum").datetime(2026, 1, 1)'
FAILING = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_pgbackup.operators.dump import PgDumpOperator

ARGS = dict(repository={repository!r}, retries=2, retry_delay=timedelta(minutes=10))
with DAG("failing", schedule="@once", start_date=__import__("pendulum").datetime(2026, 1, 1), catchup=False):
    PgDumpOperator(task_id="no_table", postgres_conn_id="dvdrental", tables=["nosuch"], **ARGS)
    PgDumpOperator(task_id="locked", postgres_conn_id="dvdrental", lock_wait_timeout="500ms", **ARGS)
    PgDumpOperator(task_id="unreachable", postgres_conn_id="nowhere", **ARGS)
"""


@pytest.mark.timeout(2700)
def test_a_scheduled_run_and_failures(
    tmp_path: Path,
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., Any],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
) -> None:
    database = fresh_database(server18, None, "CREATE TABLE rental (id int)", "CREATE TABLE locked (id int)")
    postgres_connection("dvdrental", database)
    postgres_connection("nowhere", database, port=1)
    staging = fresh_database(server18, None, "CREATE TABLE old (id int)")
    postgres_connection("staging", staging)
    aws_connection()
    local, remote = (tmp_path / "repository").as_uri(), f"s3://{s3.bucket()}/pg"
    open_repository(local).init()
    copies = open_repository(remote, s3=S3Options(client_factory=s3.client))
    copies.init()
    environment = {"PGBACKUP_LOCAL": local, "PGBACKUP_REMOTE": remote, "PGBACKUP_DATABASE": database.dbname}
    airflow = LiveAirflow(tmp_path / "airflow", environment)
    text = EXAMPLE.read_text()
    assert text.count('schedule="0 2 * * *"') == 1
    (airflow.dags / EXAMPLE.name).write_text(text.replace('schedule="0 2 * * *"', ONCE))
    (airflow.dags / FOLLOWING.name).write_text(FOLLOWING.read_text())
    (airflow.dags / REFRESHING.name).write_text(REFRESHING.read_text().replace("keep=1", "keep=0"))
    with airflow, database.connect(autocommit=False) as session:
        (run,) = airflow.wait_for(
            "SELECT * FROM dag_run WHERE dag_id = 'dvdrental_nightly' AND state IN ('success', 'failed') "
            "ORDER BY id LIMIT 1"
        )
        assert (run["run_type"], run["state"]) == ("scheduled", "success"), airflow.said()
        tasks = airflow.rows("SELECT task_id, state, try_number FROM task_instance WHERE run_id = ?", run["run_id"])
        assert {(one["task_id"], one["state"], one["try_number"]) for one in tasks} == {
            *(("dump", "success", 1), ("verify", "success", 1), ("upload", "success", 1))
        }
        assert len(list(copies.folders(f"dvdrental/{database.dbname}"))) >= 1

        (following,) = airflow.wait_for(
            "SELECT * FROM dag_run WHERE dag_id = 'on_verified_backup' AND state IN ('success', 'failed') "
            "ORDER BY id LIMIT 1"
        )
        assert (following["run_type"], following["state"]) == ("asset_triggered", "success"), airflow.said()
        (used,) = airflow.rows("SELECT value FROM xcom WHERE run_id = ? AND task_id = 'use'", following["run_id"])
        assert f"{local}/dvdrental/{database.dbname}/" in used["value"]

        (refreshing,) = airflow.wait_for(
            "SELECT * FROM dag_run WHERE dag_id = 'refresh_staging' AND state IN ('success', 'failed') "
            "ORDER BY id LIMIT 1"
        )
        assert (refreshing["run_type"], refreshing["state"]) == ("asset_triggered", "success"), airflow.said()
        with staging.connect() as refreshed:
            tables = refreshed.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            assert {name for (name,) in tables} == {"rental", "locked"}

        session.execute("LOCK TABLE locked")
        (airflow.dags / "failing.py").write_text(FAILING.format(repository=local))
        found: dict[str, tuple[str, object]] = {}
        while len(found) < 3:  # each after its first try: one of them is retried soon
            tried = ", ".join(f"'{task}'" for task in found)
            for one in airflow.wait_for(
                "SELECT * FROM task_instance WHERE dag_id = 'failing' AND state IN ('failed', 'up_for_retry') "
                f"AND task_id NOT IN ({tried})"
            ):
                found[one["task_id"]] = (one["state"], one.get("retry_delay_override", "unknown"))
        # Airflow 3.2 has no retry policies: the delay is the task's own.
        soon = 60.0 if "retry_delay_override" in one else "unknown"
        never = None if "retry_delay_override" in one else "unknown"
        assert found == {
            "no_table": ("failed", never),
            "locked": ("up_for_retry", soon),
            "unreachable": ("up_for_retry", never),
        }
    errors = [text for level, text in airflow.log("failing", "no_table") if level == "error"]
    assert errors[:3] == [
        "pg_dump: error: no matching tables were found",
        "pg_dump failed (exit 1): no matching tables were found",
        "hint: Check the patterns; they are those of psql's \\d.",
    ]
    (dag_run,) = airflow.rows("SELECT state FROM dag_run WHERE dag_id = 'failing'")
    assert dag_run["state"] == "running"
    failure = " ".join(text.strip() for level, text in airflow.log("failing", "unreachable") if level == "error")
    assert re.match(r"cannot connect to .* failed: Connection refused hint: .*\. Task failed with exception", failure)
