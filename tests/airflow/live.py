"""A live Airflow: its API server, DAG processor and scheduler with the LocalExecutor, in processes and a home of their
own. Tasks run as on a worker."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PROCESSES = ("api-server", "dag-processor", "scheduler")
SECONDS = 900
"""Patience: everything starts on a machine that may be busy."""


def quiet_port() -> int:
    """Return a free port of 127.0.0.1 that no server for which the system chooses one gets meanwhile.

    Below those of :mod:`airflow_pgbackup.embedded`, too.
    """
    for port in random.sample(range(2000, 10_000), 1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


class LiveAirflow:
    """The processes run for the length of a ``with``.

    :param home: an empty directory; its ``dags`` folder is watched.
    :param env: variables of the processes, besides those of this one.
    :param processes: which of them run.
    """

    def __init__(self, home: Path, env: Mapping[str, str], processes: Sequence[str] = PROCESSES) -> None:
        self.home = home
        self._processes = processes
        self.dags = home / "dags"
        self.dags.mkdir(parents=True)
        port, secret = quiet_port(), secrets.token_hex(32)
        self.url = f"http://127.0.0.1:{port}"
        self._api = f"{self.url}/execution/"
        self._env = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self._api,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__API__SECRET_KEY": secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": secret,
            # Its own limits are for machines that are less busy.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(SECONDS),
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": str(SECONDS),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout={SECONDS}",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            **env,
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LiveAirflow:
        self._airflow("db", "migrate").wait()
        try:
            for name in self._processes:
                self._started.append(self._airflow(name))
                if name == "api-server":
                    self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_ready(self) -> None:
        """Wait for the API that tasks talk to: its first answer takes longer than a task waits for one."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self._started[-1].poll() is None:
            try:
                with urllib.request.urlopen(f"{self._api}health", timeout=120):
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"the API server does not answer: {self.said()}")

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            with suppress(ProcessLookupError):  # it has ended, which is what the test reports
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _airflow(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> None:
        """Run a command of Airflow to its end."""
        assert self._airflow(*arguments).wait(SECONDS) == 0, self.said()

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Return what the metadata database has."""
        with sqlite3.connect(f"file:{self.home / 'airflow.db'}?mode=ro", uri=True, timeout=30) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, parameters)]

    def wait_for(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a query as soon as there are any."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if ended := [process.args for process in self._started if process.poll() is not None]:
                raise AssertionError(f"{ended} ended: {self.said()}")
            try:
                if rows := self.rows(query, *parameters):
                    return rows
            except sqlite3.OperationalError:  # locked for long
                pass
            time.sleep(0.5)
        raise AssertionError(f"waited in vain for {query}: {self.said()}")

    def said(self) -> str:
        """The ends of the processes' outputs."""
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in self.home.glob("*.log"))

    def log(self, dag_id: str, task_id: str) -> list[tuple[str, str]]:
        """Return level and text of each line in the first try's log of a task, as the log view shows them."""
        (path,) = self.home.glob(f"logs/dag_id={dag_id}/*/task_id={task_id}/attempt=1.log")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [(line["level"], line["event"]) for line in lines]
