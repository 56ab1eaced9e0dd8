"""``pgbackup demo``: run the demo."""

from __future__ import annotations

from pathlib import Path

from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError


def run(session: Session) -> None:
    try:
        from airflow_pgbackup.demo.flow import run as run_demo
    except ImportError as error:
        raise ConfigurationError(
            f"cannot import {error.name}, which the demo needs", hint="Run pip install 'airflow-pgbackup[demo]'."
        ) from None
    session.status = run_demo(dump=Path(session.arguments.dump) if session.arguments.dump else None)
