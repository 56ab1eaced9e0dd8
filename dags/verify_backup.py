"""Manually, or from the Backups page: verify one backup, named by its repository, series and id.

``verify`` reads the complete backup with PostgreSQL's own reader and records the result beside it. Whoever triggers the
run chooses only the backup: the DAG's author lists the repositories and their connections. With ``[pgbackup]
page_verify_dag_id = verify_backup`` the Backups page has a button for it; see docs/guides/backups-page.md.

Connection: ``aws_default``, or those listed below.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param, task

from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

REPOSITORIES = os.environ.get("PGBACKUP_REPOSITORIES", "s3://my-backups/pg").split(",")
# Of repositories on S3; an empty id is boto3's own chain. The Backups page passes that of the repository that it shows.
CONNECTIONS = os.environ.get("PGBACKUP_AWS_CONN_IDS", "aws_default").split(",")
ID = "^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$"

with DAG(
    dag_id="verify_backup",
    schedule=None,
    catchup=False,
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
    PgBackupVerifyOperator(task_id="verify", backup=chosen, aws_conn_id="{{ params.aws_conn_id }}")
