"""Check a repository's structure without reading its artifacts, and remove what is safe to remove."""

from airflow_pgbackup.backup.fsck.run import fsck

__all__ = ["fsck"]
