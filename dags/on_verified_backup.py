"""Starts whenever a backup of the database ``dvdrental`` has been verified, and never on an unverified one.

The backup can come from any DAG: its verify task emits an event of this asset (docs/guides/assets.md). Replace the task
below with a copy to a second site, the refresh of a staging database, or a report.

Set the server and the database: the server is the connection id of the dump task, or its ``server``.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task

from airflow_pgbackup.assets import backup_asset

SERVER = os.environ.get("PGBACKUP_SERVER", "dvdrental")
DATABASE = os.environ.get("PGBACKUP_DATABASE", "dvdrental")
BACKUP = backup_asset(SERVER, DATABASE, level="archive")

with DAG(
    dag_id="on_verified_backup",
    schedule=BACKUP,
    catchup=False,
    tags=["backup"],
    doc_md=__doc__,
):

    @task
    def use(triggering_asset_events: Any = None) -> list[str]:
        """Return the artifacts of the backups that started this run: several if they were verified at once."""
        backups = [event.extra["backup"] for event in triggering_asset_events[BACKUP]]
        return [f"{backup['repository']}/{backup['key']}" for backup in backups]

    use()
