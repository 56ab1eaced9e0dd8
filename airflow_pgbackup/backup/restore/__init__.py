"""Restore a backup into a server."""

from airflow_pgbackup.backup.restore.run import GlobalsBackup, restore

__all__ = ["GlobalsBackup", "restore"]
