"""Signals to Airflow's processes: the task, its supervisor (the worker), both together, at random moments.

    python -m tests.campaign.matrix_tasks [--rounds 36] [--seed 1] [--round N] [--json FILE]

Each operator runs as on a worker: in a process of its own under Airflow's supervisor. The assertions are those of
``matrix.py``; the messages go to Airflow's log, with Airflow's own tracebacks, so there only secrets are looked for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import psutil

for _each in ("integration", ""):
    sys.path.insert(0, str(Path(__file__).parents[1] / _each))

# ruff: noqa: E402
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from tests.campaign.aftermath import Outcome, aftermath, snapshot
from tests.campaign.matrix import Result, ends, report
from tests.campaign.matrix_case import Case, make_case
from tests.campaign.matrix_operations import Check, create_old, makes_backups, records, restores
from tests.campaign.matrix_world import PASSWORD, World, make_world
from tests.campaign.results import write_result

SUPERVISED = Path(__file__).parents[1] / "airflow" / "supervised.py"
LONGEST = 300.0
"""Seconds after which a run hangs; Airflow alone takes ten, and more on a busy machine."""

DAG = """
from airflow.sdk import DAG
from airflow_pgbackup.operators.dump import PgDumpOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator
from airflow_pgbackup.operators.upload import PgBackupUploadOperator

with DAG("case", schedule=None):
    {task}
"""
TASKS: dict[str, tuple[str, Check]] = {
    "dump": ('PgDumpOperator(task_id="t", postgres_conn_id="db", repository={here!r})', makes_backups(1)),
    "verify restore": (
        'PgBackupVerifyOperator(task_id="t", backup={reference!r}, level="restore")',
        records("restore"),
    ),
    "upload": (
        'PgBackupUploadOperator(task_id="t", backup={reference!r}, destination={there!r})',
        makes_backups(1, "there"),
    ),
    "restore replace": (
        'PgRestoreOperator(task_id="t", backup={reference!r}, postgres_conn_id="db", database={target!r}, '
        'mode="replace", keep_old=False)',
        restores("old"),
    ),
}
LONG = 4.0
BRIEF = {"upload": 0.4}
"""Seconds after which the work of a task is over, or nearly so."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
VICTIMS = ("the task", "the supervisor", "both")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=36)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="only this one")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    numbers = range(arguments.rounds) if arguments.round is None else [arguments.round]
    results: list[Result] = []
    started = time.monotonic()
    with make_world(("directory", "custom"), encryption=[False]) as world:
        home = make_home(world)
        for number in numbers:
            if arguments.minutes and time.monotonic() - started > arguments.minutes * 60:
                break
            results.append(run_round(world, home, arguments.seed, number))
            print(f"{results[-1].case}: {results[-1].outcome} [{results[-1].seconds:.1f} s]", flush=True)
            for line in results[-1].violations:
                print(f"  VIOLATION {line}", flush=True)
    names = list(dict.fromkeys(result.fault for result in results))
    found = report(results, arguments.seed, time.monotonic() - started, "matrix_tasks", list(TASKS), names)
    write_result(found, arguments.json)
    violated = sum(bool(result.violations) for result in results)
    print(f"{len(results)} rounds: {found['outcomes']}; {violated} violate something")
    return 1 if violated else 0


def make_home(world: World) -> Path:
    """Make a home of Airflow with its metadata database, which each round copies."""
    home = world.top / "home"
    home.mkdir()
    code = "from airflow.utils.db import initdb; initdb()"
    with (world.top / "home.log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], env=environment(home), stdout=log, stderr=log, check=True)
    return home


def environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def run_round(world: World, home: Path, seed: int, number: int) -> Result:
    every = list(product(TASKS, SIGNALS, VICTIMS))
    random.Random(seed).shuffle(every)
    task, sent, victim = every[number % len(every)]
    rng = random.Random(f"{seed} {number}")
    delay = rng.random() ** 2 * BRIEF.get(task, LONG)
    name = f"{sent.name} to {victim}"
    line = f"--seed {seed} --round {number} ({task}, {name}, {delay:.2f} s after the task began to work)"
    started = time.monotonic()
    with make_case(world, rng, ("local", "local"), encrypted=False) as case:
        outcome, case.struck, violations = run_case(case, home, task, sent, victim, delay)
    return Result(line, task, name, outcome, case.struck, time.monotonic() - started, violations)


def run_case(
    case: Case, home: Path, task: str, sent: signal.Signals, victim: str, delay: float
) -> tuple[str, bool, list[str]]:
    source, check = TASKS[task]
    case.names["id"] = case.world.ids[False, "custom"]
    reference = reference_of(case.here, read_evidence(case.here, Series("prod", "app"), case.names["id"]))
    own = case.directory / "home"
    shutil.copytree(home, own)
    (own / "dags").mkdir()
    dag = own / "dags" / "case.py"
    dag.write_text(DAG.format(task=source.format(reference=reference, **case.names)))
    connection = {"conn_type": "postgres", "host": "127.0.0.1", "port": case.world.relay.port, "schema": "app"}
    connection |= {"login": case.world.server.params.user, "password": PASSWORD}
    env = {**environment(own), "TMPDIR": str(case.tmp), "AIRFLOW_CONN_DB": json.dumps(connection)}
    create_old(case)
    before = snapshot(case.scene)
    log = case.world.top / f"{case.token}.log"
    violations: list[str] = []
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, SUPERVISED, dag],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    struck = strike(case, worker, sent, victim, delay)
    if not ends(worker, LONGEST):
        violations.append(f"hangs: the supervisor runs after {LONGEST:.0f} s more")
        worker.kill()
    status = worker.wait()
    case.settle()
    for leftover in case.tmp.glob("*"):  # Airflow's own, which it makes for each task
        if not leftover.name.startswith("pgbackup-"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    text = log.read_text(errors="replace")
    log.unlink()
    for path in own.rglob("*.log"):
        text += path.read_text(errors="replace")
    ended = "succeeded" if "the run ended: success" in text else "failed" if status >= 0 else "killed"
    outcome = Outcome(status=0 if ended == "succeeded" else -1, stdout=text.replace("Traceback", "traceback"))
    violations += aftermath(case.scene, before, outcome, may_make=case.makes)
    violations += check(case, before, outcome)
    if violations:
        violations.append(f"(the end of the log: {text[-1500:]})")
    return ended, struck, violations


def strike(case: Case, worker: subprocess.Popen[bytes], sent: signal.Signals, victim: str, delay: float) -> bool:
    """Wait until the task has begun to work, and signal it, its supervisor, or both."""
    written = files_in(case.directory)
    while not any(case.tmp.glob("pgbackup-private-*")) and files_in(case.directory) == written:
        if worker.poll() is not None:
            return False
        time.sleep(0.01)
    ends(worker, delay)
    with suppress(psutil.Error):
        process = psutil.Process(worker.pid)
        tasks = process.children() if victim != "the supervisor" else []
        for one in [*tasks, *([process] if victim != "the task" else [])]:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(sent)
        return True
    return False


def files_in(directory: Path) -> int:
    """Return the number of files in the repositories of a case."""
    return sum(1 for store in ("here", "there") for _ in (directory / store).rglob("*"))


if __name__ == "__main__":
    sys.exit(main())
