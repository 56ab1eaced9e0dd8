"""``pgbackup check``: find what would prevent or compromise a backup."""

from __future__ import annotations

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.cli.arguments import connection_argument, repository_argument, server_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS


def run(session: Session) -> None:
    connection = connection_argument(session)
    repository = None if session.arguments.repository is None else repository_argument(session)
    with session.working(f"checking {connection.label}"):
        findings = check(
            connection=connection,
            server=server_argument(session),
            repository=repository,
            scan_rows=session.arguments.scan_rows,
            context=session.context,
        )
    if any(finding.severity == "error" for finding in findings):
        session.status = EXIT_STATUS["check failed"]
    lines = [str(finding) for finding in findings]
    session.result([finding.as_json() for finding in findings], *(lines or ["no problems found"]))
