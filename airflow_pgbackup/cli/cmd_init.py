"""``pgbackup init``: create a repository."""

from __future__ import annotations

from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import RepositoryNotFound


def run(session: Session) -> None:
    repository = repository_argument(session)
    try:
        uuid, created = repository.uuid, False
    except RepositoryNotFound:
        uuid, created = repository.init(), True
    shown = f"created repository {repository.uri} with UUID {uuid}"
    if not created:
        shown = f"repository {repository.uri} exists already, with UUID {uuid}; nothing was changed"
    session.result({"repository": repository.uri, "uuid": uuid, "created": created}, shown)
