"""``pgbackup rewrap``: encrypt a backup, or many, to other recipients."""

from __future__ import annotations

from airflow_pgbackup.backup.bulk import rewrap_all
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.rewrap import rewrap
from airflow_pgbackup.cli.arguments import backup_argument, repository_argument, series_argument
from airflow_pgbackup.cli.bulk_results import one_or_all, show_results
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    arguments = session.arguments
    if one_or_all(session):
        repository = repository_argument(session)
        results = rewrap_all(
            repository=repository,
            newest=arguments.newest,
            server=arguments.server,
            series=series_argument(session),
            context=session.context,
        )
        show_results(
            session, f"rewrapping backups of {repository.uri}", results, "rewrapped", {"repository": repository.uri}
        )
        return
    repository, evidence, manifest = backup_argument(session)
    with session.working(f"rewrapping {manifest.artifact.name}", makes=True):
        reference = rewrap(reference=reference_of(repository, evidence), repository=repository, context=session.context)
    done = f"{reference['series']} {reference['id']} is encrypted to the recipients"
    session.result(reference, done if reference["id"] == manifest.id else f"{done}; {manifest.id} stays until pruned")
