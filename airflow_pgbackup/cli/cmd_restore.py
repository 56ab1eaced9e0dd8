"""``pgbackup restore``: restore a backup into a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_pgbackup.backup.choose_backup import parse_series
from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.cli.arguments import backup_argument, connection_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.postgres.options import RestoreOptions


def run(session: Session) -> None:
    arguments = session.arguments
    repository, evidence, manifest = backup_argument(session)
    connection = connection_argument(session)
    if not arguments.dbname and not connection.dbname and manifest.series.database:
        connection = connection.with_database(manifest.series.database)
    with session.working(f"restoring {manifest.artifact.name}"):
        outcome = restore(
            reference=reference_of(repository, evidence),
            repository=repository,
            kind=parse_series(arguments.series).kind,
            target=RestoreTarget(connection=connection, mode=arguments.mode),
            options=RestoreOptions(
                jobs=arguments.jobs, no_owner=arguments.no_owner, no_privileges=arguments.no_privileges
            ),
            dry_run=arguments.dry_run,
            # The plan of a dry run is its result; the log would print it twice.
            context=replace(session.context, log=discard) if arguments.dry_run else session.context,
        )
    session.result(outcome, *_lines(outcome))


def _lines(outcome: Mapping[str, Any]) -> list[str]:
    """What happened, and what to do next."""
    if outcome["dry_run"]:
        return ["this would be done:", *outcome["plan"]]
    lines = [
        f"restored into {outcome['target']} in {outcome['duration_seconds']:.1f} s",
        *(f"warning: {line}" for line in outcome["warnings"]),
    ]
    if outcome["database"] is None:
        lines.append(f"roles created: {', '.join(outcome['roles_created']) or 'none'}")
    if outcome["replaced"]:
        lines.append(f"the old database is kept as {outcome['replaced']}: drop it when you no longer need it")
    lines.append("next: connect an application and check the data; then make the next backup, and verify it")
    return lines
