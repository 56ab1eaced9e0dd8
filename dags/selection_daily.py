"""Every day at noon: some schemas and tables of one database, in the custom format, straight to S3.

Connections: ``dvdrental`` and ``aws_default``. Trigger the first run by hand with the parameter ``init``, which makes
the repository.

A selection is no backup of a database: large objects, publications, extensions, and whatever the selected tables
depend on are not in it.
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
    params={"init": Param(False, type="boolean", description="make the repository: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    # Patterns are those of psql's \d; a list each, since a comma would be part of the pattern.
    pg_backup.override(group_id="tables")(
        postgres_conn_id="dvdrental",
        server="rentals",  # a series of its own, apart from the nightly backup of the whole database
        repository=REMOTE,
        format="custom",
        tables=["public.rental", "public.payment*"],
        exclude_table_data=["public.payment_archive*"],
        strict_names=True,  # a table that is no longer there is an error, not a smaller backup
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
