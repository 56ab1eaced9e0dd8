"""Airflow's own metrics, as a StatsD server receives them from the tasks of a DAG run."""

from __future__ import annotations

import inspect
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from local_http import Handler, LocalServer

from airflow_pgbackup import errors
from airflow_pgbackup.notifications.operator_module import operator_module
from airflow_pgbackup.operators import _stats
from airflow_pgbackup.operators._choose_drill import ChooseDrillOperator
from airflow_pgbackup.pipelines.fleet.prune_copies import PruneCopiesOperator
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.layout import Series
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
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # Airflow sends many of its own
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
            f"airflow.pgbackup.verify.rows{tags},level=archive:300|c",
        ]
    )
    timings = [re.sub(r":[\d.]+\|ms$", "", line) for line in lines if line not in counters]
    assert timings == [
        f"airflow.pgbackup.dump.duration{tags}",
        f"airflow.pgbackup.verify.duration{tags},level=archive",
    ]
    milliseconds = [float(found[1]) for line in lines if (found := re.search(r":([\d.]+)\|ms$", line))]
    assert all(each > 10 for each in milliseconds)


def test_a_rehearsal_sends_its_restore_time(
    database: ConnectionParams, repository: str, run_dag: RunDag, received: Callable[[], list[str]]
) -> None:
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={repository!r})
PgBackupVerifyOperator(task_id="rehearse", backup=dump.output, level="restore", scratch_conn_id="db")
""")
    assert set(run.states.values()) == {"success"}, run.output
    (restore,) = [line for line in received() if ".restore_duration" in line]
    name = f"airflow.pgbackup.verify.restore_duration,server=db,database={database.dbname},level=restore"
    assert (found := re.fullmatch(rf"{re.escape(name)}:([\d.]+)\|ms", restore)), restore
    assert float(found[1]) > 1


FRESHNESS = """
from datetime import timedelta
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
PgBackupFreshnessSensor(task_id="fresh", repository={repository!r}, server="db", max_age=timedelta(hours=26),
                        databases={databases!r})
