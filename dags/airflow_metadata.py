"""Every night: back up Airflow's own metadata database: connections, variables, pools, users, and the history of runs.

Connections: ``airflow_metadata``, of type *Postgres*, to the database of ``[database] sql_alchemy_conn``, with a role
that only reads (``pg_read_all_data``); and ``aws_default``. Give both by environment variables or a secrets backend: a
connection in the database is lost with it. Trigger the first run manually with the parameter ``init``, which creates
the repository.

Passwords and variables are in the dump as Airflow encrypted them: without the Fernet key they cannot be read. Keep the
key, and the version of Airflow, somewhere else than in this repository. Never run this while ``airflow db migrate``
runs: pause it, and trigger it by hand before. docs/guides/airflow-metadata.md has the reasons, and the restore.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_pgbackup.pipelines import pg_backup

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

# Rows that Airflow makes anew, that a restored Airflow must not have, or that nobody needs after a disaster. No foreign
# key refers to them, so the other tables restore without them.
NOT_NEEDED = [
    "*.rendered_task_instance_fields",  # what the page of a task shows
    "*.job",  # heartbeats of schedulers and triggerers that no longer run
    "*.session",  # logins in the browser (FAB auth manager)
    "*.import_error",
    "*.dag_priority_parsing_request",
    "*.connection_test_request",
    # "*.log",  # the audit log: often the largest table. Leave it out if your rules allow it.
]

with DAG(
    dag_id="airflow_metadata",
    schedule="15 1 * * *",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    params={"init": Param(False, type="boolean", description="create the repository: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    pg_backup(
        postgres_conn_id="airflow_metadata",
        server="airflow",  # the series is airflow/<name of the database>
        repository=REMOTE,
        exclude_table_data=NOT_NEEDED,
        init_repository="{{ params.init }}",
    )
