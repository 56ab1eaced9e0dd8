"""dags/weekly_drill.py on a real repository: every series has its turn, and a rehearsal's failure is the task's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torture
from honest import write_backup

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

DRILL = Path(__file__).parents[2] / "dags" / "weekly_drill.py"


def test_weekly_drill(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    repository = open_repository(tmp_path.as_uri())
    repository.init()
    good = fresh_database(server18, None, "create table t (a int)", "insert into t values (1)")
    bad = fresh_database(server18, None, *torture.UNRESTORABLE)
    for server, database, options in (
        ("main", good, DumpOptions()),
        ("main", good, DumpOptions()),
        ("other", bad, DumpOptions()),
    ):
        dump_database(connection=database, server=server, repository=repository, options=options)
    monkeypatch.setenv("PGBACKUP_REMOTE", repository.uri)
    monkeypatch.setenv("PGBACKUP_DRILL_BYTES", "1")  # one series a week

    states: list[list[str | None]] = []
    for _week in range(2):
        run = run_dag(DRILL)
        states.append([state for task, state in run.states.items() if task.startswith("rehearse")])
    assert sorted(map(str, states)) == ["['failed']", "['success']"]
    levels = {(backup.series.server, backup.state, backup.level) for backup in read_catalogue(repository).backups}
    assert levels == {("main", "verified", "restore"), ("main", "written", None), ("other", "failed", None)}
    # The one that failed was the newest of its series, so only the good one is left to be rehearsed again.
    assert [state for task, state in run_dag(DRILL).states.items() if task.startswith("rehearse")] == ["success"]


@pytest.mark.parametrize("looks", [None, ["archive-fail"]], ids=["empty", "all failed"])
def test_a_drill_without_anything_to_rehearse_fails(
    run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looks: list[str] | None
) -> None:
    repository = open_repository(tmp_path.as_uri())
    repository.init()
    if looks:
        write_backup(repository, Series("prod", "app"), datetime(2026, 11, 22, tzinfo=timezone.utc), looks=looks)
    monkeypatch.setenv("PGBACKUP_REMOTE", repository.uri)
    run = run_dag(DRILL)
    assert run.state == "failed"
    assert ("failed verification" if looks else "has no backups to rehearse") in run.output
