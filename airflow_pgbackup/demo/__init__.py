"""The demo: a real Airflow backs up, verifies and restores a real database. ``make demo``, ``pgbackup demo``."""

from airflow_pgbackup.demo.flow import run

__all__ = ["run"]
