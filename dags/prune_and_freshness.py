"""Every morning: check that last night's backup exists and has the usual size, then delete those no longer kept.

It is a separate DAG, so that it notices a backup DAG that did not run at all: the sensor reads the repository, not the
runs. ``prune`` runs after it, and only for the database that it checks: while no verified backups of it arrive, no old
one is deleted. ``sweep`` does not wait: it removes leftovers of killed dumps from the complete repository, which would
otherwise fill the store.

It cannot notice if it does not run itself. For that, monitor it from outside Airflow, or add one of Airflow's
deadline alerts, as in docs/reference/freshness.md.

Connection: ``aws_default``. Trigger it manually with ``delete`` off to see in the log of ``prune`` what it would do.
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
    params={"delete": Param(True, type="boolean", description="off: only report what would be deleted")},
    tags=["backup"],
    doc_md=__doc__,
):
    fresh = PgBackupFreshnessSensor(
        task_id="fresh",
        server="dvdrental",
        # Named, so that a database without any backup is noticed, too.
        databases=["dvdrental"],
        # One night, and two hours for a slow dump.
        max_age=timedelta(hours=26),
        # Tables that may become empty from one night to the next:
        # allow_drop=["public.job_queue", "*.tmp_*"],
    )
    prune = PgBackupPruneOperator(
        task_id="prune",
        # Those that the sensor checks. Without names, prune thins out every series of the repository.
        server="dvdrental",
        databases=["dvdrental"],
        delete="{{ params.delete }}",
        keep_daily=7,
        keep_weekly=5,
        keep_monthly=12,
        # The time zone in which days begin:
        time_zone="Europe/Berlin",
    )
    fresh >> prune
    # Files of killed dumps, a day after they were written to last:
    PgBackupPruneOperator(task_id="sweep", sweep_only=True, delete="{{ params.delete }}")
