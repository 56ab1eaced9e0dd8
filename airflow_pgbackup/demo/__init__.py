"""The demo: a real database, backed up, verified and restored by a real Airflow. ``make demo``, ``pgbackup demo``."""

from airflow_pgbackup.demo.flow import run

__all__ = ["run"]
