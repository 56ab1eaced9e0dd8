"""Restore a backup into a throwaway server, and compare the copy with the dump."""

from airflow_pgbackup.backup.rehearsal.run import rehearse

__all__ = ["rehearse"]
