"""Every Monday: a mail with the state of the backups in the last week.

Needs ``apache-airflow-providers-smtp`` with a connection ``smtp_default`` that has ``from_email`` in its extra, and for
the attached picture ``airflow-pgbackup[report]``.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_pgbackup.operators.report import PgBackupReportOperator

REPOSITORIES = [os.environ.get("PGBACKUP_REMOTE", "s3://my-backups/pg")]

with DAG(dag_id="backup_report", schedule="0 7 * * 1", catchup=False, tags=["backup"], doc_md=__doc__):
    PgBackupReportOperator(
        task_id="report",
        repositories=REPOSITORIES,
        days=7,
        to=[os.environ.get("PGBACKUP_REPORT_TO", "dba@example.com")],
        picture=True,
    )
