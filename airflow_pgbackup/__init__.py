"""PostgreSQL logical backups on an Airflow schedule, proven restorable before they count."""

__version__ = "0.1.0"
