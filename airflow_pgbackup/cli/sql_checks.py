"""The SQL checks of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.sql_checks import SqlCheck, parse_checks
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError, MappingError
from airflow_pgbackup.not_empty import not_empty


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
    if (file := not_empty("checks", session.arguments.checks)) is not None:
        from airflow_pgbackup.yaml_mapping.yaml_file import read_yaml  # yaml is of no use to other commands

        content, _ = read_yaml(Path(file), MappingError)
        if not (isinstance(content, dict) and set(content) == {"checks"} and isinstance(content["checks"], list)):
            raise ConfigurationError(
                f"{file} does not hold a list of checks",
                hint="Begin with 'checks:', then for each '- name: …' and 'sql: …'.",
            )
        try:
            given += parse_checks(content["checks"])
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error.message}", hint=error.hint) from None
    return parse_checks(given)
