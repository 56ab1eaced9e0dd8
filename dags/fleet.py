"""The backups of all servers in fleet.yaml, each server with a DAG of its own.

Connections: one of type *Postgres* for each server, ``aws_default``, and ``other_account`` for the copies. Trigger the
first run of each DAG manually with the parameter ``init``, which creates the repositories.
"""

from __future__ import annotations

from airflow_pgbackup.pipelines import pgbackup_dags

pgbackup_dags("fleet.yaml")
