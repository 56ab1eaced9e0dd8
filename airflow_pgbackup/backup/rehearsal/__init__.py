"""Restore a backup into a throwaway server and compare what comes back with what was dumped."""

from airflow_pgbackup.backup.rehearsal.run import rehearse

__all__ = ["rehearse"]