"""


def test_the_freshness_of_each_series(
    database: ConnectionParams, repository: str, run_dag: RunDag, received: Callable[[], list[str]]
) -> None:
    made = run_dag(flow(repository))
    received()
    run = run_dag(FRESHNESS.format(repository=repository, databases=[database.dbname, "missing"]))
    assert run.states == {"fresh": "failed"}
    lines = received()
    ours, missing = f",server=db,database={database.dbname}", ",server=db,database=missing"
    (age,) = [line for line in lines if line.startswith("airflow.pgbackup.freshness.age")]
    assert (found := re.fullmatch(rf"airflow\.pgbackup\.freshness\.age{re.escape(ours)}:([\d.]+)\|g", age)), age
    assert 0 < float(found[1]) < 3600
    assert sorted(line for line in lines if line != age) == sorted(
        [
            f"airflow.pgbackup.freshness.fresh{ours}:1|g",
            f"airflow.pgbackup.freshness.level{ours}:2|g",
            f"airflow.pgbackup.freshness.bytes{ours}:{made.results['dump']['size']}|g",
            f"airflow.pgbackup.freshness.fresh{missing}:0|g",
            f"airflow.pgbackup.freshness.level{missing}:0|g",
            "airflow.pgbackup.freshness.failure,server=db,cause=NotFresh:1|c",
        ]
    )


def test_a_repository_that_freshness_cannot_read(
    run_dag: RunDag, received: Callable[[], list[str]], tmp_path: Path
) -> None:
    run = run_dag(FRESHNESS.format(repository=(tmp_path / "missing").as_uri(), databases=["app"]))
    assert run.states == {"fresh": "failed"}
    assert received() == ["airflow.pgbackup.freshness.failure,server=db,cause=RepositoryNotFound:1|c"]


def test_a_failure_has_its_cause(
    database: ConnectionParams, repository: str, run_dag: RunDag, received: Callable[[], list[str]]
) -> None:
    run = run_dag(
        f'PgDumpOperator(task_id="dump", postgres_conn_id="db", database="a,b=c d", repository={repository!r})'
    )
    assert run.states == {"dump": "failed"}
    (counter, timing) = received()
    assert counter == "airflow.pgbackup.dump.failure,server=db,database=a_b_c_d.5b1ebdf2,cause=ConnectError:1|c"
    assert timing.startswith("airflow.pgbackup.dump.duration,server=db,database=a_b_c_d.5b1ebdf2:")
    assert 'database "a,b=c d" does not exist' in run.failure


def test_gauges_by_opentelemetry(airflow_db: Path) -> None:
    """In a process of its own: OpenTelemetry's exporter lives as long as the process."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    bodies: list[bytes] = []

    class Collector(Handler):
        def answer(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    found = {"series": [{"series": "db/app", "fresh": True, "verified": "archive", "age_seconds": 61.5, "size": 7}]}
    script = f"""
from inspect import signature
from typing import Any
{inspect.getsource(initialize)}
initialize()
from airflow_pgbackup.operators._stats import send_freshness
send_freshness({found!r})
from opentelemetry import metrics
metrics.get_meter_provider().force_flush()
"""
    with LocalServer(Collector).running() as collector:
        host, port = collector.url.removeprefix("http://").split(":")
        metrics = {"OTEL_ON": "True", "OTEL_HOST": host, "OTEL_PORT": port, "OTEL_SSL_ACTIVE": "False"}
        env = {**os.environ, **{f"AIRFLOW__METRICS__{name}": value for name, value in metrics.items()}}
        subprocess.run([sys.executable, "-c", script], env=env, check=True, timeout=300)
    sent: dict[str, Any] = {}
    for body in bodies:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.gauge.data_points:
                    tags = {each.key: each.value.string_value for each in point.attributes}
                    sent[metric.name] = (point.as_double or point.as_int, tags)
    of_app = {"server": "db", "database": "app"}
    assert {name: value for name, value in sent.items() if "pgbackup" in name} == {
        "airflow.pgbackup.freshness.fresh": (1, of_app),
        "airflow.pgbackup.freshness.level": (2, of_app),
        "airflow.pgbackup.freshness.age": (61.5, of_app),
        "airflow.pgbackup.freshness.bytes": (7, of_app),
    }


def test_a_metric_that_cannot_be_sent_fails_no_task(
    database: ConnectionParams, repository: str, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, *_: object, **__: object) -> None:
        if name.startswith("pgbackup."):  # Airflow's own would fail the task
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


def test_a_task_that_chooses_has_a_name_like_the_others() -> None:
    task = ChooseDrillOperator(task_id="choose", repository="s3://b/pg", server="prod", max_bytes=1)
    assert operator_module(task) == "choose_drill"


def test_a_task_that_prunes_copies_has_the_metrics_of_prune() -> None:
    task = PruneCopiesOperator(task_id="prune_copies", repository="s3://b/copies", originals="s3://b/pg", delete=True)
    assert operator_module(task) == "prune"


def test_names_that_differ_have_tags_that_differ() -> None:
    names = ["顧客", "注文", "crm a", "crm_a", "x" * 100, "x" * 101, "x" * 102, "@cluster", "@globals", "", "a\udcff"]
    names += [_stats._tag("crm a"), _stats._tag(_stats._tag("crm a"))]
    tags = [_stats._tag(name) for name in names]
    assert len(set(tags)) == len(names)
    assert max(map(len, tags)) == 100
    assert _stats._tag("crm a") == "crm_a.687897d8"
    assert [_stats._tag(name) for name in ("crm_a", "Crm.2026-11/x+y@z", "x" * 100)] == [
        "crm_a",
        "Crm.2026-11/x+y@z",
        "x" * 100,
    ]


def test_a_database_named_as_a_series_of_a_cluster_has_a_tag_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str]] = []

    class Stats:
        def gauge(self, name: str, value: float, tags: dict[str, str]) -> None:
            sent.append((tags["server"], tags["database"]))

    monkeypatch.setattr("airflow.sdk.observability.stats.Stats", Stats())
    series = [Series("prod", "@cluster"), Series("prod", None), Series("prod", None, "globals"), Series("prod", "app")]
    found = {"fresh": True, "verified": None, "age_seconds": None, "size": None}
    _stats.send_freshness({"series": [{**found, "series": each.path} for each in series]})
    names = ["@cluster.79f0d21f", "@cluster", "@globals", "app"]
    assert list(dict.fromkeys(sent)) == [("prod", name) for name in names]


@pytest.mark.parametrize("series", ["app", "prod/", "prod/a b"])
def test_a_failure_with_a_bad_reference_is_counted(
    repository: str, run_dag: RunDag, received: Callable[[], list[str]], series: str
) -> None:
    reference = {"repository": repository, "series": series, "id": "20261122T021500Z-0a0b0c"}
    run = run_dag(f'PgBackupVerifyOperator(task_id="verify", backup={reference!r})')
    assert run.states == {"verify": "failed"}
    assert any(line.startswith("airflow.pgbackup.verify.failure,") for line in received())
