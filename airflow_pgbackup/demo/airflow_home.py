"""An Airflow in a throwaway home, run through its own command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess

_TASK = re.compile(r"\[DAG TEST\] starting task_id=(\S+)")
LOG_LINES = 40


class AirflowHome:
    """Airflow's home directory, with its database (SQLite) and one DAG.

    The caller's own Airflow, AWS and PostgreSQL settings have no effect in it.

    :param directory: an empty directory, for this alone.
    :param dag: the DAG's file, which is copied.
    """

    def __init__(self, directory: Path, *, dag: Path) -> None:
        self.directory = directory
        for path in (directory / "dags", directory / "tmp"):
            path.mkdir(parents=True)
        self.dag = Path(shutil.copy(dag, directory / "dags"))

    def migrate(self) -> AirflowCommand:
        """Start to create Airflow's database. The caller may do other work until it ends."""
        return AirflowCommand(["db", "migrate"], self._env(), self.directory / "migrate.log")

    def run_dag(
        self,
        dag_id: str,
        *,
        conf: Mapping[str, object],
        connections: Mapping[str, Mapping[str, object]],
        variables: Mapping[str, str],
    ) -> AirflowCommand:
        """Start one run of the DAG with ``airflow dags test``, as a developer would.

        :param conf: the run's parameters.
        :param connections: the fields of each connection id, as ``AIRFLOW_CONN_*`` takes them in JSON.
        :param variables: further environment variables.
        """
        env = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()}
        arguments = ["dags", "test", dag_id, "--dagfile-path", os.fspath(self.dag), "--conf", json.dumps(conf)]
        return AirflowCommand(arguments, {**self._env(), **env, **variables}, self.directory / "dag.log")

    def _env(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": os.fspath(self.directory),
            "TMPDIR": os.fspath(self.directory / "tmp"),
            "LOGNAME": "airflow",  # Airflow needs a user name, which a container's uid may not have
            "LANG": "C.UTF-8",
            "AIRFLOW_HOME": os.fspath(self.directory),
            "AIRFLOW__CORE__DAGS_FOLDER": os.fspath(self.directory / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }


class AirflowCommand(SupervisedProcess):
    """``airflow …`` as a process that ends with the ``with`` at the latest, its output in a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name = " ".join(["airflow", *arguments[:3]])
        argv = [sys.executable, "-m", "airflow", *arguments]
        # SIGTERM ends it at once with its children; its temporary files are in the directory that is removed.
        super().__init__(argv, env=env, log=log, signals=(signal.SIGTERM, signal.SIGKILL))

    def finish(self, on_task: Callable[[str], object] = lambda task: None) -> None:
        """Wait until the process ends.

        :param on_task: called with the name of each task that starts.
        :raises PgBackupError: the command failed; the message holds the end of its log.
        """
        seen = 0
        while not self.wait_ended(0.2):
            tasks = _TASK.findall(self.log.read_text(errors="replace"))
            for task in tasks[seen:]:
                on_task(task)
            seen = len(tasks)
        if status := self.exits[-1]:
            descriptor, kept = tempfile.mkstemp(prefix="airflow-pgbackup-demo-", suffix=".log")
            with os.fdopen(descriptor, "wb") as copy:
                copy.write(self.log.read_bytes())
            raise PgBackupError(
                f"{self.name} failed (exit {status})\n{self.log_tail(LOG_LINES)}",
                hint=f"The complete log is in {kept}.",
            )
