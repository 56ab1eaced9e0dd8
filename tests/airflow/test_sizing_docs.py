"""The numbers in docs/deployment/sizing.md that follow from the code."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series, backup_id
from airflow_pgbackup.repository.retention import Policy, plan
from airflow_pgbackup.repository.s3.options import PartPlan

if TYPE_CHECKING:
    from airflow.sdk import DAG

PAGE = Path(__file__).parents[2] / "docs" / "deployment" / "sizing.md"
MIB, GB = 1024**2, 10**9


def row(first: str) -> list[str]:
    """Return the other cells of the row that begins with a cell, in the table whose cells are numbers."""
    (found,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip(" *") for cell in found.strip("|").split("|")[1:]]


@pytest.mark.parametrize(
    ("database", "cells"),
    [
        (10 * GB, "| 10 GB | 3.3 GB |"),
        (100 * GB, "| 100 GB | 33 GB |"),
        (1000 * GB, "| 1 TB | 333 GB |"),
        (4000 * GB, "| 4 TB | 1333 GB |"),
    ],
)
def test_parts_of_a_dump(database: int, cells: str) -> None:
    parts = PartPlan(database // 2, 10_000, 8 * MIB)
    part, left = parts.next_size, database // 3
    while left > 0:
        left -= parts.next_size
        parts.number += 1
    assert f"{cells} {part // MIB} MiB | {parts.number} |" in PAGE.read_text()


def test_backups_that_the_policy_keeps() -> None:
    policy, kept, counts = Policy(keep_daily=7, keep_weekly=4, keep_monthly=12), list[Backup](), []
    for night in range(800):
        at = datetime(2025, 1, 1, 2, tzinfo=timezone.utc) + timedelta(days=night)
        new = Backup(
            series=Series("prod", "app"),
            id=backup_id(at, seed=str(night)),
            started_at=at,
            committed_at=at,
            size=1,
            state="verified",
            level="archive",
        )
        kept = [decision.backup for decision in plan([*kept, new], policy, at + timedelta(hours=2)) if decision.keep]
        counts.append(len(kept))
    last = counts[-300:]
    assert f"{min(last)} to {max(last)} in the last 300" in PAGE.read_text()
    assert round(sum(last) / 300) == 20


@pytest.mark.parametrize(("copy", "column"), [(False, 0), (True, 1)])
def test_tasks_of_a_run(copy: bool, column: int, load_dag: Callable[[Path], DAG], tmp_path: Path) -> None:
    upload_to = 'upload_to="s3://copies/pg",' if copy else ""
    file = tmp_path / "sized.py"
    file.write_text(
        textwrap.dedent(f"""
            from airflow.sdk import DAG
            from airflow_pgbackup.pipelines import pg_cluster_backup
            with DAG(dag_id="sized", schedule=None):
                pg_cluster_backup(
                    postgres_conn_id="app_db", repository="s3://backups/pg", {upload_to} prune={{"keep_daily": 7}}
                )
            """)
    )
    tasks = load_dag(file).tasks
    mapped = sum(".databases." in task.task_id for task in tasks)  # one of each for each database
    alone = len(tasks) - mapped
    assert row("for each database")[column] == str(mapped)
    formula = row("**N databases**")[column]
    assert formula == f"{mapped} N + {alone}"
    for count in (50, 200):
        assert row(f"{count} databases")[column] == str(mapped * count + alone)


def test_cost_of_the_example() -> None:
    text = PAGE.read_text()
    puts = 10 * 30 * (3974 + 9)
    assert f"= {puts:,} |" in text
    storage, requests = round(20 * 1000 / 3 * 0.023, 2), round(puts * 0.005 / 1000, 2)
    assert re.search(rf"\| storage .*\| {storage:.2f} \|", text)
    assert re.search(rf"\| PUT .*\| {requests:.2f} \|", text)
    assert f"| **{storage + requests:.2f}** |" in text
