"""Soak: a live Airflow with two workers backs up ten busy databases for an hour, while faults are injected.

    python -m tests.campaign.soak [--minutes 60] [--every 120] [--seed N] [--plots DIR] [--json FILE]

A scheduler, a triggerer, an API server whose Backups page is read, and two Celery workers on machines of their own run
DAGs of this package: a backup of each database every two minutes, verified at level archive; rehearsals, refreshes of
staging with masking rules, prunes and a freshness sensor in between. pgbench writes to all ten databases. Faults come
at random moments: killed tools, tasks and workers, terminated backends, a store that answers 503, resets connections,
loses replies and stalls.

Then every listed backup is restored and compared, and the repository, processes, directories, servers and logs are
searched for what must not be left. Memory, descriptors, processes, temporary space and the rows of Airflow's database
must be flat: over the second half of the run, the least squares line through the least values of each two minutes may
grow by at most a tenth of their mean. Needs Linux, unshare(1) and ip(8). Exit status 1 if anything was violated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.campaign import soaking  # first: it makes the helpers of other directories importable
from tests.campaign.soaking.companion import Companion

# isort: split
from celery_airflow import PORT_API, CeleryAirflow
from faulty_s3 import FaultyS3
from machines import HUB

from airflow_pgbackup.repository.base import Repository
from tests.campaign.results import part_result, write_result
from tests.campaign.soaking import endings, figures, workload
from tests.campaign.soaking.endings import Violation
from tests.campaign.soaking.faults import Faults
from tests.campaign.soaking.plots import plot
from tests.campaign.soaking.samples import Sampler, Series

ROOT = soaking.ROOT
_NAMESPACE = "PGBACKUP_SOAK_IN_OWN_NETWORK"
_SETTLE = 900.0  # seconds that runs may take to end when no new one begins

AIRFLOW = {
    "PGBACKUP_PAGE_REPOSITORIES": workload.REPOSITORY,
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    # No slow task is taken for a dead one: those that die here are to die of the faults.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "300",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=120, help="seconds between two backups of a database")
    parser.add_argument("--pause", type=float, default=30, help="mean of seconds between two faults; 0: no faults")
    parser.add_argument("--rate", type=float, default=2, help="transactions a second in each database")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--plots", type=Path, help="directory for the plots")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--logs", type=Path, help="directory to which Airflow's logs are copied at the end")
    arguments = parser.parse_args()
    if _NAMESPACE not in os.environ:
        os.environ[_NAMESPACE] = "1"
        wrapper = ROOT / "tests" / "distributed" / "in_own_network"
        os.execv(wrapper, [str(wrapper), sys.executable, "-m", "tests.campaign.soak", *sys.argv[1:]])
    print(f"seed {arguments.seed}, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="pgbackup-soak-") as name:
        # Servers of a throwaway run as another user, who must reach the machines' directories.
        Path(name).chmod(0o755)
        result = soak(Path(name), arguments)
    write_result(result, arguments.json)
    for violation in result["violations"]:
        print(f"VIOLATED {violation['case']}: {violation['what']}")
    print(f"{len(result['violations'])} violations")
    return 1 if result["violations"] else 0


def soak(directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the soak, and return its result."""
    started = time.monotonic()
    (directory / "dags").mkdir()
    files = workload.write_dags(directory / "dags", arguments.every)
    with CeleryAirflow(directory / "machines", files, concurrency=2, env=AIRFLOW) as platform, ExitStack() as stack:
        platform.s3.bucket(workload.BUCKET)
        workload.fill(platform)
        proxy = stack.enter_context(FaultyS3(platform.s3.endpoint_url).running())
        port = int(proxy.url.rpartition(":")[2])
        relay = ROOT / "tests" / "distributed" / "relay.py"
        platform.serve("relay-s3", [sys.executable, str(relay), HUB, str(port)], {})
        aws = workload.s3_connection(platform, port)
        workload.add_connection(platform, "aws_default", aws)
        platform.airflow("triggerer", "triggerer", "--skip-serve-logs")
        source, target = (platform.connection(each) for each in (platform.source, platform.target))
        staging = {**target, "schema": workload.STAGING}
        only_backups(platform)
        masking_key = {"conn_type": "generic", "password": secrets.token_hex(32)}
        platform.start_workers(
            {"fleet": source, workload.STAGING: staging, "aws_default": aws, "masking_key": masking_key}
        )
        seconds = arguments.minutes * 60
        workload.start_pgbench(platform, seconds + _SETTLE, arguments.rate)
        all_dags(platform)
        begun = time.monotonic()
        print(f"all parts run; soaking for {arguments.minutes:g} minutes", flush=True)
        faults = Faults(platform, proxy, arguments.seed, arguments.pause or 1e9)
        with Sampler(platform, workload.BUCKET, begun) as sampler, Visitor(platform) as visitor:
            with faults:
                while time.monotonic() - begun < seconds:
                    time.sleep(min(60.0, seconds - (time.monotonic() - begun) + 0.1))
                    proxy.calls.clear()
                    show_progress(platform, sampler.series)
            proxy.faults.clear()
            violations = settle(platform)
        runs, tries = figures.runs_of(platform), figures.tries_of(platform)
        for dag in workload.DAGS:
            if dag != workload.NEVER_FRESH_DAG and not tries["runs"][dag, "success"]:
                violations.append({"case": f"runs of {dag}", "what": "none succeeded"})
        where = endings.repository_of(platform)
        violations += checked(platform, where)
        said, found = endings.logs_are_clean(platform, masking_key["password"])
        violations += [*found, *endings.nothing_is_condemned(platform)]
        leftovers, found = endings.sweep_repository(platform, where)
        violations += found
        for machine in platform.machines:  # nothing else uses this machine while backups are restored
            machine.stop()
        print("restoring every listed backup", flush=True)
        restored, found = endings.backups_restore(where)
        violations += found
        if arguments.logs:
            keep_logs(platform, arguments.logs)
    violations += [{"case": key, "what": "an object of a backup changed"} for key in sampler.changed]
    trends, grown = figures.trend_tables(sampler.series, runs, faults.down)
    violations += grown
    plots = []
    if arguments.plots:
        columns = {name: [float(run[name]) for run in runs] for name in figures.PER_RUN if name != "xcom bytes"}
        plots = plot(sampler.series, [at for at, _ in faults.events], columns, arguments.plots)
    outcomes = {
        **{figures.run_outcome(dag, state): count for (dag, state), count in sorted(tries["runs"].items())},
        **restored,
        "leftovers swept from the repository": leftovers,
        "Backups page read": visitor.read,
        "Backups page not read": visitor.failed,
    }
    trend_columns = ["series", "unit", "mean", "growth", "at most", "windows", "flat"]
    tables = {
        "Faults injected": (["fault", "injected", "no victim"], figures.fault_rows(faults)),
        "Tasks": (["DAG", "task", "successful", "failed", "tries"], tries["tasks"]),
        "What failed tries said": (["task and message", "times"], said.most_common(40)),
        "Trends over the second half": (trend_columns, trends),
    }
    given = {name: value for name, value in vars(arguments).items() if name not in ("json", "plots", "logs")}
    return part_result(
        "soak",
        seconds=time.monotonic() - started,
        parameters=given,
        cases=faults.injected.total(),
        outcomes=outcomes,
        violations=violations,
        tables=tables,
        plots=plots,
        notes=[*faults.errors, *sampler.failures],
        samples={**asdict(sampler.series), "faults": faults.events, "down": faults.down},
    )


