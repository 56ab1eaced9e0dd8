"""Compare the dump, verify and upload of a 1 MiB database as Airflow tasks with PostgreSQL's bare programs.

    python benchmarks/bench_small_task.py [--rounds 7] [--profile]

Airflow's own part of a task (its queue, its process, its API server) is left out: the operators are executed in a
process that has imported them, against a real PostgreSQL and a real S3 server on this machine. "cold" is the first
task of a process, which also imports psycopg, boto3 and Airflow's hooks; "warm" are the next ones. The goal: a warm
dump takes at most 1.0 s longer than ``pg_dump --file``. Exit status 1 if it takes longer. The CPU time of the task's
process says more than seconds on a busy machine.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MOST = 1.0
"""Seconds that a warm dump may take over the bare pg_dump."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="also list the functions that take longest, warm")
    parser.add_argument("--tasks", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tasks:
        run_tasks(json.loads(arguments.tasks), arguments.profile)
        return 0
    with tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as directory:
        Path(directory).chmod(0o755)
        return measure(arguments, Path(directory))


def measure(arguments: argparse.Namespace, directory: Path) -> int:
    from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
    from airflow_pgbackup.postgres.server.throwaway import PostgresServer

    bin_dir = postgres_bin_dir(18)
    with PostgresServer(bin_dir) as server, S3Server() as s3:
        params = server.params
        with params.connect() as session:
            session.execute(
                "CREATE TABLE film AS SELECT i AS id, md5(i::text) AS title FROM generate_series(1, 9000) i"
            )
        postgres = {"host": params.host, "port": int(params.port), "login": params.user, "schema": params.dbname}
        aws = {"login": s3.access_key, "password": s3.secret_key}
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(directory),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_DB": json.dumps({"conn_type": "postgres", "password": params.get_password(), **postgres}),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
                {"conn_type": "aws", "extra": {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"}, **aws}
            ),
            "PGBACKUP_CLIENT_DIRS": str(bin_dir),
        }
        order = {"rounds": arguments.rounds, "bucket": s3.bucket()}
        order |= {"bare": bare_commands(params, bin_dir, directory), "password": params.get_password() or ""}
        command = [sys.executable, __file__, "--tasks", json.dumps(order), *["--profile"][: arguments.profile]]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"seconds, median (range) of {arguments.rounds} rounds; a database of 1 MiB, repositories on S3")
    print(f"{'':10}{'bare':>22}{'first task (cold)':>20}{'next tasks (warm)':>24}{'our part':>10}{'CPU':>7}")
    for verb, taken in figures.items():
        cold, *warm = taken["task"]
        ours = statistics.median(warm) - statistics.median(taken["bare"] or [0])
        print(
            f"{verb:10}{spread(taken['bare']):>22}{cold:20.2f}{spread(warm):>24}{ours:10.2f}{statistics.median(taken['cpu'][1:]):7.2f}"
        )
    over = statistics.median(figures["dump"]["task"][1:]) - statistics.median(figures["dump"]["bare"])
    print(f"goal: a warm dump takes at most {MOST} s over the bare pg_dump")
    return int(over > MOST)


def spread(figures: list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f}-{max(figures):.2f})" if figures else "-"


def bare_commands(params: Any, bin_dir: Path, directory: Path) -> dict[str, list[str]]:
    """Return what a shell script would run."""
    file = str(directory / "bare.dump")
    where = ["-h", params.host, "-p", str(params.port), "-U", params.user]
    return {
        "dump": [str(bin_dir / "pg_dump"), "-Fc", *where, "-f", file, params.dbname],
        "verify": [str(bin_dir / "pg_restore"), "-f", "/dev/null", file],
    }


def run_tasks(order: dict[str, Any], profile: bool) -> None:
    """Run the bare programs and the tasks, interleaved, and print the seconds that each took."""
    import logging

    from airflow_pgbackup.operators.dump import PgDumpOperator
    from airflow_pgbackup.operators.upload import PgBackupUploadOperator
    from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

    logging.disable(logging.CRITICAL)
    sys.stdout, result = sys.stderr, sys.stdout
    one, two = (f"s3://{order['bucket']}/{name}" for name in ("one", "two"))
    env = {**os.environ, "PGPASSWORD": order["password"]}
    figures: dict[str, dict[str, list[float]]] = {
        verb: {"bare": [], "task": [], "cpu": []} for verb in ("dump", "verify", "upload")
    }
    profiler = cProfile.Profile()
    for number in range(order["rounds"]):
        for verb, command in order["bare"].items():
            with clock(figures[verb]["bare"]):
                subprocess.run(command, env=env, check=True)
        if profile and number == 1:
            profiler.enable()
        common = {"init_repository": number == 0}
        dump = PgDumpOperator(task_id=f"dump{number}", postgres_conn_id="db", repository=one, **common)
        with clock(figures["dump"]["task"]), clock(figures["dump"]["cpu"], time.process_time):
            backup = dump.execute(context_of(dump))
        verify = PgBackupVerifyOperator(task_id=f"verify{number}", backup=backup)
        with clock(figures["verify"]["task"]), clock(figures["verify"]["cpu"], time.process_time):
            backup = verify.execute(context_of(verify))
        upload = PgBackupUploadOperator(task_id=f"upload{number}", backup=backup, destination=two, **common)
        with clock(figures["upload"]["task"]), clock(figures["upload"]["cpu"], time.process_time):
            upload.execute(context_of(upload))
    profiler.disable()
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats("airflow|boto|psycopg|lock", 60)
    print(json.dumps(figures), file=result)


class clock:
    """Measure the length of a ``with`` in seconds."""

    def __init__(self, taken: list[float], now: Callable[[], float] = time.perf_counter) -> None:
        self._taken = taken
        self._now = now

    def __enter__(self) -> None:
        self._start = self._now()

    def __exit__(self, *_: object) -> None:
        self._taken.append(self._now() - self._start)


def context_of(task: Any) -> Any:
    """Return the part of a task's context that the operators read."""
    from airflow.sdk.execution_time.context import OutletEventAccessors

    ti = SimpleNamespace(dag_id="bench", task_id=task.task_id, run_id="run", map_index=-1, try_number=1, max_tries=0)
    ti.task = task
    return {"ti": ti, "outlet_events": OutletEventAccessors()}


if __name__ == "__main__":
    sys.exit(main())
