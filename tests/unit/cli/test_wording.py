"""Errors and hints write what a user can change as the program that is running does."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import airflow_pgbackup
from airflow_pgbackup import wording
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget, database_name
from airflow_pgbackup.cli.airflow_program import AirflowProgram
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.program import Program
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.settings import load
from airflow_pgbackup.wording import Wording, parameter, setting, spoken, store

PACKAGE = Path(airflow_pgbackup.__file__).parent
CONNECTION = ConnectionParams.resolve({"host": "h", "dbname": "app", "user": "u", "port": "1"})


def of(program: Program, command: str, **arguments: object) -> Wording:
    (found,) = [one for one in COMMANDS if one.name == command]
    return program.wording(found, argparse.Namespace(**arguments))


@pytest.mark.parametrize(
    ("command", "action", "in_python", "on_the_command_line"),
    [
        (
            "restore",
            lambda: RestoreTarget(connection=CONNECTION, mode="create", into_schema="s").validate(),
            "into_schema cannot be combined with mode create. HINT: Use mode into_existing: ",
            "--into-schema cannot be combined with --mode create. HINT: Use --mode into_existing: ",
        ),
        (
            "restore",
            lambda: RestoreOptions(data_only=True, schema_only=True).validate(),
            "data_only and schema_only cannot be combined",
            "--data-only and --schema-only cannot be combined",
        ),
        (
            "dump",
            lambda: DumpOptions(data_only=True, schema_only=True).validate(),
            "data_only and schema_only cannot be combined",
            "-o data_only and -o schema_only cannot be combined",
        ),
        (
            "prune",
            lambda: Policy(keep_labels=["a"], keep_last=0),
            "Set at least one of keep_last, keep_hourly, ",
            "Set at least one of --keep-last, --keep-hourly, ",
        ),
        (
            "prune",
            lambda: Policy(keep_within=timedelta(0)),
            "invalid keep_within 0:00:00",
            "invalid --keep-within 0:00:00",
        ),
        (
            "restore-set",
            lambda: SetTarget(connection=CONNECTION, jobs_per_database=0).validate(),
            "invalid jobs_per_database 0",
            "invalid --jobs-per-database 0",
        ),
        (
            "restore-set",
            lambda: database_name("crm", "restored_" * 8),
            "PostgreSQL truncates names to 63 bytes: choose a shorter prefix.",
            "PostgreSQL truncates names to 63 bytes: choose a shorter --prefix.",
        ),
        (
            "list",
            lambda: load(environ={"PGBACKUP_VERIFY_DEADLINE": "soon"}),
            "Give [pgbackup] verify_deadline (PGBACKUP_VERIFY_DEADLINE) a number",
            "Give PGBACKUP_VERIFY_DEADLINE a number",
        ),
        (
            "list",
            lambda: open_repository("file:///no/such/directory").uuid,
            "Make a new repository with init_repository=True or 'pgbackup init'.",
            "Make a new repository with pgbackup init.",
        ),
        (
            "list",
            lambda: open_repository("s3://bucket:9000/pg"),
            "Set endpoint_url in the AWS connection.",
            "Set AWS_ENDPOINT_URL_S3.",
        ),
    ],
)
def test_an_error_in_both_languages(
    command: str, action: Callable[[], object], in_python: str, on_the_command_line: str
) -> None:
    with pytest.raises(PgBackupError) as python:
        action()
    assert in_python in str(python.value)
    with spoken(of(Program(), command)), pytest.raises(PgBackupError) as ours:
        action()
    assert on_the_command_line in str(ours.value)


def test_airflows_command_line() -> None:
    with spoken(of(AirflowProgram(), "list", aws_conn_id="store")):
        assert setting("temp_dir") == "[pgbackup] temp_dir (PGBACKUP_TEMP_DIR)"
        assert store("endpoint_url") == "endpoint_url in the AWS connection"
        with pytest.raises(PgBackupError, match="with airflow pgbackup init"):
            _ = open_repository("file:///no/such/directory").uuid
    with spoken(of(AirflowProgram(), "list", aws_conn_id=None)):
        assert store("endpoint_url") == "AWS_ENDPOINT_URL_S3"


def test_values_and_negations() -> None:
    assert (parameter("minimum_level", None), parameter("terminate_sessions", True)) == (
        "minimum_level=None",
        "terminate_sessions=True",
    )
    with spoken(of(Program(), "check")):
        assert parameter("exclude_tables") == "-o exclude_tables", "of the dump"
        assert parameter("create", True) == "-o create"
    with spoken(of(Program(), "restore-set")):
        assert parameter("databases") == "--database"
    with spoken(of(Program(), "upload")):
        assert parameter("minimum_level", None) == "--minimum-level none"
    with spoken(of(Program(), "restore")):
        assert parameter("terminate_sessions", True) == "no --keep-sessions"
        assert parameter("tables") == "--table"
        assert parameter("transaction_size") == "-o transaction_size"


_ERROR = re.compile(r"(Error|Failed|Found|Exists|Proven)$")
_FOR_ONE_PROGRAM = re.compile(
    r"\b[a-z][a-z_]*=[\w'\"(]|\[pgbackup\]|pgbackup (list|show|verify|init)|in the AWS connection"
)
# Arguments of callers in Python alone, parameters of libpq, options of PostgreSQL's programs.
_ALLOWED = (
    "=dump.output",
    "=discover.output",
    "target_session_attrs=read-write",
    "keyword=value",
    "--name=value",
    "level=",
)


def _texts() -> Iterator[tuple[str, str]]:
    """Every text of an error or a hint below the operators, without what it inserts."""
    for path in (path for room in ("postgres", "repository", "backup") for path in (PACKAGE / room).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and _ERROR.search(ast.unparse(call.func)):
                hints = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
                for part in (part for argument in (*call.args[:1], *hints) for part in ast.walk(argument)):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield f"{path.relative_to(PACKAGE)}:{part.lineno}", part.value


def test_no_error_below_the_operators_is_written_for_one_program() -> None:
    wrong = [
        f"{where}: {text}"
        for where, text in _texts()
        if _FOR_ONE_PROGRAM.search(text) and not any(one in text for one in _ALLOWED)
    ]
    assert wrong == []


def test_no_text_is_written_for_the_program_that_imported_it() -> None:
    """A module may be loaded before the wording is set, and stay loaded for another."""
    functions = {name for name, value in vars(wording).items() if inspect.isfunction(value)}
    wrong = []
    for path in (path for room in ("postgres", "repository", "backup") for path in (PACKAGE / room).rglob("*.py")):
        waiting: list[ast.AST] = [ast.parse(path.read_text())]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Call) and ast.unparse(node.func) in functions:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            waiting += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.FunctionDef | ast.Lambda)]
    assert wrong == []
