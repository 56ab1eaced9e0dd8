"""Refresh a database from a verified backup."""

from airflow_pgbackup.backup.refresh.run import refresh

__all__ = ["refresh"]
