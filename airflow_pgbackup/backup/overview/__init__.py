"""overview: which databases could be restored now, and to which point; what the Backups page and the report show."""

from __future__ import annotations

from airflow_pgbackup.backup.overview.collect import overview as overview
from airflow_pgbackup.backup.overview.model import BackupFacts as BackupFacts
from airflow_pgbackup.backup.overview.model import Overview as Overview
from airflow_pgbackup.backup.overview.model import SeriesStatus as SeriesStatus
from airflow_pgbackup.backup.overview.model import SetStatus as SetStatus
from airflow_pgbackup.backup.overview.one_backup import BackupDetail as BackupDetail
from airflow_pgbackup.backup.overview.one_backup import backup_detail as backup_detail
from airflow_pgbackup.backup.overview.one_series import SeriesDetail as SeriesDetail
from airflow_pgbackup.backup.overview.one_series import series_detail as series_detail
from airflow_pgbackup.backup.overview.targets import Target as Target
from airflow_pgbackup.backup.overview.targets import Targets as Targets
