"""Every day at noon: some schemas and tables of one database, in custom format, directly to S3.

Connections: ``dvdrental`` and ``aws_default``. Trigger the first run manually with the parameter ``init``, which
creates the repository.

A selection is not a backup of the database: it lacks large objects, publications, extensions, and the objects that the
selected tables depend on.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from airflow_pgbackup.pipelines import pg_backup

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

with DAG(
    dag_id="selection_daily",
    schedule="0 12 * * *",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    params={"init": Param(False, type="boolean", description="create the repository: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    # Patterns as in psql's \d. Each is a list element: a comma would be part of the pattern.
    pg_backup.override(group_id="tables")(
        postgres_conn_id="dvdrental",
        server="rentals",  # a separate series, apart from the nightly backup of the complete database
        repository=REMOTE,
        format="custom",
        tables=["public.rental", "public.payment*"],
        exclude_table_data=["public.payment_archive*"],
        strict_names=True,  # a missing table is an error, not a smaller backup
        no_owner=True,
        no_privileges=True,
        init_repository="{{ params.init }}",
    )
    pg_backup.override(group_id="schemas")(
        postgres_conn_id="dvdrental",
        server="schemas",
        repository=REMOTE,
        format="custom",
        schemas=["public"],
        exclude_tables=["public.*_old"],
        init_repository="{{ params.init }}",
    )
