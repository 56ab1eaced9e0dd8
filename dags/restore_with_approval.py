"""By hand: bring a backup back, after somebody has read what that means and agreed.

Trigger it with the series and, unless it is the newest verified one, the id of the backup. ``plan`` reads the whole
backup, holds it against its digests, looks at the target, and says what would be done; nothing is changed. Then the
run waits for a person, in Airflow's *Required actions*. ``restore`` brings back the very backup that was planned: into
a new database that takes the old one's place in one transaction. The old one is kept under a dated name.

Connections: ``dvdrental``, the server and database to restore into, whose user may create databases; ``aws_default``.
``response_timeout`` is known to apache-airflow-providers-standard 1.12.3 and later.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from airflow_pgbackup.operators.restore import PgRestoreOperator

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")

BODY = """
**{{ ti.xcom_pull(task_ids="plan", key="backup") }}** would be restored:

{% for line in ti.xcom_pull(task_ids="plan", key="plan") -%}
- {{ line }}
{% endfor %}
{% for line in ti.xcom_pull(task_ids="plan", key="warnings") -%}
- **warning:** {{ line }}
{% endfor %}
"""

with DAG(
    dag_id="restore_with_approval",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two restores into one database would take each other's place
    params={
        "series": Param("dvdrental/dvdrental", type="string", description="server/database, as in the repository"),
        "backup_id": Param("latest", type="string", description="latest: the newest that is verified"),
        "mode": Param("replace", enum=["replace", "create", "into_empty"], description="docs/restore.md has each"),
        "database": Param(None, type=["null", "string"], description="instead of the connection's own"),
    },
    tags=["restore"],
    doc_md=__doc__,
):
    to = {
        "postgres_conn_id": "dvdrental",
        # an empty name is none: the connection's own
        "database": "{{ params.database or '' }}",
        "mode": "{{ params.mode }}",
        "jobs": 2,
    }
    plan = PgRestoreOperator(
        task_id="plan",
        repository=REMOTE,
        series="{{ params.series }}",
        backup_id="{{ params.backup_id }}",
        plan_only=True,
        multiple_outputs=True,
        **to,
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Restore {{ params.series }} into {{ ti.xcom_pull(task_ids='plan', key='target') }}?",
        body=BODY,
        response_timeout=timedelta(hours=12),  # nobody answered: the run fails, and nothing was touched
    )
    restore = PgRestoreOperator(task_id="restore", backup=plan.output["reference"], **to)
    plan >> approve >> restore
