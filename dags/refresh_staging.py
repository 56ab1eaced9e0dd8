"""Staging every morning: whenever a backup of the database ``dvdrental`` has been verified, staging gets its contents.

The backup is restored into a new database beside staging, which stays in use until the new one takes its name. Staging
keeps its own owners, grants, settings and passwords. If anything fails, or the worker is killed, staging stays as it
is.

The backup can come from any DAG: its verify task emits the event that starts this one (docs/guides/assets.md). Started
by hand, it takes the newest verified backup. docs/guides/staging.md describes it.

Connections: ``staging`` is the database to refresh, with a user that owns it and may create databases;
``aws_default`` for a repository on S3.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_pgbackup.assets import backup_asset
from airflow_pgbackup.pipelines import pg_refresh

SERVER = os.environ.get("PGBACKUP_SERVER", "dvdrental")
DATABASE = os.environ.get("PGBACKUP_DATABASE", "dvdrental")
# The repository whose verified backups start the DAG; events of other repositories are refused.
REPOSITORY = os.environ.get("PGBACKUP_LOCAL", "file:///var/backups/pg")
# A file of masking rules, which the workers read (docs/guides/masking.md). Without it, rows are copied as they are.
RULES = os.environ.get("PGBACKUP_MASKING_RULES")

with DAG(
    dag_id="refresh_staging",
    schedule=backup_asset(SERVER, DATABASE, level="archive"),
    catchup=False,
    max_active_runs=1,
    tags=["backup"],
    doc_md=__doc__,
):
    pg_refresh.override(group_id="staging")(
        repository=REPOSITORY,
        series=f"{SERVER}/{DATABASE}",
        postgres_conn_id="staging",
        rules=RULES,
        keep=1,
        retries=2,
        retry_delay=timedelta(minutes=10),
    )
