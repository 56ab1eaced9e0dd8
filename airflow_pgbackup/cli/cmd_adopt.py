"""``pgbackup adopt``: make backups of a directory of existing dumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    arguments = session.arguments
    with session.working(f"reading {arguments.directory}"):
        outcome: Any = adopt(
            repository=repository_argument(session),
            directory=Path(arguments.directory),
            server=arguments.server,
            database=arguments.database,
            time_zone=arguments.time_zone,
            dry_run=arguments.dry_run,
            context=session.context,
        )
    lines = [f"{one['path']}: {one['series']} {one['id']}, {one['format']}" for one in outcome["found"]]
    lines += [f"{one['path']}: skipped: {one['reason']}" for one in outcome["skipped"]]
    next_ = "next: verify them with pgbackup verify" if outcome["adopted"] else "nothing was adopted"
    session.result(outcome, *lines, next_)
