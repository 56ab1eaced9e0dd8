"""Whom fleet.yaml notifies, once for each run that failed. Any notifier of a provider will do, made here with its
arguments: ``page = SlackNotifier(slack_conn_id="slack", text="{{ dag.dag_id }} failed")``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def mail(context: Mapping[str, Any]) -> None:
    """Send mail to those who look after backups; SmtpNotifier of apache-airflow-providers-smtp does it."""
    log.warning("would send mail: run %s of %s", context["run_id"], context["dag"].dag_id)


def page(context: Mapping[str, Any]) -> None:
    """Wake somebody."""
    log.warning("would page: run %s of %s", context["run_id"], context["dag"].dag_id)
