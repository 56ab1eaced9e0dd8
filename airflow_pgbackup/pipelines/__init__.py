"""Task groups for the usual pipelines: one database, or all databases of a server.

.. code-block:: python

    pg_backup.override(group_id="dvdrental")(
        postgres_conn_id="dvdrental", repository="file:///var/backups/pg", upload_to="s3://backups/pg"
    )
    pg_backup.partial(repository="s3://backups/pg").expand(database=["app", "billing"])  # one pipeline per database
    pg_cluster_backup(postgres_conn_id="main", repository="s3://backups/pg")  # all databases, found when it runs
    pg_refresh(postgres_conn_id="staging")  # staging, from the verified backup whose asset event started the run
"""

from __future__ import annotations

from airflow_pgbackup.pipelines.cluster import pg_cluster_backup
from airflow_pgbackup.pipelines.database import pg_backup
from airflow_pgbackup.pipelines.fleet import pgbackup_dags
from airflow_pgbackup.pipelines.staging import pg_refresh

__all__ = ["pg_backup", "pg_cluster_backup", "pg_refresh", "pgbackup_dags"]
