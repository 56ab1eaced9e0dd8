"""metrics: what a repository proves about its series, as gauges for Prometheus."""

from __future__ import annotations

from airflow_pgbackup.backup.metrics.collect import metrics as metrics
from airflow_pgbackup.backup.metrics.exposition import Family as Family
from airflow_pgbackup.backup.metrics.exposition import render as render
