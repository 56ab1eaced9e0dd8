"""Every week: rehearse a few backups: restore each into a throwaway server and compare it with what was dumped.

The drill reaches every series of the repository in turn: first those that were never rehearsed or whose rehearsal is
the oldest, as many as fit into ``DRILL_BYTES``; a larger series is rehearsed in addition when it is the first. Each
backup is restored into a throwaway PostgreSQL server on the worker, which is removed afterwards. The verification
beside the backup records how long the restore took: your recovery time.

A backup that differs from what was dumped fails its task. A backup that could not be rehearsed on this worker, for lack
of an extension or of disk space, fails it, too, with the reason; the repository records it as "not proven", neither
passed nor failed.

Connection: ``aws_default``. The worker needs the programs of a PostgreSQL server, with the extensions of your
databases: see docs/explanation/verification.md.
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
        """Return the newest backup of each series whose turn it is."""
        from airflow_pgbackup.backup.drill import choose_drill
        from airflow_pgbackup.hooks.repository import open_repository

        return choose_drill(open_repository(REMOTE), max_bytes=DRILL_BYTES)

    PgBackupVerifyOperator.partial(
        task_id="rehearse",
        level="restore",
        execution_timeout=timedelta(hours=12),
        # Each rehearsal uses the disk and the processors of its worker:
        max_active_tis_per_dagrun=1,
    ).expand(backup=choose())
