"""Airflow's own metrics, as a StatsD server receives them from the tasks of a DAG run."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup import errors
from airflow_pgbackup.operators import _stats
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

RunDag = Callable[..., Any]


def initialize() -> None:
    """Do what Airflow's task runner does at its start."""
    from airflow.sdk.observability.metrics import stats_utils
    from airflow.sdk.observability.stats import Stats

    make: Any = stats_utils.get_stats_factory
    set_up: Any = Stats.initialize
    if "export_legacy_names" in signature(set_up).parameters:  # since Airflow 3.3
        set_up(factory=make(), export_legacy_names=False)
    else:
        set_up(factory=make(Stats))


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """``received()``: the lines about this package that a StatsD server has received."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)

        def read() -> list[str]:
            lines: list[str] = []
            while True:
                try:
                    lines += server.recv(65536).decode().splitlines()
                except BlockingIOError:  # datagrams to this host are there when they are sent
                    return [line for line in lines if line.startswith("airflow.pgbackup.")]

        with monkeypatch.context() as patch:
            for name, value in {
                "STATSD_ON": "True",
                "STATSD_HOST": "127.0.0.1",
                "STATSD_PORT": str(server.getsockname()[1]),
                "STATSD_INFLUXDB_ENABLED": "True",
            }.items():
                patch.setenv(f"AIRFLOW__METRICS__{name}", value)
            initialize()
            yield read
        initialize()


@pytest.fixture
def repository(tmp_path: Path) -> str:
    made = open_repository((tmp_path / "repository").as_uri())
    made.init()
    return made.uri


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> ConnectionParams:
    params = fresh_database(server18, None, "CREATE TABLE film AS SELECT generate_series(1, 300) n")
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


def flow(repository: str) -> str:
    return f"""
from airflow_pgbackup.operators.restore import PgRestoreOperator
class Ours(PgDumpOperator):
    pass
dump = Ours(task_id="dump", postgres_conn_id="db", repository={repository!r})
verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
plan = PgRestoreOperator(task_id="plan", backup=verify.output, postgres_conn_id="db", plan_only=True,
                         mode="replace")
"""


def test_what_a_run_sends(
    database: ConnectionParams, repository: str, run_dag: RunDag, received: Callable[[], list[str]]
) -> None:
    run = run_dag(flow(repository))
    assert set(run.states.values()) == {"success"}, run.output
    tags = f",server=db,database={database.dbname}"
    size = run.results["dump"]["size"]
    lines = received()
    counters = [line for line in lines if line.endswith("|c")]
    assert sorted(counters) == sorted(
        [
            f"airflow.pgbackup.dump.success{tags}:1|c",
            f"airflow.pgbackup.dump.bytes{tags}:{size}|c",
            f"airflow.pgbackup.verify.success{tags},level=archive:1|c",
            f"airflow.pgbackup.verify.bytes{tags},level=archive:{size}|c",
        ]
    )
    timings = [re.sub(r":[\d.]+\|ms$", "", line) for line in lines if line not in counters]
    assert timings == [
        f"airflow.pgbackup.dump.duration{tags}",
        f"airflow.pgbackup.verify.duration{tags},level=archive",
    ]
    milliseconds = [float(found[1]) for line in lines if (found := re.search(r":([\d.]+)\|ms$", line))]
    assert all(10 < each < 60_000 for each in milliseconds)


def test_a_failure_has_its_cause(
    database: ConnectionParams, repository: str, run_dag: RunDag, received: Callable[[], list[str]]
) -> None:
    run = run_dag(
        f'PgDumpOperator(task_id="dump", postgres_conn_id="db", database="a,b=c d", repository={repository!r})'
    )
    assert run.states == {"dump": "failed"}
    (counter, timing) = received()
    assert counter == "airflow.pgbackup.dump.failure,server=db,database=a_b_c_d,cause=ConnectError:1|c"
    assert timing.startswith("airflow.pgbackup.dump.duration,server=db,database=a_b_c_d:")
    assert 'database "a,b=c d" does not exist' in run.failure


def test_a_metric_that_cannot_be_sent_fails_no_task(
    database: ConnectionParams, repository: str, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no route to the metrics")

    monkeypatch.setattr("airflow.sdk.observability.stats.Stats.incr", broken)
    run = run_dag(f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={repository!r})')
    assert run.states == {"dump": "success"}
    assert run.results["dump"]["size"] > 0
    monkeypatch.setitem(sys.modules, "airflow.sdk.observability.stats", None)
    run = run_dag(f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={repository!r})')
    assert run.states == {"dump": "success"}


def test_causes_are_few() -> None:
    assert _stats._cause(errors.ToolKilled("killed", tool="pg_dump", exit_code=-9)) == "ToolKilled"
    assert _stats._cause(ValueError("anything")) == _stats._cause(KeyboardInterrupt()) == "other"
