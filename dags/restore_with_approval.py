"""Manually: restore a backup, after a person has read the plan and approved it.

Trigger it with one of the series allowed below and the id of the backup; by default, the newest verified one.
``plan`` reads the complete backup, compares it with its digests, checks the target, and reports what would be done and
lost; nothing is changed. Then the run waits for one of the approvers, in Airflow's *Required actions*. ``restore``
restores the planned backup into a new database, which takes the old one's place in one transaction. The old database is
kept under a dated name.

Whoever triggers the run chooses only the backup: the DAG's author sets the repository, the series that may be restored,
the target and the mode. ``restore`` checks the approval itself, so marking the task as successful approves nothing.
An approval does not expire: whoever clears ``restore`` later restores the same backup again without another one.

Connections: ``dvdrental``, the server and database to restore into, whose user may create databases; ``aws_default``.
``response_timeout`` needs apache-airflow-providers-standard 1.12.3 or later.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from airflow_pgbackup.operators.restore import PgRestoreOperator

REMOTE = os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")
AWS_CONN_ID = os.environ.get("PGBACKUP_REMOTE_AWS_CONN_ID", "aws_default")
SERIES = os.environ.get("PGBACKUP_RESTORABLE", "dvdrental/dvdrental").split(",")
# User ids in Airflow: names for the simple auth manager, numbers for FAB's. If the list is empty, everybody who may
# answer required actions of this DAG may approve.
APPROVERS = os.environ.get("PGBACKUP_APPROVERS", "admin").split(",")
MODE = "replace"

# Four spaces make it a code block in Markdown, which shows names unchanged.
BODY = """
**Restore {{ params.series }}?** Triggered by {{ dag_run.triggering_user_name or "an unnamed user" }}.

    {{ ti.xcom_pull(task_ids="plan", key="backup") }} would be restored:
{% for line in ti.xcom_pull(task_ids="plan", key="about") %}
    - {{ line }}
{%- endfor %}
{% for line in ti.xcom_pull(task_ids="plan", key="loss") %}
    - now: {{ line }}
{%- endfor %}
{% for line in ti.xcom_pull(task_ids="plan", key="plan") %}
    - {{ line }}
{%- endfor %}
{% for line in ti.xcom_pull(task_ids="plan", key="warnings") %}
    - warning: {{ line }}
{%- endfor %}
"""
GIVEN = "(ti.xcom_pull(task_ids='approve') or {}).get('chosen_options') == ['Approve']"
APPROVED = f"{{{{ '{MODE}' if {GIVEN} else 'not approved' }}}}"

with DAG(
    dag_id="restore_with_approval",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two restores into one database would replace each other
    params={
        # One value: the Backups page passes the repository that it shows, and another one must be refused.
        "repository": Param(REMOTE, enum=[REMOTE]),
        "aws_conn_id": Param(AWS_CONN_ID, enum=[AWS_CONN_ID]),
        "series": Param(SERIES[0], enum=SERIES, description="server/database, as in the repository"),
        "backup_id": Param(
            "latest",
            type="string",
            pattern="^(latest|[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})$",
            description="latest: the newest verified backup",
        ),
    },
    tags=["restore"],
    doc_md=__doc__,
):
    plan = PgRestoreOperator(
        task_id="plan",
        repository="{{ params.repository }}",
        series="{{ params.series }}",
        backup_id="{{ params.backup_id }}",
        aws_conn_id="{{ params.aws_conn_id }}",
        postgres_conn_id="dvdrental",
        mode=MODE,
        # jobs=4,  # here and below, if the backups are in custom or directory format
        plan_only=True,
        multiple_outputs=True,
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Restore {{ params.series }} into {{ ti.xcom_pull(task_ids='plan', key='target') }}?",
        body=BODY,
        assigned_users=[{"id": user, "name": user} for user in APPROVERS],
        response_timeout=timedelta(hours=12),  # without an answer the run fails, and nothing was changed
    )
    restore = PgRestoreOperator(
        task_id="restore",
        backup=plan.output["reference"],
        aws_conn_id="{{ params.aws_conn_id }}",
        postgres_conn_id="dvdrental",
        mode=APPROVED,
    )
    plan >> approve >> restore
