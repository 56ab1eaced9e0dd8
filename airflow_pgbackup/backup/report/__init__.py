"""report: what was verified in the last days, as text, HTML for mail, and a picture."""

from __future__ import annotations

from airflow_pgbackup.backup.report.collect import Report as Report
from airflow_pgbackup.backup.report.collect import report as report
from airflow_pgbackup.backup.report.page import as_html as as_html
from airflow_pgbackup.backup.report.page import as_text as as_text
