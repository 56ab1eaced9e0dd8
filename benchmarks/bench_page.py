"""Measure the first view of the Backups page for 10,000 backups in 100 series on S3, cold and from its cache, and how
long Airflow's own health page takes meanwhile.

    python benchmarks/bench_page.py [--backups 10000] [--series 100]

A real S3 server, a real API server of Airflow. The goals: cold at most 6 s, from the cache at most 1 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "airflow"))
from honest import write_backup
from live import LiveAirflow

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.plugin.cache import LIFETIME
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

NOW = datetime.now(timezone.utc).replace(microsecond=0)
ROUNDS = 3
WANTED = "databases can be restored"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--series", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as name, S3Server() as s3:
        uri = f"s3://{s3.bucket()}/pg"
        fill(uri, s3, arguments.backups, arguments.series)
        connection = {
            "conn_type": "aws",
            "login": s3.access_key,
            "password": s3.secret_key,
            "extra": {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"},
        }
        environment = {
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
            "PGBACKUP_PAGE_REPOSITORIES": uri,
        }
        with LiveAirflow(Path(name) / "airflow", environment, processes=("api-server",)) as airflow:
            measure(airflow.url, arguments.backups, arguments.series)


def fill(uri: str, s3: S3Server, backups: int, series: int) -> None:
    """Nightly backups of each series, verified; one in seven rehearsed."""
    repository = open_repository(uri, s3=S3Options(client_factory=s3.client))
    repository.init()

    def write(number: int) -> None:
        night, database = divmod(number, series)
        looks = ["archive-pass", *(["restore-pass"] if night % 7 == 3 else [])]
        start = NOW - timedelta(days=night, hours=1)
        write_backup(repository, Series("prod", f"db{database:03}"), start, looks=looks, seed=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(backups)))


def measure(url: str, backups: int, series: int) -> None:
    fetch(f"{url}/pgbackup/static/backups.css")  # imports the app
    idle = [fetch(f"{url}/api/v2/monitor/health")[0] for _ in range(50)]
    cold, cached, busy = [], [], []
    for number in range(ROUNDS):
        if number:
            time.sleep(LIFETIME + 5)
        reading = threading.Event()

        def watch(reading: threading.Event = reading) -> None:
            while not reading.wait(0.02):
                busy.append(fetch(f"{url}/api/v2/monitor/health")[0])

        if number == 0:
            watcher = threading.Thread(target=watch)
            watcher.start()
            started = time.perf_counter()
            while WANTED not in (text := fetch(f"{url}/pgbackup/")[1]):
                pass  # the page says that the repository is being read
            cold.append(time.perf_counter() - started)
            reading.set()
            watcher.join()
        else:  # shown from the cache, while it is read again
            seconds, text = fetch(f"{url}/pgbackup/")
            cached.append(seconds)
        assert f"{series} of {series} {WANTED}" in text, text[:2000]
        cached += [fetch(f"{url}/pgbackup/")[0] for _ in range(5)]
    print(f"{backups:,} backups in {series} series, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| | seconds: median (range) |\n|---|---|")
    for name, values in (
        ("first view, nothing read yet", cold),
        ("first view, from the cache", cached),
        ("Airflow's health page, idle", idle),
        ("Airflow's health page, while the repository is read", busy),
    ):
        print(f"| {name} | {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}) |")


def fetch(address: str) -> tuple[float, str]:
    started = time.perf_counter()
    with urllib.request.urlopen(address, timeout=120) as answer:
        text = answer.read().decode()
    return time.perf_counter() - started, text


if __name__ == "__main__":
    main()
