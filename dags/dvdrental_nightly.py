"""Every night: the database ``dvdrental``, dumped, verified, and copied to S3.

Before the first run:

- a connection ``dvdrental`` of type *Postgres*; its *Database* field names the database,
- a connection ``aws_default`` of type *Amazon Web Services*,
- the two repositories below, set here or by environment variables of the workers,
- trigger the first run manually with the parameter ``init``: it creates the two repositories. Without it, a missing
  repository is an error, so that an unmounted disk is noticed.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_pgbackup.operators.dump import PgDumpOperator
from airflow_pgbackup.operators.upload import PgBackupUploadOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

# A directory that all workers share, and the bucket for the copies.
LOCAL = os.environ.get("PGBACKUP_LOCAL", "file:///var/backups/pg")
REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

with DAG(
    dag_id="dvdrental_nightly",
    schedule="0 2 * * *",  # UTC
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    params={"init": Param(False, type="boolean", description="create the repositories: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    # file:///var/backups/pg/dvdrental/dvdrental/<backup id>/<attempt>/dvdrental_2026-11-22_0200.dump
    dump = PgDumpOperator(
        task_id="dump",
        postgres_conn_id="dvdrental",
        repository=LOCAL,
        init_repository="{{ params.init }}",
    )
    # Reads the archive to its end and counts the rows of every table. A backup that fails is not uploaded.
    verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
    PgBackupUploadOperator(
        task_id="upload",
        backup=verify.output,
        destination=REMOTE,
        destination_aws_conn_id="aws_default",
        init_repository="{{ params.init }}",
    )
