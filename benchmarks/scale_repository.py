"""The part of bench_scale.py that lists a repository with 100,000 backups, in a local directory and on an S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import boto3
from bench_catalogue import keys_of
from botocore.config import Config
from measuring import peak_memory, processor_seconds, run_program

from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options

BACKUPS = 100_000
SERIES = 100
KEEP_ALL = Policy(keep_last=BACKUPS)


def measure(directory: Path, rounds: int, scale: float, add: Callable[..., None]) -> None:
    """Fill two repositories, and measure list and prune in processes of their own."""
    backups = max(SERIES, round(BACKUPS * scale))
    keys = keys_of(backups, SERIES)
    what = f"{backups:,} backups in {SERIES} series, {len(keys):,} files"
    local = open_repository((directory / "pg").as_uri())
    local.init()
    for key in keys:
        path = directory / "pg" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    compare(what, rounds, {"uri": local.uri, "backups": backups}, add, "local", "find", ["list", "prune, dry run"])
    with S3Server() as server:
        bucket, client = server.bucket(), server.client()
        open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client)).init()
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(lambda key: client.put_object(Bucket=bucket, Key=f"pg/{key}", Body=b"x"), keys):
                pass
        print(f"{len(keys):,} keys put in {time.monotonic() - began:.0f} s", flush=True)
        order = {"uri": f"s3://{bucket}/pg", "backups": backups, "endpoint": server.endpoint_url}
        order |= {"access_key": server.access_key, "secret_key": server.secret_key}
        compare(what, rounds, order, add, "S3", "boto3's list_objects_v2", ["list", "prune, dry run"])


def compare(
    what: str, rounds: int, order: dict[str, Any], add: Callable[..., None], store: str, bare: str, steps: list[str]
) -> None:
    for step in steps:
        runs: dict[str, list[dict[str, Any]]] = {step: [], bare: []}
        for number in range(rounds):
            for each in list(runs)[:: 1 if number % 2 else -1]:
                load = os.getloadavg()[0]
                command = [sys.executable, __file__, json.dumps({"step": each, **order})]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                runs[each].append({**json.loads(done.stdout.splitlines()[-1]), "load": load})
                print(f"  {store}: {each}: {runs[each][-1]}", flush=True)
        requests = runs[step][-1]["requests"]
        beside = f"{bare}; {', '.join(f'{count} {name}' for name, count in requests.items())}" if requests else bare
        add("repository", what, f"{step}, {store}", *runs.values(), beside=beside)


def once(step: str, uri: str, backups: int, **s3: str) -> dict[str, Any]:
    """Measure one step, in a process of its own; return seconds, bytes and requests."""
    requests: Counter[str] = Counter()
    options = None
    if s3:
        keys = {"aws_access_key_id": s3["access_key"], "aws_secret_access_key": s3["secret_key"]}
        config = Config(proxies={})
        client = boto3.client("s3", endpoint_url=s3["endpoint"], region_name="us-east-1", config=config, **keys)
        client.meta.events.register("before-call.s3", lambda model, **_: requests.update([model.name]))
        options = S3Options(client_factory=lambda: client)
    repository = open_repository(uri, s3=options)
    if step == "find":
        command = ["find", uri.removeprefix("file://"), "-type", "f", "-printf", "%P %s %T@\\n"]
        seconds, processor, memory = run_program(command)
        return {"seconds": seconds, "processor": processor, "memory": memory, "requests": {}}
    before, used, began = peak_memory(), processor_seconds(), time.monotonic()
    if s3 and step not in ("list", "prune, dry run"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = sum(len(page.get("Contents", ())) for page in pages)
        assert found == 3 * backups + 1, found
    else:
        read(step, repository, backups)
    seconds = time.monotonic() - began
    processor = processor_seconds() - used
    memory = peak_memory() - before
    return {"seconds": seconds, "processor": processor, "memory": memory, "requests": dict(requests)}


def read(step: str, repository: Repository, backups: int) -> None:
    if step == "list":
        catalogue = read_catalogue(repository)
        assert len(catalogue.backups) == backups
        assert all(backup.level == "archive" for backup in catalogue.backups)
    else:
        found = prune(repository=repository, policy=KEEP_ALL, dry_run=True, now=datetime.now(timezone.utc))
        assert found["kept"] == backups


if __name__ == "__main__":
    print(json.dumps(once(**json.loads(sys.argv[1]))))
