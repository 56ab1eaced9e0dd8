"""Every night: all databases of a server, with its roles and tablespaces, with pg_dumpall.

Connections: ``postgres_default`` (a superuser; managed servers have none, see below) and ``aws_default``.
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
    # One file holds everything. It is not one snapshot: pg_dumpall dumps the databases one after the other.
    pg_cluster_backup(
        postgres_conn_id="postgres_default",
        server="main",  # the series is main/@cluster
        repository=LOCAL,
        upload_to=REMOTE,
        compress="gzip",  # pg_dumpall itself does not compress
        init_repository="{{ params.init }}",
        # no_role_passwords=True,           # for RDS, Cloud SQL and others that hide them
        # exclude_databases=["rdsadmin"],
    )
