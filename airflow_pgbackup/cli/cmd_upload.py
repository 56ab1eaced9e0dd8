"""``pgbackup upload``: copy a backup to another repository."""

from __future__ import annotations

from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.cli.arguments import backup_argument, minimum_level_argument, repository_at
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    minimum_level = minimum_level_argument(session)
    repository, evidence, manifest = backup_argument(session, minimum_level=minimum_level)
    destination = repository_at(session, session.arguments.destination)
    with session.working(f"uploading {manifest.artifact.name}"):
        reference = upload(
            reference=reference_of(repository, evidence),
            source=repository,
            destination=destination,
            minimum_level=minimum_level,
            context=session.context,
        )
    session.result(reference, f"{reference['series']} {reference['id']} is in {destination.uri}")
