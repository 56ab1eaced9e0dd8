"""``pgbackup verify``: verify a backup, or many, and record the result beside it."""

from __future__ import annotations

from airflow_pgbackup.backup.bulk import verify_all
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.arguments import (
    backup_to_verify_argument,
    connection_argument,
    repository_argument,
    series_argument,
)
from airflow_pgbackup.cli.bulk_results import one_or_all, show_results
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.sql_checks import checks_argument
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.layout import check_level


def run(session: Session) -> None:
    arguments = session.arguments
    check_level(arguments.level, "--level", required=True)
    checks = checks_argument(session)
    if one_or_all(session):
        if checks:
            raise ConfigurationError("SQL checks need one backup", hint="Omit --all, or --check and --checks.")
        _run_all(session)
        return
    if arguments.unverified:
        raise ConfigurationError("--unverified is only for --all", hint="Add --all, or omit --unverified.")
    repository, evidence, manifest = backup_to_verify_argument(session)
    with session.working(f"verifying {manifest.artifact.name}", makes=True):
        reference = verify(
            reference=reference_of(repository, evidence),
            repository=repository,
            level=arguments.level,
            scratch=connection_argument(session) if arguments.scratch else None,
            checks=checks,
            context=session.context,
        )
    session.result(reference, f"{reference['series']} {reference['id']} is verified at level {reference['verified']}")


def _run_all(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    results = verify_all(
        repository=repository,
        level=arguments.level,
        newest=arguments.newest,
        server=arguments.server,
        series=series_argument(session),
        unverified=arguments.unverified,
        scratch=connection_argument(session) if arguments.scratch else None,
        context=session.context,
    )
    show_results(
        session,
        f"verifying backups of {repository.uri}",
        results,
        "verified",
        {"repository": repository.uri, "level": arguments.level},
    )
