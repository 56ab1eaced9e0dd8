"""Every week: definitions without data: the schema of one database, and the server's roles and tablespaces.

Small files for reference, for comparing two weeks, or for creating an empty copy. Each is a separate series:
``definitions/dvdrental``, ``dvdrental/@roles`` and ``dvdrental/@tablespaces``.

Connections: ``dvdrental`` and ``aws_default``. Trigger the first run manually with the parameter ``init``, which
creates the repository.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from airflow_pgbackup.operators.dump import PgDumpAllOperator, PgDumpOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

with DAG(
    dag_id="definitions_weekly",
    schedule="0 4 * * 0",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "postgres_conn_id": "dvdrental", "repository": REMOTE},
    params={"init": Param(False, type="boolean", description="create the repository: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    dumps = [
        # pg_dump --schema-only, as an SQL script
        PgDumpOperator(
            task_id="schema",
            server="definitions",
            artifact_template="{database}_schema_{date}",
            format="plain",
            schema_only=True,
            init_repository="{{ params.init }}",
        ),
        # pg_dumpall --roles-only
        PgDumpAllOperator(
            task_id="roles",
            roles_only=True,
            passwords_if_allowed=True,  # without them, if this role may not read them
            init_repository="{{ params.init }}",
        ),
        # pg_dumpall --tablespaces-only
        PgDumpAllOperator(
            task_id="tablespaces",
            tablespaces_only=True,
            init_repository="{{ params.init }}",
        ),
    ]
    for dump in dumps:
        PgBackupVerifyOperator(task_id=f"verify_{dump.task_id}", backup=dump.output)
