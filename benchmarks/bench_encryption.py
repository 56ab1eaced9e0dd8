"""Compare an encrypted dump to S3 with the same dump without encryption.

    python benchmarks/bench_encryption.py [--mib 1024] [--rounds 5] [--bin-dir DIRECTORY]

The database is generated text, the store is ``weed mini`` on this machine. Each dump is a process of its own; its time
is that of the dump alone, without imports. The goals: at most 1.10 times as long, and 200 MiB of memory beyond that of
the process's start. Exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyrage
from texty_database import fill

from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

MIB = 1024**2
TIME_GOAL, MEMORY_GOAL = 1.10, 200 * MIB
CANDIDATES: dict[str, dict[str, Any]] = {
    "custom": {"format": "custom"},
    "custom, not compressed": {"format": "custom", "compress": "none"},
    "directory, 2 jobs": {"format": "directory", "jobs": 2},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bin-dir", default=str(postgres_bin_dir(18)), help="PostgreSQL's programs")
    arguments = parser.parse_args()
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    with PostgresServer(Path(arguments.bin_dir)) as server, S3Server() as s3:
        with server.params.connect() as session:
            fill(session, arguments.mib * MIB)
        given = {
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
            "endpoint": s3.endpoint_url,
            "keywords": dict(server.params.keywords),
            "bin_dir": arguments.bin_dir,
        }
        missed = False
        print("| format | plain | encrypted | ratio of medians | memory, plain | memory, encrypted |")
        print("|---|---|---|---|---|---|")
        for name, options in CANDIDATES.items():
            found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
            for number in range(arguments.rounds):
                for encrypted in (False, True) if number % 2 else (True, False):
                    more = {"options": options, "uri": f"s3://{s3.bucket()}"}
                    if encrypted:
                        more["recipients"] = [recipient]
                    found[encrypted].append(dump_once({**given, **more}))
            ratio = median(found[True]) / median(found[False])
            memory = [max(run["memory"] for run in found[which]) for which in (False, True)]
            missed |= ratio > TIME_GOAL or memory[1] > MEMORY_GOAL
            print(
                f"| {name} | {spread(found[False])} | {spread(found[True])} | {ratio:.2f} "
                f"| {memory[0] // MIB} MiB | {memory[1] // MIB} MiB |",
                flush=True,
            )
    return int(missed)


def dump_once(given: dict[str, Any]) -> dict[str, Any]:
    script = Path(__file__).with_name("upload_once.py")
    run = subprocess.run([sys.executable, str(script)], input=json.dumps(given), capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def median(runs: list[dict[str, Any]]) -> float:
    return statistics.median(run["seconds"] for run in runs)


def spread(runs: list[dict[str, Any]]) -> str:
    seconds = [run["seconds"] for run in runs]
    return f"{median(runs):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
