"""Whom fleet.yaml notifies, once for each run that failed: by mail, and by a message to a Slack channel.

Install ``apache-airflow-providers-smtp`` and ``apache-airflow-providers-slack``. Connections: ``smtp_default``, and
``slack_default`` of type *Slack Incoming Webhook*; Airflow reads them in its DAG processor. Any other notifier works
the same way. They are imported when they are used, so that the DAG file loads without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_pgbackup.notifications.failure import FailureAlert


def mail(context: Mapping[str, Any]) -> None:
    """Send mail to those who look after backups."""
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    notifier = SmtpNotifier(
        to="dba@example.com",
        from_email="airflow@example.com",
        subject="{{ pgbackup.subject }}",
        html_content="{{ pgbackup.html }}",
    )
    FailureAlert(notifier)(context)


def page(context: Mapping[str, Any]) -> None:
    """Post to the channel of those who are on call."""
    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    notifier = SlackWebhookNotifier(slack_webhook_conn_id="slack_default", text="{{ pgbackup.slack }}")
    FailureAlert(notifier)(context)
