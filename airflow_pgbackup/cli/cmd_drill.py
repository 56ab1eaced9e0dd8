"""``pgbackup drill``: rehearse the newest backup of each series whose turn it is."""

from __future__ import annotations

from airflow_pgbackup.backup.bulk import drill
from airflow_pgbackup.cli.arguments import connection_argument, repository_argument, size_argument
from airflow_pgbackup.cli.bulk_results import show_results
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    repository = repository_argument(session)
    max_bytes = size_argument("--max-size", session.arguments.max_size)
    results = drill(
        repository=repository,
        max_bytes=max_bytes,
        scratch=connection_argument(session) if session.arguments.scratch else None,
        context=session.context,
    )
    show_results(
        session,
        f"rehearsing backups of {repository.uri}",
        results,
        "verified",
        {"repository": repository.uri, "level": "restore"},
    )
