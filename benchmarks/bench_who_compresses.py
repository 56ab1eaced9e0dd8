"""Compare pg_dump's own compression with ours (the setting ``compress_by``): seconds of a dump, bytes of the archive.

    python benchmarks/bench_who_compresses.py [--mib 512] [--rounds 3] [--bin-dir DIRECTORY]

``dump_database()`` dumps the same database in custom format into a ``file://`` repository, compressed by pg_dump and by
airflow-pgbackup in turn. At the end, ``pg_restore`` reads both archives: their scripts must be equal. Exit status 1 if
they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import texty_database

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

MIB = 1024**2
BY = ("pg_dump", "airflow-pgbackup")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512, help="of rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin-dir", type=Path, default=postgres_bin_dir(18), help="PostgreSQL; default: the wheel's")
    parser.add_argument("--compress", nargs="+", default=["zstd:3", "gzip:1"])
    arguments = parser.parse_args()
    equal = True
    with (
        tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as directory,
        PostgresServer(arguments.bin_dir) as server,
    ):
        with server.params.connect() as connection:
            texty_database.fill(connection, arguments.mib * MIB)
        print(f"{arguments.mib} MiB of rows, {arguments.rounds} rounds, {os.cpu_count()} cores, medians and ranges\n")
        print("| compression | by | seconds | CPU seconds | MiB |\n|---|---|---|---|---|", flush=True)
        for compress in arguments.compress:
            equal &= compare(server, Path(directory), compress, arguments)
    return 0 if equal else 1


def compare(server: PostgresServer, directory: Path, compress: str, arguments: argparse.Namespace) -> bool:
    """Print a line for each compressor; return whether both archives hold the same."""
    seconds: dict[str, list[float]] = {by: [] for by in BY}
    processor: dict[str, list[float]] = {by: [] for by in BY}
    archives: dict[str, Path] = {}
    for _ in range(arguments.rounds):
        for by in BY:
            began, used = time.monotonic(), sum(os.times()[:4])
            archives[by] = dump(server, directory, compress, by, arguments.bin_dir)
            seconds[by].append(time.monotonic() - began)
            processor[by].append(sum(os.times()[:4]) - used)
    for by in BY:
        spread = f"{statistics.median(seconds[by]):.1f} ({min(seconds[by]):.1f} to {max(seconds[by]):.1f})"
        size = archives[by].stat().st_size / MIB
        print(f"| {compress} | {by} | {spread} | {statistics.median(processor[by]):.1f} | {size:.1f} |", flush=True)
    scripts = {by: script(archive, arguments.bin_dir) for by, archive in archives.items()}
    if scripts[BY[0]] != scripts[BY[1]]:
        print(f"{compress}: pg_restore makes different scripts of the two archives", file=sys.stderr)
    return scripts[BY[0]] == scripts[BY[1]]


def dump(server: PostgresServer, directory: Path, compress: str, by: str, bin_dir: Path) -> Path:
    repository = open_repository(f"file://{directory}")
    repository.init()
    reference = dump_database(
        connection=server.params,
        server="bench",
        repository=repository,
        options=DumpOptions(compress=compress),
        context=RunContext(settings=Settings(compress_by=by, client_dirs=(str(bin_dir),))),
    )
    manifest = load_manifest(repository, reference)
    assert manifest.artifact.compression.by == by
    path = repository.local_path(manifest.artifact_key)
    assert path is not None
    return path


def script(archive: Path, bin_dir: Path) -> str:
    """Return the sha256 of the script that pg_restore makes of an archive, without its random ``\\restrict`` keys."""
    command = [bin_dir / "pg_restore", "--file=-", archive]
    digest = hashlib.sha256()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            digest.update(re.sub(rb"^(\\(?:un)?restrict) .*", rb"\1", line))
    assert process.returncode == 0
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
