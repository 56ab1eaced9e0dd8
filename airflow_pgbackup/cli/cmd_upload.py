"""``pgbackup upload``: copy a backup, or many, to another repository."""

from __future__ import annotations

from airflow_pgbackup.backup.bulk import upload_all
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.cli.arguments import (
    backup_argument,
    minimum_level_argument,
    repository_argument,
    repository_at,
    series_argument,
)
from airflow_pgbackup.cli.bulk_results import one_or_all, show_results
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    minimum_level = minimum_level_argument(session)
    if one_or_all(session):
        _run_all(session, minimum_level)
        return
    repository, evidence, manifest = backup_argument(session, minimum_level=minimum_level)
    destination = repository_at(session, session.arguments.destination)
    with session.working(f"uploading {manifest.artifact.name}", makes=True):
        reference = upload(
            reference=reference_of(repository, evidence),
            source=repository,
            destination=destination,
            minimum_level=minimum_level,
            context=session.context,
        )
    session.result(reference, f"{reference['series']} {reference['id']} is in {destination.uri}")


def _run_all(session: Session, minimum_level: str | None) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    destination = repository_at(session, arguments.destination)
    results = upload_all(
        source=repository,
        destination=destination,
        minimum_level=minimum_level,
        newest=arguments.newest,
        server=arguments.server,
        series=series_argument(session),
        context=session.context,
    )
    show_results(
        session,
        f"uploading backups to {destination.uri}",
        results,
        "uploaded",
        {"repository": repository.uri, "destination": destination.uri},
    )
