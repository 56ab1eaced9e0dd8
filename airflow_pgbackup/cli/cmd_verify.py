"""``pgbackup verify``: verify a backup and record the result beside it."""

from __future__ import annotations

from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.arguments import backup_to_verify_argument, connection_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.repository.layout import check_level


def run(session: Session) -> None:
    level = session.arguments.level
    check_level(level, "--level", required=True)
    repository, evidence, manifest = backup_to_verify_argument(session)
    with session.working(f"verifying {manifest.artifact.name}"):
        reference = verify(
            reference=reference_of(repository, evidence),
            repository=repository,
            level=level,
            scratch=connection_argument(session) if session.arguments.scratch else None,
            context=session.context,
        )
    session.result(reference, f"{reference['series']} {reference['id']} is verified at level {reference['verified']}")
