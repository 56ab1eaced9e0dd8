"""An Airflow with a throwaway home, run by its own command line."""

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
    """Airflow's folder, with its database (SQLite) and one DAG.

    Nothing of the caller's own Airflow, AWS or PostgreSQL settings comes in.

    :param folder: empty, for this alone.
    :param dag: the DAG's file, which is copied.
    """

    def __init__(self, folder: Path, *, dag: Path) -> None:
        self.folder = folder
        for path in (folder / "dags", folder / "tmp"):
            path.mkdir(parents=True)
        self.dag = Path(shutil.copy(dag, folder / "dags"))

    def migrate(self) -> AirflowCommand:
        """Make Airflow's database; other things may be done meanwhile."""
        return AirflowCommand(["db", "migrate"], self._env(), self.folder / "migrate.log")

    def run_dag(
        self,
        dag_id: str,
        *,
        conf: Mapping[str, object],
        connections: Mapping[str, Mapping[str, object]],
        variables: Mapping[str, str],
    ) -> AirflowCommand:
        """Run the DAG once, as ``airflow dags test`` does: what a developer would type.

        :param conf: the run's parameters.
        :param connections: connection id to its fields, as in ``AIRFLOW_CONN_*`` in JSON.
        :param variables: further environment variables.
        """
        env = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()}
        arguments = ["dags", "test", dag_id, "--dagfile-path", os.fspath(self.dag), "--conf", json.dumps(conf)]
        return AirflowCommand(arguments, {**self._env(), **env, **variables}, self.folder / "dag.log")

    def _env(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": os.fspath(self.folder),
            "TMPDIR": os.fspath(self.folder / "tmp"),
            "LOGNAME": "airflow",  # Airflow does not run without a name, which a container's uid may not have
            "LANG": "C.UTF-8",
            "AIRFLOW_HOME": os.fspath(self.folder),
            "AIRFLOW__CORE__DAGS_FOLDER": os.fspath(self.folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }


class AirflowCommand(SupervisedProcess):
    """``airflow …``, running as long as the ``with`` at most, its output in a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name = " ".join(["airflow", *arguments[:3]])
        argv = [sys.executable, "-m", "airflow", *arguments]
        # TERM ends it at once: what it runs ends with it, and its temporary files are in the folder that goes.
        super().__init__(argv, env=env, log=log, signals=(signal.SIGTERM, signal.SIGKILL))

    def finish(self, on_task: Callable[[str], object] = lambda task: None) -> None:
        """Wait for its end.

        :param on_task: called with the name of each task that starts.
        :raises PgBackupError: it failed; the end of its log is in the message.
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
                f"{self.name} failed (exit {status})\n{self.log_tail(LOG_LINES)}", hint=f"its whole log is in {kept}"
            )
