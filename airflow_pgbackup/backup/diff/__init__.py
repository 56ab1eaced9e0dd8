"""Compare two backups without reading their data."""

from airflow_pgbackup.backup.diff.run import diff, last_two

__all__ = ["diff", "last_two"]
