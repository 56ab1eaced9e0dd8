"""Run a DAG file's DAG once, each task in a process of its own under Airflow's supervisor, as a worker does it.

``python supervised.py <dag file>``; the file lies in the DAGs folder. Only the API server is missing: its routes run in
this process. Task logs, masked, go to Airflow's logs folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.sdk.definitions import dag as dag_module
from airflow.sdk.execution_time import supervisor


def run_supervised(*, ti: Any, task: Any, **_: object) -> None:
    ti.set_state("queued")
    workload = ExecuteTask.make(ti, dag_rel_path=Path(task.dag.fileloc), bundle_info=BundleInfo(name="dags-folder"))
    supervise = getattr(supervisor, "supervise_task", None) or supervisor.supervise  # the latter in Airflow 3.2
    supervise(
        ti=workload.ti,
        bundle_info=workload.bundle_info,
        dag_rel_path=workload.dag_rel_path,
        token="",
        client=supervisor.InProcessTestSupervisor._api_client(task.dag),
        log_path=workload.log_path,
    )
    ti.refresh_from_db()


if __name__ == "__main__":
    (dag,) = DagBag(sys.argv[1]).dags.values()
    dag_module._run_task = run_supervised
    run = dag.test()
    print("the run ended:", run.state)
