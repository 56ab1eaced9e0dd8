"""Find what would prevent or compromise a backup, before it runs."""

from airflow_pgbackup.backup.check.run import check

__all__ = ["check"]
