"""Operators with keys of age: public ones to dump, a connection with a secret one to verify and restore."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

OFFLINE = pyrage.x25519.Identity.generate()


def test_the_secret_key_shows_nowhere(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    folder: Path,
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = pyrage.x25519.Identity.generate()
    secret, public = str(owner), str(owner.to_public())
    params = fresh_database(server18, None, "CREATE TABLE film (id int)", "INSERT INTO film VALUES (1), (2)")
    empty = fresh_database(server18)
    postgres_connection("db", params)
    postgres_connection("copy", empty)
    text = f"# public key: {public}\n{secret}\n"
    monkeypatch.setenv("AIRFLOW_CONN_KEY", json.dumps({"conn_type": "generic", "password": text}))
    monkeypatch.setenv("AIRFLOW_CONN_NOKEY", json.dumps({"conn_type": "generic"}))
    # This worker cannot get the connection of the setting: a dump needs none.
    monkeypatch.setenv("PGBACKUP_IDENTITY_CONN_ID", "nowhere")
    monkeypatch.setenv("PGBACKUP_RECIPIENTS", f"\n{public}\n{OFFLINE.to_public()}")
    run = run_dag(
        f"""
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
dump = PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, recipients=[{public!r}]
)
verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output, identity_conn_id="key")
PgRestoreOperator(task_id="restore", backup=verify.output, postgres_conn_id="copy", identity_conn_id="key")
PgBackupVerifyOperator(task_id="unproven", backup=dump.output)
# First, as a backup keeps the highest level that it has passed.
PgBackupVerifyOperator(task_id="bytes", backup=dump.output, level="integrity") >> verify
PgBackupCheckOperator(task_id="check", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupVerifyOperator(task_id="no_key", backup=dump.output, identity_conn_id="nokey")
PgDumpOperator(task_id="leaked", postgres_conn_id="db", repository={folder.as_uri()!r}, recipients=[{secret!r}])
""".replace(
            repr(secret),
            "__import__('json').loads(__import__('os').environ['AIRFLOW_CONN_KEY'])['password'].split()[-1]",
        )
    )
    assert run.states == {
        "dump": "success",
        "verify": "success",
        "restore": "success",
        "unproven": "failed",
        "bytes": "success",
        "check": "success",
        "no_key": "failed",
        "leaked": "failed",
    }, run.output
    assert run.results["verify"]["verified"] == "archive"
    assert run.results["restore"]["rows"] == 2
    assert run.results["bytes"]["verified"] == "integrity"
    assert [found["severity"] for found in run.results["check"]["findings"] if found["code"] == "identity"] == [
        "warning"
    ]
    assert "Airflow finds no connection 'nowhere', which should have the secret key" in run.output
    assert "connection nokey has no password" in run.output
    assert "a secret key was given as a recipient" in run.output
    for path in folder.rglob("*.json"):
        assert secret not in path.read_text()
    assert secret not in json.dumps(run.results)
    # dag.test() masks nothing on its console, so this is stricter than a task's log.
    assert secret not in run.output
