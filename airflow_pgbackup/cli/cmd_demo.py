"""``pgbackup demo``: run the demo."""

from __future__ import annotations

from pathlib import Path

from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError, PgBackupError


def run(session: Session) -> None:
    try:
        from airflow_pgbackup.demo.flow import demonstrate
    except ImportError as error:
        raise ConfigurationError(
            f"cannot import {error.name}, which the demo needs", hint="Run pip install 'airflow-pgbackup[demo]'."
        ) from None
    arguments = session.arguments
    try:
        outcome = demonstrate(
            Path(arguments.dump) if arguments.dump else None, session.err if arguments.json else session.out
        )
    except PgBackupError as error:
        error.message, *log = error.message.split("\n")
        for line in log:
            session.log(line)
        raise
    if arguments.json:
        session.result(outcome.as_json())
