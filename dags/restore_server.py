"""Manually: restore all databases of a server, with its roles, from a backup set.

``plan`` checks everything and reports what would be done; nothing is changed. ``restore`` does it. Nothing is
replaced: a database of the same name on the target server stops the run before anything is changed. Trigger it with a
``prefix``, such as ``restored_``, to restore beside what the server has. A retry continues where the first try stopped.

Connections: ``restore_target``, the server to restore into, whose user may create databases and roles; ``aws_default``.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_pgbackup.operators.restore_set import PgRestoreSetOperator

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")
SERVER = os.environ.get("PGBACKUP_SERVER", "main")

with DAG(
    dag_id="restore_server",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "set_id": Param("latest", type="string", description="a set's id, a date, or latest: the newest complete set"),
        "prefix": Param("", type="string", pattern="^[a-z0-9_]*$", description="begins the names of the databases"),
    },
    tags=["restore"],
    doc_md=__doc__,
):
    arguments = {
        "repository": REMOTE,
        "server": SERVER,
        "set_id": "{{ params.set_id }}",
        "prefix": "{{ params.prefix }}",
        "postgres_conn_id": "restore_target",
    }
    plan = PgRestoreSetOperator(task_id="plan", plan_only=True, **arguments)
    restore = PgRestoreSetOperator(task_id="restore", parallel_databases=2, **arguments)
    plan >> restore
