"""When a backup fails: mail and a Slack message with the cause, what to do, and how old the last verified backup is.

Install ``apache-airflow-providers-smtp`` and ``apache-airflow-providers-slack``. Any other notifier works the same way.

Connections: ``dvdrental`` of type *Postgres*; ``smtp_default``; ``slack_default`` of type *Slack Incoming Webhook*.
Trigger the first run manually with the parameter ``init``, which creates the repository.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Param

from airflow_pgbackup.notifications.failure import FailureAlert
from airflow_pgbackup.pipelines import pg_backup

MAIL = FailureAlert(
    SmtpNotifier(
        to="dba@example.com",
        from_email="airflow@example.com",
        subject="{{ pgbackup.subject }}",
        html_content="{{ pgbackup.html }}",
    )
)
CHAT = FailureAlert(SlackWebhookNotifier(slack_webhook_conn_id="slack_default", text="{{ pgbackup.slack }}"))

with DAG(
    dag_id="alert_on_failure",
    schedule="0 2 * * *",  # UTC
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=10),
        "on_failure_callback": [MAIL, CHAT],  # of each task, after its last try
    },
    params={"init": Param(False, type="boolean", description="create the repository: for the first run only")},
    tags=["backup"],
    doc_md=__doc__,
):
    pg_backup(
        postgres_conn_id="dvdrental",
        repository=os.environ.get("PGBACKUP_LOCAL", "file:///var/backups/pg"),
        init_repository="{{ params.init }}",
    )
