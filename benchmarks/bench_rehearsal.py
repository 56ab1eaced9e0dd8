"""Compare a rehearsal, including its full comparison, with a bare ``pg_restore --jobs`` of the same file.

    python benchmarks/bench_rehearsal.py [--gib 1] [--rounds 3] [--jobs 2] [--compress gzip:1] [--bin-dir DIRECTORY]

Both restore into a throwaway server with settings for loading; the time includes its start and stop. The rounds are
interleaved, and each runs in a process of its own. The goals: at most 1.4 times the wall time, and at most 150 MiB of
memory beyond that of the process's start. Exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import texty_database
from measuring import peak_memory, processor_seconds, run_program

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

MIB = 1024**2
TIMES = 1.4
MEMORY = 150 * MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compress", help="as for pg_dump; default: the best method of this pg_dump")
    parser.add_argument("--bin-dir", type=Path, default=postgres_bin_dir(18), help="PostgreSQL; default: the wheel's")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(**json.loads(arguments.once))))
        return 0
    with tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as folder:
        Path(folder).chmod(0o755)  # the throwaway server may run as nobody
        return measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> int:
    repository = open_repository(folder.as_uri())
    repository.init()
    options = DumpOptions(compress=arguments.compress)
    with PostgresServer(arguments.bin_dir) as server:
        with server.params.connect() as connection:
            texty_database.fill(connection, int(arguments.gib * 1024**3))
        settings = Settings(client_dirs=(str(arguments.bin_dir),))
        reference = dump_database(
            connection=server.params,
            server="bench",
            repository=repository,
            options=options,
            context=RunContext(settings=settings),
        )
    artifact = next(path for path in folder.rglob("*.dump"))
    print(f"{arguments.gib:g} GiB of rows, {int(str(reference['size'])) / MIB:,.0f} MiB dumped, {arguments.jobs} jobs")
    runs: dict[str, list[dict[str, float]]] = {"pg_restore": [], "rehearsal": []}
    for _round in range(arguments.rounds):
        for name, results in runs.items():
            order = {"name": name, "artifact": str(artifact), "uri": repository.uri, "jobs": arguments.jobs}
            order |= {"bin_dir": str(arguments.bin_dir), "reference": reference}
            command = [sys.executable, __file__, "--once", json.dumps(order)]
            results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            print(f"  {name}: {results[-1]['seconds']:.1f} s", flush=True)
    return report(runs)


def report(runs: dict[str, list[dict[str, float]]]) -> int:
    print(f"{'':34}{'median':>8}   range")
    rows = [
        ("bare pg_restore, with its server", "pg_restore", "seconds"),
        ("  pg_restore alone", "pg_restore", "restore"),
        ("  processor time", "pg_restore", "processor"),
        ("rehearsal", "rehearsal", "seconds"),
        ("  its restore", "rehearsal", "restore"),
        ("  processor time", "rehearsal", "processor"),
    ]
    for label, name, key in rows:
        values = [run[key] for run in runs[name]]
        print(f"{label:34}{statistics.median(values):7.1f}s   {min(values):.1f} to {max(values):.1f}")
    times = statistics.median(run["seconds"] for run in runs["rehearsal"]) / statistics.median(
        run["seconds"] for run in runs["pg_restore"]
    )
    memory = max(run["memory"] for run in runs["rehearsal"])
    print(f"rehearsal / bare pg_restore: {times:.2f} times (goal {TIMES})")
    print(f"peak memory of our process over its start: {memory / MIB:.0f} MiB (goal {MEMORY // MIB})")
    return 0 if times <= TIMES and memory <= MEMORY else 1


def once(name: str, artifact: str, uri: str, jobs: int, bin_dir: str, reference: dict[str, Any]) -> dict[str, float]:
    """Measure one run, in a process of its own; return seconds and bytes."""
    found = bare(artifact, jobs, Path(bin_dir)) if name == "pg_restore" else rehearsal(uri, bin_dir, reference)
    return {**found, "processor": processor_seconds()}  # servers too


def bare(artifact: str, jobs: int, bin_dir: Path) -> dict[str, float]:
    from airflow_pgbackup.backup.rehearsal.throwaway import BULK_LOAD

    began = time.monotonic()
    with PostgresServer(
        bin_dir, settings={**BULK_LOAD, "max_parallel_maintenance_workers": str(jobs)}, contained=True
    ) as server:
        with server.params.connect() as session:
            session.execute("create database bench template template0")
        command = [bin_dir / "pg_restore", f"--jobs={jobs}", "--no-owner", f"--host={server.socket_dir}"]
        command += [f"--username={server.superuser}", "--dbname=bench", artifact]
        restored, _, memory = run_program(command)
    return {"seconds": time.monotonic() - began, "restore": restored, "memory": memory}


def rehearsal(uri: str, bin_dir: str, reference: dict[str, Any]) -> dict[str, float]:
    from airflow_pgbackup.backup.artifact import choose_reader
    from airflow_pgbackup.backup.reference import load_manifest
    from airflow_pgbackup.backup.rehearsal import rehearse

    settings = Settings(client_dirs=(bin_dir,))
    repository = open_repository(uri)
    manifest = load_manifest(repository, reference)
    artifact = repository.local_path(manifest.artifact_key)
    assert artifact is not None
    before = peak_memory()
    began = time.monotonic()
    found = rehearse(
        artifact,
        manifest,
        reader=choose_reader(manifest, settings.client_dirs),
        context=RunContext(
            settings=settings,
            deadline=3600,
            log=lambda line: print(f"    {time.monotonic() - began:.1f} {line}", file=sys.stderr),
        ),
    )
    seconds = time.monotonic() - began
    assert not found.differences, found.differences
    assert {table.result for table in found.tables} <= {"same", "reordered"}
    return {"seconds": seconds, "restore": found.restore_seconds, "memory": peak_memory() - before}


if __name__ == "__main__":
    sys.exit(main())
