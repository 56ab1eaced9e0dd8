"""``pgbackup init``: create a repository."""

from __future__ import annotations

from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    repository = repository_argument(session)
    uuid = repository.init()
    session.result(
        {"repository": repository.uri, "uuid": uuid}, f"created repository {repository.uri} with UUID {uuid}"
    )
