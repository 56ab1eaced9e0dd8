"""dags/airflow_metadata.py dumps a real metadata database, and a restored one is an Airflow with its connections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.fernet import Fernet, InvalidToken

from airflow_pgbackup.backup.restore.run import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

EXAMPLE = Path(__file__).parents[2] / "dags" / "airflow_metadata.py"
PASSWORD = "of the warehouse"


class Airflow:
    """``airflow …`` with a metadata database and a Fernet key."""

    def __init__(self, home: Path, database: ConnectionParams, key: str) -> None:
        password = quote(str(database.get_password()), safe="")
        place = f"{database.user}:{password}@{database.host}:{database.port}/{database.dbname}"
        self._environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__FERNET_KEY": key,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{place}",
        }

    def __call__(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_the_metadata_database_comes_back(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    key = Fernet.generate_key().decode()
    source, target = fresh_database(server18), fresh_database(server18)
    airflow = Airflow(tmp_path, source, key)
    airflow("db", "migrate")
    add = ("--conn-type", "postgres", "--conn-host", "db1", "--conn-password", PASSWORD)
    airflow("connections", "add", "warehouse", *add)
    with source.connect() as session:
        session.execute("insert into job (state, job_type, hostname) values ('running', 'SchedulerJob', 'old')")

    repository = open_repository((tmp_path / "repository").as_uri())
    monkeypatch.setenv("PGBACKUP_REMOTE", repository.uri)
    postgres_connection("airflow_metadata", source)
    run = run_dag(EXAMPLE, conf={"init": True})
    assert set(run.states.values()) == {"success"}, run.output
    reference = run.results["pg_backup.verify"]
    assert reference["series"] == f"airflow/{source.dbname}"
    restore(reference=reference, repository=repository, target=RestoreTarget(connection=target))

    with target.connect() as session:
        counts = [session.execute(f"select count(*) from {table}".encode()).fetchone() for table in ("job", "log")]
    assert counts[0] == (0,)
    assert counts[1] != (0,), "the audit log of the command"
    restored = Airflow(tmp_path, target, key)
    restored("db", "check-migrations", "--migration-wait-timeout", "0")
    shown = restored("connections", "get", "warehouse", "-o", "json")
    (connection,) = json.loads(shown[shown.index("[{") :])  # Airflow 3.2 logs to stdout
    assert connection["password"] == PASSWORD
    with target.connect() as session:
        stored = session.execute("select password from connection where conn_id = 'warehouse'").fetchone()
    assert stored is not None
    assert Fernet(key).decrypt(stored[0]).decode() == PASSWORD, "nothing but the key is needed, and nothing less"
    with pytest.raises(InvalidToken):
        Fernet(Fernet.generate_key()).decrypt(stored[0])


def test_no_other_table_refers_to_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the restore would violate a foreign key; Airflow may add one."""
    import runpy

    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    left_out = {pattern.removeprefix("*.") for pattern in runpy.run_path(str(EXAMPLE))["NOT_NEEDED"]} | {"log"}
    tables = Base.metadata.tables
    # Of the FAB provider, and of Airflow 3.3.
    assert left_out - {"session", "connection_test_request"} <= set(tables)
    referred = {key.column.table.name for table in tables.values() for key in table.foreign_keys}
    assert left_out & referred == set()
