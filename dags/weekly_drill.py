"""Every week: restore a few backups for trial, and compare what comes back with what was dumped.

The drill comes round to every series of the repository: first those that were never rehearsed or whose rehearsal is
longest ago, as many as fit into ``DRILL_BYTES``. A series larger than that has a week of its own. Each is restored into
a throwaway PostgreSQL on the worker, which is gone afterwards; how long the restore took is in the verification beside
the backup, and that is your recovery time.

A backup that is not what was dumped fails its task. One that could not be rehearsed here, for lack of an extension or
of disk, fails it too and says why; the repository then has it as "not proven", neither passed nor failed.

Connection: ``aws_default``. The worker needs a PostgreSQL server's programs with the extensions of your databases: see
docs/explanation/verification.md.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")
DRILL_BYTES = int(os.environ.get("PGBACKUP_DRILL_BYTES", 50 * 1024**3))

with DAG(
    dag_id="weekly_drill",
    schedule="0 8 * * 6",  # Saturday morning, when the nightly dumps are done; UTC
    catchup=False,
    max_active_runs=1,
    tags=["backup"],
    doc_md=__doc__,
):

    @task(retries=2)
    def choose() -> list[dict[str, object]]:
        """The newest backup of each series whose turn it is."""
        from airflow_pgbackup.backup.drill import choose_drill
        from airflow_pgbackup.hooks.repository import open_repository

        return choose_drill(open_repository(REMOTE), max_bytes=DRILL_BYTES)

    PgBackupVerifyOperator.partial(
        task_id="rehearse",
        level="restore",
        execution_timeout=timedelta(hours=12),
        # Each takes the disk and the processors of its worker:
        max_active_tis_per_dagrun=1,
    ).expand(backup=choose())
