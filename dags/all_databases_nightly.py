"""Every night: all databases of a server, each in a backup of its own, and its roles and tablespaces.

A backup set ties the backups of a night together. The databases are found when the run starts, so a new one needs no
change here. They are not one snapshot: each is dumped at its own time.

Connections: ``postgres_default``, whose role may connect to every database and read its tables, and ``aws_default``.
Trigger the first run manually with the parameter ``init``, which creates the repositories.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_pgbackup.pipelines import pg_cluster_backup

LOCAL = os.environ.get("PGBACKUP_LOCAL", "file:///var/backups/pg")
REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

with DAG(
    dag_id="all_databases_nightly",
    schedule="30 2 * * *",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    params={"init": Param(False, type="boolean", description="create the repositories: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    pg_cluster_backup(
        postgres_conn_id="postgres_default",
        server="main",  # the series are main/<database> and main/@globals, the sets main/@sets/<id>
        repository=LOCAL,
        upload_to=REMOTE,
        init_repository="{{ params.init }}",
        exclude=["scratch_*"],
        max_active_tis_per_dagrun=2,  # databases dumped at once; or pool="…", a pool for the server
        # discover={"retries": 5},
    )