class Visitor(Companion):
    """Reads the Backups page every five seconds, so that the API server works for us, too."""

    def __init__(self, platform: CeleryAirflow) -> None:
        self.read = self.failed = 0
        self._url = f"http://{HUB}:{PORT_API}"
        super().__init__()

    def _run(self) -> None:
        token = ""
        while not self._stop.wait(5):
            try:
                if not token:
                    with urllib.request.urlopen(f"{self._url}/auth/token", timeout=60) as answer:
                        token = str(json.load(answer)["access_token"])
                request = urllib.request.Request(f"{self._url}/pgbackup/", headers={"Cookie": f"_token={token}"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    if "bench_0" in answer.read().decode():
                        self.read += 1
            except OSError:
                self.failed += 1


def show_progress(platform: CeleryAirflow, series: Series) -> None:
    states = Counter(platform_states(platform))
    last = {name: int(values[-1]) for name, values in series.values.items() if name in ("objects", "backups")}
    print(f"        {dict(sorted(states.items()))} {last}", flush=True)


def platform_states(platform: CeleryAirflow) -> Iterable[str]:
    return (f"{dag} {state}" for dag, state in platform.query("select dag_id, state from dag_run"))


def only_backups(platform: CeleryAirflow) -> None:
    """Start the backups alone: the other DAGs wait for something to verify, rehearse, refresh from and prune."""
    count = len(workload.DAGS)
    platform.wait(lambda: len(platform.query("select 1 from dag")) == count, "all DAGs are parsed", _SETTLE)
    platform.query("update dag set is_paused = false where dag_id = %s returning 1", workload.BACKUP_DAG)


def all_dags(platform: CeleryAirflow) -> None:
    """Wait for the first backups, and let all DAGs run."""
    made = "select 1 from dag_run where dag_id = %s and state = 'success'"
    platform.wait(lambda: platform.query(made, workload.BACKUP_DAG), "the first backups are made", _SETTLE)
    platform.query("update dag set is_paused = false returning 1")


def settle(platform: CeleryAirflow) -> list[Violation]:
    """Let no run begin, and wait until those that run have ended.

    A paused DAG would leave its run where it is, so each DAG is paused when it has no run. The scheduler begins the
    next run soon after one that took longer than the interval, also in a DAG that was paused meanwhile.
    """
    running = "select dag_id, run_id from dag_run where state in ('queued', 'running')"
    pause = f"""update dag set next_dagrun_create_after = now() + interval '1 day',
        is_paused = dag_id not in (select dag_id from ({running}) as r) returning is_paused"""
    deadline = time.monotonic() + _SETTLE
    while True:
        if all(paused for (paused,) in platform.query(pause)):
            time.sleep(10)  # the scheduler finishes what it had begun
            if all(paused for (paused,) in platform.query(pause)):
                return []
        if time.monotonic() > deadline:
            return [{"case": str(platform.query(running)), "what": f"does not end within {_SETTLE:g} s"}]
        time.sleep(0.2)


def checked(platform: CeleryAirflow, where: Repository) -> list[Violation]:
    """Check what may be left of processes, directories and databases; supervisors have a minute to clean up."""
    checks: list[Callable[[], Iterable[Violation]]] = [
        endings.processes_are_gone,
        lambda: endings.directories_are_empty(platform),
        lambda: endings.servers_are_clean(platform),
        lambda: endings.successes_are_kept(platform, where),
    ]
    deadline = time.monotonic() + 60
    while found := [violation for check in checks for violation in check()]:
        if time.monotonic() > deadline:
            return found
        time.sleep(1)
    return []


def keep_logs(platform: CeleryAirflow, directory: Path) -> None:
    for place in (platform.hub, *(machine.directory for machine in platform.machines)):
        shutil.copytree(place / "logs", directory / place.name / "logs", dirs_exist_ok=True)
        for path in [*place.glob("*.log"), *place.glob("log")]:
            shutil.copy(path, directory / place.name)


if __name__ == "__main__":
    sys.exit(main())
