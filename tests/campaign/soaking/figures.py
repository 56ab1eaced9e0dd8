"""The figures of a soak: rows of each run, series that must be flat, and the tables of the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from celery_airflow import CeleryAirflow

from tests.campaign.soaking import workload
from tests.campaign.soaking.endings import Violation
from tests.campaign.soaking.faults import Faults
from tests.campaign.soaking.samples import AIRFLOW, WORKERS, Series
from tests.campaign.soaking.trends import Trend, trend

MIB = 1024**2
WARM_UP = 120.0
"""Seconds after the start of a worker in which its processes load what they need."""

FLAT: list[tuple[str, str, float, float]] = [
    *((f"memory {each}", "MiB", MIB, 24.0) for each in (*WORKERS, *AIRFLOW)),
    *((f"descriptors {each}", "descriptors", 1, 16.0) for each in (*WORKERS, *AIRFLOW)),
    *((f"processes {each}", "processes", 1, 4.0) for each in (*WORKERS, *AIRFLOW, "orphans")),
    # A worker is the first process of its machine and reaps no orphans: each kill of a task and its supervisor leaves
    # up to five. A fault of ours would leave hundreds, one per sandboxed program.
    *((f"zombies {each}", "processes", 1, 24.0) for each in WORKERS),
    *((f"temporary bytes {each}", "MiB", MIB, 1.0) for each in (*WORKERS, "hub")),
    *((f"temporary files {each}", "files", 1, 8.0) for each in (*WORKERS, "hub")),
    *((f"rows {table}", "rows", 1, 4.0) for table in ("dag_version", "serialized_dag", "trigger")),
    ("objects", "objects", 1, 40.0),
    ("backups", "backups", 1, 10.0),
]
"""Series that must be flat: name, unit, what makes one unit, and a growth in units that is flat whatever the mean."""

PER_RUN = {
    "task_instance": "select count(*) from task_instance where run_id = r.run_id and dag_id = r.dag_id",
    "task_instance_history": "select count(*) from task_instance_history where run_id = r.run_id and dag_id = r.dag_id",
    "xcom": "select count(*) from xcom where run_id = r.run_id and dag_id = r.dag_id",
    "log": "select count(*) from log where run_id = r.run_id and dag_id = r.dag_id",
    "xcom bytes": "select coalesce(sum(length(value::text)), 0) from xcom"
    " where run_id = r.run_id and dag_id = r.dag_id",
}


def runs_of(platform: CeleryAirflow) -> list[dict[str, Any]]:
    """Return what each run of the backup DAG has in Airflow's database, in their order."""
    columns = ", ".join(f"({query})" for query in PER_RUN.values())
    query = f"select r.state, {columns} from dag_run r where r.dag_id = %s order by r.id"
    rows = platform.query(query, workload.BACKUP_DAG)
    return [dict(zip(("state", *PER_RUN), row, strict=True)) for row in rows]


def of_clean_runs(runs: list[dict[str, Any]], name: str) -> Trend:
    """Return the trend of a number over the successful runs without retries, in their order."""
    clean = [float(run[name]) for run in runs if run["state"] == "success" and not run["task_instance_history"]]
    return trend(list(map(float, range(len(clean)))), clean, floor=2.0, window=0)


def trend_of(series: Series, name: str, unit: float, floor: float, down: Sequence[tuple[str, float, float]]) -> Trend:
    """Return the trend of a series; that of a worker is without the time when it was off, and had only just begun."""
    values = series.values.get(name) or [0.0] * len(series.seconds)
    off = [(start, end + WARM_UP) for worker, start, end in down if name.endswith(worker)]
    samples = [
        (at, value / unit)
        for at, value in zip(series.seconds, values, strict=True)
        if not any(start <= at <= end for start, end in off)
    ]
    return trend([at for at, _ in samples], [value for _, value in samples], floor)


def trend_row(name: str, unit: str, found: Trend) -> list[object]:
    flat = {None: "too short to say", True: "yes", False: "NO"}[found.flat]
    return [name, unit, round(found.mean, 1), round(found.growth, 1), round(found.limit, 1), found.windows, flat]


def run_outcome(dag: str, state: str) -> str:
    expected = ", as it must" if (dag, state) == (workload.NEVER_FRESH_DAG, "failed") else ""
    return f"runs of {dag}: {state}{expected}"


def tries_of(platform: CeleryAirflow) -> dict[str, Any]:
    rows = platform.query(
        "select dag_id, task_id, count(*) filter (where state = 'success'), count(*) filter (where state = 'failed'),"
        " sum(try_number) from task_instance group by 1, 2 order by 1, 2"
    )
    runs = Counter(platform.query("select dag_id, state from dag_run"))
    return {"tasks": [[*row[:4], int(row[4])] for row in rows], "runs": runs}


def trend_tables(
    series: Series, runs: list[dict[str, Any]], down: Sequence[tuple[str, float, float]]
) -> tuple[list[list[object]], list[Violation]]:
    """Return the rows of the table of trends, and a violation for each series that grows."""
    found = [(name, unit, trend_of(series, name, scale, floor, down)) for name, unit, scale, floor in FLAT]
    for name in PER_RUN:
        found.append((f"{name} of each run", "bytes" if "bytes" in name else "rows", of_clean_runs(runs, name)))
    grown = [
        {"case": name, "what": f"grows by {each.growth:.1f} {unit}, at most {each.limit:.1f} is flat"}
        for name, unit, each in found
        if each.flat is False
    ]
    return [trend_row(*each) for each in found], grown


def fault_rows(faults: Faults) -> list[list[object]]:
    kinds = sorted({*faults.injected, *faults.missed})
    return [[kind, faults.injected[kind], faults.missed[kind]] for kind in kinds]
