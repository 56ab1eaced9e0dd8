"""What the tests of rehearsals on a scratch server share."""

from __future__ import annotations

from typing import Any

from contexts import in_context

from airflow_pgbackup.backup.rehearsal.comparison import Rehearsal
from airflow_pgbackup.backup.rehearsal.run import rehearse
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.manifest import Manifest


def rehearse_on(scratch: ConnectionParams | None, manifest: Manifest, repository: Repository, **more: Any) -> Rehearsal:
    """Rehearse a backup in a local repository with the client of version 18."""
    artifact = repository.local_path(manifest.artifact_key)
    assert artifact is not None
    reader = Client(postgres_bin_dir(18), (18, 4), "test")
    return rehearse(artifact, manifest, reader=reader, scratch=scratch, **in_context({"deadline": 600, **more}))
