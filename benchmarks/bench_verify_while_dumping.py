"""Compare a dump that is decoded while it is written with the dump alone, and with dump and verify one after the other.

    python benchmarks/bench_verify_while_dumping.py [--mib 1024] [--rounds 3] [--bin-dir DIRECTORY]

The database is generated text; each candidate runs in each round, into a local repository and into ``weed mini``. The
goal: at most 1.25 times the dump alone. Exit status 1 if it is missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from texty_database import fill

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

MIB = 1024**2
GOAL = 1.25
FORMATS: dict[str, dict[str, Any]] = {
    "custom": {},
    "directory, 2 jobs": {"format": "directory", "jobs": 2},
    "plain": {"format": "plain"},
}
CANDIDATES = ("dump", "dump and verify", "dump with verify")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin-dir", default=str(postgres_bin_dir(18)), help="PostgreSQL's programs")
    arguments = parser.parse_args()
    with (
        PostgresServer(Path(arguments.bin_dir)) as server,
        S3Server() as s3,
        tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as directory,
    ):
        with server.params.connect() as session:
            fill(session, arguments.mib * MIB)
        client, context = s3.client(), RunContext(settings=Settings(client_dirs=(arguments.bin_dir,)))
        options = S3Options(client_factory=lambda: client)
        stores: dict[str, Callable[[], str]] = {
            "local": lambda: f"file://{directory}/{time.monotonic_ns()}",
            "S3": lambda: f"s3://{s3.bucket()}",
        }
        print("| format | store | dump | dump, then verify | dump with verify | over dump | over dump, then verify |")
        print("|---|---|---|---|---|---|---|")
        missed = False
        for format, given in FORMATS.items():
            for store, uri in stores.items():
                seconds: dict[str, list[float]] = {candidate: [] for candidate in CANDIDATES}
                for number in range(arguments.rounds):
                    for candidate in CANDIDATES[number % 3 :] + CANDIDATES[: number % 3]:
                        repository = open_repository(uri(), s3=options)
                        repository.init()
                        started = time.monotonic()
                        reference = dump_database(
                            connection=server.params,
                            server="bench",
                            repository=repository,
                            options=DumpOptions(**given),
                            read_along=candidate == CANDIDATES[2],
                            context=context,
                        )
                        if candidate == CANDIDATES[1]:
                            reference = verify(reference=reference, repository=repository, context=context)
                        seconds[candidate].append(time.monotonic() - started)
                        assert (reference["verified"] is None) == (candidate == CANDIDATES[0])
                        repository.delete([entry.key for entry in repository.list()])
                        if store == "local":
                            shutil.rmtree(repository.uri.removeprefix("file://"))
                alone, after, along = (statistics.median(seconds[candidate]) for candidate in CANDIDATES)
                missed |= along > GOAL * alone
                print(
                    f"| {format} | {store} | {alone:.2f} s | {after:.2f} s | {along:.2f} s "
                    f"| {along / alone:.2f} | {along / after:.2f} |",
                    flush=True,
                )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
