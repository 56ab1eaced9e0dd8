"""``pgbackup verify``: verify a backup, or many, and record the result beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.bulk import verify_all
from airflow_pgbackup.backup.choose_backup import parse_series
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.sql_checks import SqlCheck, parse_checks
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.arguments import backup_to_verify_argument, connection_argument, repository_argument
from airflow_pgbackup.cli.bulk_results import one_or_all, show_results
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError, MappingError
from airflow_pgbackup.repository.layout import check_level


def run(session: Session) -> None:
    arguments = session.arguments
    check_level(arguments.level, "--level", required=True)
    checks = checks_argument(session)
    if one_or_all(session):
        if checks:
            raise ConfigurationError("SQL checks are of one database", hint="Omit --all, or --check and --checks.")
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


def checks_argument(session: Session) -> tuple[SqlCheck, ...]:
    """Return the checks of ``--check`` and ``--checks``.

    :raises ConfigurationError: one is not a check, or the file cannot be read.
    """
    given: list[Any] = []
    for text in session.arguments.check:
        name, equals, sql = text.partition("=")
        if not equals or not name.strip() or not sql.strip():
            raise ConfigurationError(f"invalid --check {text[:200]!r}", hint="Write --check 'NAME=SELECT ...'.")
        given.append({"name": name.strip(), "sql": sql})
    if file := session.arguments.checks:
        from airflow_pgbackup.yaml_mapping.yaml_file import read_yaml  # yaml is of no use to other commands

        content, _ = read_yaml(Path(file), MappingError)
        if not (isinstance(content, dict) and set(content) == {"checks"} and isinstance(content["checks"], list)):
            raise ConfigurationError(
                f"{file} does not hold a list of checks",
                hint="Begin with 'checks:', then for each '- name: …' and 'sql: …'.",
            )
        given += content["checks"]
    return parse_checks(given)


def _run_all(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    results = verify_all(
        repository=repository,
        level=arguments.level,
        newest=arguments.newest,
        server=arguments.server,
        series=[parse_series(arguments.series)] if arguments.series else None,
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
