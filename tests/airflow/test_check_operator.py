"""PgBackupCheckOperator in DAG runs, against real servers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

RunDag = Callable[..., Any]
IMPORT = "from airflow_pgbackup.operators.check import PgBackupCheckOperator\n"


@pytest.fixture
def folder(folder: Path) -> str:
    return folder.as_uri()


@pytest.fixture
def reader(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> Iterator[ConnectionParams]:
    """The connection ``db``, of a role that may read one of two tables."""
    name = f"reader_{secrets.token_hex(4)}"
    database = fresh_database(
        server18,
        None,
        "create table film (a int)",
        "create schema staging create table raw (a int)",
        f"create role {name} login password '{name}'",
        f"grant select on film to {name}",
    )
    params = ConnectionParams({**database.keywords, "user": name}, password=name)
    postgres_connection("db", params)
    yield params
    with database.connect() as session:
        session.execute(f"drop owned by {name}")
        session.execute(f"drop role {name}")


def test_errors_fail_the_task_and_all_are_in_the_log(reader: ConnectionParams, folder: str, run_dag: RunDag) -> None:
    run = run_dag(f'{IMPORT}PgBackupCheckOperator(task_id="check", postgres_conn_id="db", repository={folder!r})')
    assert run.states == {"check": "failed"}
    assert run.failure.startswith("check found 2 errors")
    assert "lacks USAGE on schema staging" in run.failure
    assert f"GRANT USAGE ON SCHEMA staging TO {reader.user}" in run.output
    assert f"GRANT SELECT ON staging.raw TO {reader.user}" in run.output


def test_without_errors_the_findings_are_the_result(reader: ConnectionParams, folder: str, run_dag: RunDag) -> None:
    run = run_dag(
        f"""{IMPORT}
PgBackupCheckOperator(
    task_id="check", postgres_conn_id="db", repository={folder!r}, server="main",
    options={{"exclude_schemas": ["{{{{ 'staging' }}}}"], "exclude_tables": ["no_such"]}},
)
PgBackupCheckOperator(
    task_id="strict", postgres_conn_id="db", options={{"exclude_schemas": ["staging"], "exclude_tables": ["no_such"]}},
    fail_on="warning",
)
""",
        logical_date=None,
    )
    assert run.states == {"check": "success", "strict": "failed"}, run.output
    result = run.results["check"]
    assert json.loads(json.dumps(result)) == result
    assert result["errors"] == 0
    pattern = next(finding for finding in result["findings"] if finding["code"] == "pattern")
    assert pattern["objects"] == ["no_such"]
    assert pattern["database"] == reader.dbname
    assert run.rendered["check"]["options"]["exclude_schemas"] == ["staging"]
    assert "no_such" in run.failure


def test_rows_are_scanned_and_a_name_that_is_not_utf8_is_a_result(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any, run_dag: RunDag
) -> None:
    """Airflow keeps results as UTF-8, so the byte 0xE9 of a name is an escape in them."""
    database = fresh_database(server18, None)
    quoted = f'"{database.dbname}"'
    locale = "template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'"
    with server18.params.connect() as session:
        session.execute(f"drop database {quoted}")
        session.execute(f"create database {quoted} {locale}")
    with database.connect() as session:
        session.execute(b'create table a (id int primary key); create table "t\xe9" (a int constraint k references a)')
        session.execute(b'set session_replication_role = replica; insert into "t\xe9" values (1)')
    postgres_connection("ascii", database)
    run = run_dag(
        f"""{IMPORT}
PgBackupCheckOperator(task_id="check", postgres_conn_id="ascii", scan_rows="{{{{ 'true' }}}}", fail_on="never")
"""
    )
    findings = {finding["code"]: finding for finding in run.results["check"]["findings"]}
    assert set(findings) == {"encoding", "violated_foreign_key"}
    assert findings["violated_foreign_key"]["objects"] == ['k on public."t\\udce9"']


def test_mapped_over_databases(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any, folder: str, run_dag: RunDag
) -> None:
    one, two = fresh_database(server18), fresh_database(server18)
    postgres_connection("db", one)
    run = run_dag(f"""{IMPORT}
PgBackupCheckOperator.partial(task_id="check", postgres_conn_id="db", repository={folder!r}).expand(
    database=[{one.dbname!r}, {two.dbname!r}]
)
PgBackupCheckOperator(task_id="cluster", postgres_conn_id="db", cluster=True, options={{"no_role_passwords": True}})
""")
    assert set(run.states.values()) == {"success"}, run.output
    assert set(run.results) == {"check[0]", "check[1]", "cluster"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            'options={"schema": ["a"]}',
            "unknown pg_dump option 'schema' in options. HINT: Did you mean 'schemas'?",
        ),
        ('options={"schemas": "a,b"}', "schemas is the string 'a,b'. HINT: Pass a list: ['a', 'b']"),
        ('fail_on="anything"', "invalid fail_on 'anything'. HINT: Choose one of error, warning, never."),
        ('postgres_conn_id="nobody"', "Connection refused"),
    ],
)
def test_what_makes_no_sense(
    arguments: str, message: str, reader: ConnectionParams, postgres_connection: Any, run_dag: RunDag
) -> None:
    postgres_connection("nobody", reader, port=1)
    connection = "" if "conn_id" in arguments else 'postgres_conn_id="db", '
    run = run_dag(f'{IMPORT}PgBackupCheckOperator(task_id="check", {connection}{arguments})')
    assert run.states == {"check": "failed"}
    assert message in run.output + run.failure
    assert "HINT: " in run.failure
