"""Dump once into a repository, in a process of its own like a task. Reads its arguments as JSON on standard input.

Prints JSON: the seconds of the dump alone, the peak memory beyond that of the process's start, client and size.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import boto3
from botocore.config import Config

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings


def main() -> None:
    given = json.load(sys.stdin)
    session = boto3.session.Session(given["access_key"], given["secret_key"], region_name="us-east-1")
    client = session.client("s3", endpoint_url=given["endpoint"], config=Config(proxies={}))
    repository = open_repository(given["uri"], s3=S3Options(client_factory=lambda: client))
    repository.init()
    settings = Settings(client_dirs=(given["bin_dir"],), recipients=tuple(given.get("recipients", ())))
    before, started = peak(), time.perf_counter()
    reference = dump_database(
        connection=ConnectionParams(keywords=given["keywords"]),
        server="bench",
        repository=repository,
        options=DumpOptions(**given["options"]),
        context=RunContext(settings=settings),
    )
    seconds = time.perf_counter() - started
    result = {"seconds": seconds, "memory": peak() - before, "client": reference["client_version"]}
    print(json.dumps({**result, "size": reference["size"]}))


def peak() -> int:
    """Return this process's peak memory in bytes. ru_maxrss would include that of the process that forked it."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


if __name__ == "__main__":
    main()
