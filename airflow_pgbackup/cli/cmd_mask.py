"""``pgbackup mask``: write a first file of masking rules, or check one against a database."""

from __future__ import annotations

from pathlib import Path

from airflow_pgbackup.backup.mask import check_rules, propose_rules
from airflow_pgbackup.backup.masking import load_rules
from airflow_pgbackup.cli.arguments import connection_argument
from airflow_pgbackup.cli.output_file import output_file, replace_file
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.wording import database


def run(session: Session) -> None:
    if session.arguments.action == "init":
        _init(session)
    else:
        _check(session)


def _init(session: Session) -> None:
    output = output_file(session.arguments.file, "FILE")
    if output is not None and output.exists():
        raise ConfigurationError(f"{output} exists already", hint="Name another file; yours may hold your decisions.")
    connection = _connection(session)
    with session.working(f"reading {connection.label}"):
        text = propose_rules(connection=connection, context=session.context)
    document = {"output": None if output is None else str(output), "rules": text}
    if output is not None:
        replace_file(output, text.encode())
        session.result(document, f"wrote {output}; read every line of it")
    elif session.arguments.json:
        session.result(document)
    else:
        session.out.write(text.rstrip("\n"))


def _connection(session: Session) -> ConnectionParams:
    connection = connection_argument(session)
    if not connection.dbname:  # libpq's default is the user's name
        raise ConfigurationError(f"no database given for {connection.label}", hint=f"Set {database()}.")
    return connection


def _check(session: Session) -> None:
    if session.arguments.file is None:
        raise ConfigurationError("no file of rules given", hint="Name it: pgbackup mask check masking.yaml.")
    rules = load_rules(Path(session.arguments.file))
    connection = _connection(session)
    with session.working(f"checking {connection.label}"):
        report = check_rules(connection=connection, rules=rules, context=session.context)
    if report.problems or report.personal:
        session.status = EXIT_STATUS["check failed"]
    lines = [*(f"error: {each}" for each in report.problems), *(f"warning: {each}" for each in report.personal)]
    session.result(report.as_json(), *(lines or [f"no problems found; {counted(report.masked, 'column')} masked"]))
