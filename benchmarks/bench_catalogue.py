"""Measure a list of 10,000 backups in 100 series on a real S3 server, in seconds and requests; then a retention plan
over 100,000 synthetic backups.

    python benchmarks/bench_catalogue.py [--backups 10000] [--series 100]

The goals: a list in at most 6 s, with at most one LIST per 1,000 keys and no GET of a backup; a plan in at most 1 s.
Exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.layout import Series, VerificationName, backup_folder, backup_id
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy, plan
from airflow_pgbackup.repository.s3.options import S3Options

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
ROUNDS = 5
LIST_SECONDS = 6.0
PLAN_SECONDS = 1.0
PLANNED = 100_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--series", type=int, default=100)
    arguments = parser.parse_args()
    good = bench_list(arguments.backups, arguments.series)
    good &= bench_plan()
    return 0 if good else 1


def bench_list(backups: int, series: int) -> bool:
    requests: Counter[str] = Counter()
    with S3Server() as server:
        bucket = server.bucket()
        client = server.client()
        client.meta.events.register("before-call.s3", lambda model, **_: requests.update([model.name]))
        repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
        repository.init()
        keys = [f"pg/{key}" for key in keys_of(backups, series)]
        started = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))
        print(f"{len(keys)} keys put in {time.perf_counter() - started:.0f} s")
        seconds = []
        for _ in range(ROUNDS):
            requests.clear()
            # Like a new process, which reads repository.json once.
            repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
            started = time.perf_counter()
            catalogue = read_catalogue(repository)
            seconds.append(time.perf_counter() - started)
        assert len(catalogue.backups) == backups
        assert all(backup.level == "archive" for backup in catalogue.backups)
    allowed = -(-(len(keys) + 1) // 1000)
    lists = requests.pop("ListObjectsV2")
    others = ", ".join(f"{count} {name}" for name, count in requests.items())
    print(
        f"list of {backups} backups in {series} series: {describe(seconds)}; "
        f"{lists} LIST (at most {allowed}); besides {others}, of repository.json"
    )
    return statistics.median(seconds) <= LIST_SECONDS and lists <= allowed and requests.total() <= 1


def bench_plan() -> bool:
    backups = [
        Backup(
            series=Series("prod", f"db{number % 100}"),
            id=backup_id(at := NOW - timedelta(hours=number // 100, seconds=number % 100), seed=str(number)),
            started_at=at,
            committed_at=at,
            size=1,
            state="failed" if number % 10 == 9 else "written" if number % 10 == 8 else "verified",
            level="archive" if number % 10 < 8 else None,
        )
        for number in range(PLANNED)
    ]
    policy = Policy(
        keep_last=3, keep_hourly=24, keep_daily=7, keep_weekly=5, keep_monthly=12, time_zone="Europe/Berlin"
    )
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        decisions = plan(backups, policy, NOW)
        seconds.append(time.perf_counter() - started)
    kept = sum(decision.keep for decision in decisions)
    print(f"plan over {PLANNED} backups in 100 series: {describe(seconds)}; keeps {kept}")
    return statistics.median(seconds) <= PLAN_SECONDS


def keys_of(backups: int, series: int) -> list[str]:
    """Return the keys of each backup: artifact, manifest and one verification."""
    keys = []
    for number in range(backups):
        at = NOW - timedelta(days=number // series, seconds=number % series)
        folder = backup_folder(Series("prod", f"db{number % series}"), backup_id(at, seed=str(number)))
        verification = VerificationName(at + timedelta(minutes=5), "archive", "pass").file
        keys += [f"{folder}/{name}" for name in (f"{at:%Y-%m-%d_%H%M}.dump", "manifest.json", verification)]
    return keys


def describe(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s of {len(seconds)} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    sys.exit(main())
