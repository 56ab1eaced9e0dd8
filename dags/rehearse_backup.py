"""Manually, or from the Backups page: rehearse one backup, named by its repository, series and id.

``rehearse`` restores the backup into a throwaway PostgreSQL server on the worker, compares everything that came back
with what was dumped, and records the result, and how long the restore took, beside the backup. Runs wait for each
other: each takes the disk and the processors of its worker. With ``[pgbackup] page_rehearse_dag_id = rehearse_backup``
the Backups page has a button for it; see docs/guides/backups-page.md.

Connection: ``aws_default``, or those listed below. The worker needs the programs of a PostgreSQL server, with the
extensions of your databases: see docs/explanation/verification.md.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

REPOSITORIES = os.environ.get("PGBACKUP_REPOSITORIES", "s3://my-backups/pg").split(",")
# Of repositories on S3; an empty id is boto3's own chain. The Backups page passes that of the repository that it shows.
CONNECTIONS = os.environ.get("PGBACKUP_AWS_CONN_IDS", "aws_default").split(",")
ID = "^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$"

with DAG(
    dag_id="rehearse_backup",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params={
        "repository": Param(REPOSITORIES[0], enum=REPOSITORIES),
        "series": Param(type="string", pattern="^[^/]+/[^/]+$", maxLength=1000),
        "backup_id": Param(type="string", pattern=ID),
        "aws_conn_id": Param(CONNECTIONS[0], enum=CONNECTIONS),
    },
    tags=["backup"],
    doc_md=__doc__,
):

    @task
    def choose(repository: str, series: str, backup_id: str, aws_conn_id: str) -> dict[str, object]:
        """Return the reference of the backup."""
        from airflow_pgbackup.backup.choose_backup import choose_backup
        from airflow_pgbackup.hooks.repository import open_repository

        return choose_backup(open_repository(repository, aws_conn_id), series, backup_id)

    chosen = choose(
        "{{ params.repository }}", "{{ params.series }}", "{{ params.backup_id }}", "{{ params.aws_conn_id }}"
    )
    PgBackupVerifyOperator(
        task_id="rehearse",
        backup=chosen,
        level="restore",
        aws_conn_id="{{ params.aws_conn_id }}",
        execution_timeout=timedelta(hours=12),
    )
