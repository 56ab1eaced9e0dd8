"""Every morning: is there a backup of last night, as large as it should be? If so, delete what is not kept any more.

A DAG of its own, because it is to notice a backup DAG that did not run at all. The sensor looks at the repository, not
at runs. ``prune`` comes after it: while no good backups arrive, no old one is deleted.

What it cannot notice is that it does not run itself: for that, let something outside of Airflow watch, or add one of
Airflow's deadline alerts, as in docs/reference/freshness.md.

Connection: ``aws_default``. Trigger it by hand with ``delete`` off to see in the log of ``prune`` what it would do.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

with DAG(
    dag_id="prune_and_freshness",
    schedule="0 7 * * *",  # UTC
    catchup=False,
    max_active_runs=1,
    default_args={"repository": REMOTE, "retries": 2, "retry_delay": timedelta(minutes=10)},
    params={"delete": Param(True, type="boolean", description="off: only say what would be deleted")},
    tags=["backup"],
    doc_md=__doc__,
):
    fresh = PgBackupFreshnessSensor(
        task_id="fresh",
        server="dvdrental",
        # Named, so that one without any backup is noticed, too.
        databases=["dvdrental"],
        # One night, and two hours for a slow one.
        max_age=timedelta(hours=26),
        # Tables that may empty from one night to the next:
        # allow_drop=["public.job_queue", "*.tmp_*"],
    )
    prune = PgBackupPruneOperator(
        task_id="prune",
        delete="{{ params.delete }}",
        keep_daily=7,
        keep_weekly=5,
        keep_monthly=12,
        # Whose midnight ends a day:
        time_zone="Europe/Berlin",
    )
    fresh >> prune
