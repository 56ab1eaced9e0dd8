"""Measure dump, verification, rehearsal and restore at unusual shapes of a database, beside PostgreSQL's own programs;
and a repository with 100,000 backups.

    python benchmarks/bench_scale.py [--shape NAME]... [--rounds 3] [--scale 1] [--json FILE] [--bin-dir DIRECTORY]

Each operation runs in a process of its own, ours and PostgreSQL's in turns: the ratio of the two says more than the
seconds on a busy machine. Memory is the peak of our process over its start, without the programs that it runs; and the
peak of PostgreSQL's largest client process. CPU seconds include the servers of a rehearsal, but no other server. The
aims: at most 1.3 times PostgreSQL's time, and at most 150 MiB. Missed ones are reported; exit status 1 only if an
operation fails.

| ours | beside |
|---|---|
| dump to a local repository | ``pg_dump --format=custom --file``, with the same compression |
| verify at level archive | ``pg_restore --file=/dev/null`` |
| rehearsal (level restore) | ``pg_restore --jobs=2`` into a bare server, its start and stop included |
| restore into a new database | ``pg_restore --jobs=2`` into a new database of the same server |
| list of a repository | every key listed with boto3, or every file with ``find`` |
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import scale_repository
from bench_rehearsal import bare, rehearsal
from measuring import peak_memory, processor_seconds, run_program

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal.throwaway import BULK_LOAD
from airflow_pgbackup.backup.restore.run import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

MIB = 1024**2
TIMES = 1.3
MEMORY = 150 * MIB
JOBS = 2

# pg_dump locks every table in one transaction, and our DO statements create many.
SOURCE = {**BULK_LOAD, "max_locks_per_transaction": "8192"}


@dataclass(frozen=True)
class Shape:
    """A database that is filled by SQL.

    :ivar count: at scale 1.
    :ivar statements: with ``{first}`` and ``{last}``; run for one batch of the count after the other.
    :ivar after: run at the end.
    """

    what: str
    count: int
    batch: int
    statements: str
    before: str = ""
    after: str = ""

    def fill(self, session: psycopg.Connection[Any], scale: float) -> str:
        """Fill a database; return what it has."""
        count = max(1, round(self.count * scale))
        session.execute(self.before.encode())
        for first in range(1, count + 1, self.batch):
            last = min(first + self.batch - 1, count)
            session.execute(self.statements.replace("{first}", str(first)).replace("{last}", str(last)).encode())
        session.execute(self.after.encode())
        return self.what.format(count=count)


SHAPES = {
    "tables": Shape(
        "{count:,} tables of 6 rows, each with a serial primary key and an index",
        20_000,
        500,
        """do $$ begin for i in {first}..{last} loop execute format(
            'create table t%1$s (id serial primary key, name text not null, made date default now(), value numeric);
             create index on t%1$s (name);
             insert into t%1$s (name, value) select md5(n::text), n from generate_series(1, 6) n', i);
           end loop; end $$""",
    ),
    "partitions": Shape(
        "{count:,} partitions of one table with 200 rows each, a primary key and an index",
        3000,
        500,
        """do $$ begin for i in {first}..{last} loop execute format(
            'create table m%1$s partition of measured for values from (%2$s) to (%3$s)', i, i * 200 - 200, i * 200);
           end loop; end $$;
           insert into measured
             select i, now(), md5(i::text) from generate_series({first} * 200 - 200, {last} * 200 - 1) i""",
        before="create table measured (id bigint primary key, at timestamptz, name text) partition by range (id);"
        "create index on measured (name)",
    ),
    "large-objects": Shape(
        "{count:,} large objects of 64 bytes",
        200_000,
        10_000,
        "select lo_from_bytea(0, decode(repeat(md5(i::text), 4), 'hex')) from generate_series({first}, {last}) i",
    ),
    "row": Shape(
        "one row of {count:,} MiB, and 100,000 others",
        480,
        1_000,
        "insert into wide select 0, string_agg(repeat(md5(i::text), 32), '') from generate_series(1, {last} * 1024) i",
        before="create table wide (id int primary key, body text);"
        "insert into wide select i, md5(i::text) from generate_series(1, 100000) i",
    ),
    "one-table": Shape(
        "{count:,} MiB of rows in one table",
        3072,
        32,
        "insert into large select {first}::bigint * 100000 + id, at, body from base",
        before="""create table large (id bigint, at timestamptz, body text);
            create table base as select i as id, now() as at, (
              select string_agg(left(md5((hashint8(i * 31 + n) % 4000)::text), 2 + n % 9), ' ')
                from generate_series(1, 60) n) as body
            from generate_series(1, 84000) i""",
        after="drop table base; alter table large add primary key (id)",
    ),
}

OPERATIONS = {
    "dump": "pg_dump",
    "verify at archive": "pg_restore --file",
    "rehearsal": "pg_restore --jobs, with a server",
    "restore": "pg_restore --jobs",
}
"""Each beside what PostgreSQL does."""

Run = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=[*SHAPES, "repository"], help="default: all of them")
    parser.add_argument("--operation", action="append", choices=list(OPERATIONS), help="default: all of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1, help="multiply the number of tables, rows, backups")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--bin-dir", type=Path, default=postgres_bin_dir(18), help="PostgreSQL; default: the wheel's")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(**json.loads(arguments.once))))
        return 0
    began = time.monotonic()
    report = Report()
    for name in arguments.shape or [*SHAPES, "repository"]:
        print(f"== {name}", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as directory:
                Path(directory).chmod(0o755)  # the throwaway server may run as nobody
                if name == "repository":
                    scale_repository.measure(Path(directory), arguments.rounds, arguments.scale, report.add)
                else:
                    measure(name, Path(directory), arguments, report)
        except (subprocess.CalledProcessError, AssertionError) as error:
            report.violations.append({"case": f"--shape {name} --scale {arguments.scale:g}", "what": str(error)})
            print(f"FAILED: {error}", flush=True)
    print(report.markdown())
    if arguments.json:
        parameters = {"rounds": arguments.rounds, "scale": arguments.scale, "bin_dir": str(arguments.bin_dir)}
        found = report.to_json(parameters, time.monotonic() - began)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if report.violations else 0


def measure(name: str, directory: Path, arguments: argparse.Namespace, report: Report) -> None:
    bin_dir, chosen = arguments.bin_dir, arguments.operation or list(OPERATIONS)
    with PostgresServer(bin_dir, directory=directory, settings=SOURCE) as server:
        began = time.monotonic()
        with server.params.connect() as session:
            session.execute("create database scale template template0")
        with server.params.with_database("scale").connect() as session:
            what = SHAPES[name].fill(session, arguments.scale)
            session.execute("checkpoint")
        print(f"{what}, made in {time.monotonic() - began:.0f} s", flush=True)
        repository = open_repository((directory / "repository").as_uri())
        repository.init()
        reference = dump(repository.uri, server.params.keywords, bin_dir)
        manifest = load_manifest(repository, reference)
        artifact = repository.local_path(manifest.artifact_key)
        compression = manifest.artifact.compression
        order = {
            "keywords": dict(server.params.keywords),
            "bin_dir": str(bin_dir),
            "uri": repository.uri,
            "reference": reference,
            "artifact": str(artifact),
            "compress": f"{compression.method}:{compression.level}",
            "directory": str(directory / "scratch"),
        }
        print(f"dumped as {manifest.artifact.size / MIB:,.0f} MiB, {order['compress']}", flush=True)
        for operation in chosen:
            runs: dict[str, list[Run]] = {operation: [], OPERATIONS[operation]: []}
            for number in range(arguments.rounds):
                for step in list(runs)[:: 1 if number % 2 else -1]:  # each goes first in turn
                    runs[step].append(measured(step, order))
                    print(f"  {step}: {describe(runs[step][-1])}", flush=True)
            report.add(name, what, operation, *runs.values())


def describe(run: Run) -> str:
    return (
        f"{run['seconds']:.1f} s, CPU {run['processor']:.1f} s, {run['memory'] / MIB:.0f} MiB, load {run['load']:.1f}"
    )


def measured(step: str, order: dict[str, Any]) -> Run:
    """Run one step in a process of its own, with a scratch directory that exists during the run."""
    scratch = Path(order["directory"])
    scratch.mkdir()
    os.sync()
    load = os.getloadavg()[0]
    command = [sys.executable, __file__, "--once", json.dumps({"step": step, **order})]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    finally:
        shutil.rmtree(scratch)
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return {**found, "load": load}


def once(step: str, keywords: dict[str, str], bin_dir: str, directory: str, **order: Any) -> Run:
    """Measure one step, in a process of its own; return seconds and bytes."""
    started = processor_seconds()  # of the imports
    programs = Path(bin_dir)
    server = ConnectionParams(keywords=keywords)
    source = server.with_database("scale")
    uri, artifact, reference = order["uri"], order["artifact"], order["reference"]
    if step == "pg_dump":
        command = [programs / "pg_dump", "--format=custom", f"--compress={order['compress']}"]
        return tool([*command, f"--file={directory}/dump"], source)
    if step == "pg_restore --file":
        return tool([programs / "pg_restore", "--file=/dev/null", artifact], source)
    if step == "pg_restore --jobs, with a server":
        return {**bare(artifact, JOBS, programs), "processor": processor_seconds()}
    if step == "rehearsal":
        return {**rehearsal(uri, bin_dir, reference), "processor": processor_seconds() - started}
    copy = server.with_database("copy")
    if step == "pg_restore --jobs":
        with server.connect() as session:
            session.execute("create database copy template template0")
        try:
            return tool([programs / "pg_restore", f"--jobs={JOBS}", "--dbname=copy", artifact], copy)
        finally:
            drop(server)
    if step == "dump":
        repository = open_repository(Path(directory, "repository").as_uri())
        repository.init()
        return ours(lambda: dump(repository.uri, keywords, programs))
    context = RunContext(settings=Settings(client_dirs=(bin_dir,)), log=lambda line: print(line, file=sys.stderr))
    repository = open_repository(uri)
    if step == "verify at archive":
        return ours(lambda: verify(reference=reference, repository=repository, level="archive", context=context))
    try:
        return ours(
            lambda: restore(
                reference=reference,
                repository=repository,
                target=RestoreTarget(connection=copy, mode="create"),
                options=RestoreOptions(jobs=JOBS),
                analyze=False,
                context=context,
            )
        )
    finally:
        drop(server)


def dump(uri: str, keywords: Any, bin_dir: Path) -> dict[str, object]:
    return dump_database(
        connection=ConnectionParams(keywords=keywords).with_database("scale"),
        server="bench",
        repository=open_repository(uri),
        options=DumpOptions(),
        context=RunContext(settings=Settings(client_dirs=(str(bin_dir),))),
    )


def drop(server: ConnectionParams) -> None:
    with server.connect() as session:
        session.execute("drop database if exists copy")


def ours(call: Callable[[], object]) -> Run:
    before, used, began = peak_memory(), processor_seconds(), time.monotonic()
    call()
    seconds = time.monotonic() - began
    return {"seconds": seconds, "processor": processor_seconds() - used, "memory": peak_memory() - before}


def tool(command: list[str | Path], params: ConnectionParams) -> Run:
    with client_environment(params) as env:
        seconds, processor, memory = run_program(command, env)
    return {"seconds": seconds, "processor": processor, "memory": memory}


class Report:
    """The figures of all shapes."""

    COLUMNS = ("shape", "ours", "beside", "seconds: median (range)", "beside: seconds", "times")
    COLUMNS += ("CPU seconds", "beside: CPU", "MiB", "beside: MiB", "load")

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.outcomes = {"within the aims": 0, "over the time": 0, "over the memory": 0}
        self.violations: list[dict[str, str]] = []
        self.shapes: dict[str, str] = {}

    def add(self, shape: str, what: str, operation: str, own: list[Run], bare: list[Run], beside: str = "") -> None:
        self.shapes[shape] = what
        times = statistics.median(run["seconds"] for run in own) / statistics.median(run["seconds"] for run in bare)
        memory, other = (max(run["memory"] for run in runs) for runs in (own, bare))
        loads = [run["load"] for run in [*own, *bare]]
        row = [shape, operation, beside or OPERATIONS[operation], spread(own), spread(bare), f"{times:.2f}"]
        row += [f"{statistics.median(run['processor'] for run in runs):.1f}" for runs in (own, bare)]
        row += [f"{memory / MIB:.0f}", f"{other / MIB:.0f}" if other else "", f"{min(loads):.0f} to {max(loads):.0f}"]
        self.rows.append(row)
        self.outcomes["over the time"] += times > TIMES
        self.outcomes["over the memory"] += memory > MEMORY
        self.outcomes["within the aims"] += times <= TIMES and memory <= MEMORY

    def markdown(self) -> str:
        lines = [f"{name}: {what}" for name, what in self.shapes.items()]
        lines += ["", f"| {' | '.join(self.COLUMNS)} |", "|---" * len(self.COLUMNS) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        lines += ["", ", ".join(f"{count} {name}" for name, count in self.outcomes.items())]
        lines[-1] += f" (aims: {TIMES} times, {MEMORY // MIB} MiB)"
        return "\n".join(lines)

    def to_json(self, parameters: dict[str, object], seconds: float) -> dict[str, object]:
        """Return the figures as ``make campaign`` collects them."""
        return {
            "part": "scale",
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "parameters": parameters | {"shapes": self.shapes},
            "cases": len(self.rows),
            "outcomes": self.outcomes,
            "violations": self.violations,
            "tables": {"Scale": {"columns": list(self.COLUMNS), "rows": self.rows}},
            "plots": [],
        }


def spread(runs: list[Run]) -> str:
    seconds = [run["seconds"] for run in runs]
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


if __name__ == "__main__":
    sys.exit(main())
