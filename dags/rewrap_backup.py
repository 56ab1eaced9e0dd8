"""Manually, after a change of keys: encrypt one backup to the recipients of ``[pgbackup] recipients``.

The new backup holds the same dump, with its verifications. The old one stays until it is pruned. An unencrypted backup
becomes encrypted. For all backups at once, use ``pgbackup rewrap --all``; see docs/guides/encryption.md.

Connections: ``aws_default``, and the one of ``[pgbackup] identity_conn_id`` with the secret key of an old recipient.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param, task

from airflow_pgbackup.operators.rewrap import PgBackupRewrapOperator

REPOSITORIES = os.environ.get("PGBACKUP_REPOSITORIES", "s3://my-backups/pg").split(",")
ID = "^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$"

with DAG(
    dag_id="rewrap_backup",
    schedule=None,
    catchup=False,
    params={
        "repository": Param(REPOSITORIES[0], enum=REPOSITORIES),
        "series": Param(type="string", pattern="^[^/]+/[^/]+$", maxLength=1000),
        "backup_id": Param(type="string", pattern=ID),
    },
    tags=["backup"],
    doc_md=__doc__,
):

    @task
    def choose(repository: str, series: str, backup_id: str) -> dict[str, object]:
        """Return the reference of the backup."""
        from airflow_pgbackup.backup.choose_backup import choose_backup
        from airflow_pgbackup.hooks.repository import open_repository

        return choose_backup(open_repository(repository), series, backup_id)

    chosen = choose("{{ params.repository }}", "{{ params.series }}", "{{ params.backup_id }}")
    PgBackupRewrapOperator(task_id="rewrap", backup=chosen)
