"""Restore a backup into a server."""

from airflow_pgbackup.backup.restore.run import restore

__all__ = ["restore"]
