"""Compare pg_cluster_backup on a live Airflow with a shell loop of ``pg_dump | aws s3 cp -``, and say where time goes.

    tests/distributed/in_own_network python benchmarks/bench_fleet.py --aws PATH [--small 50] [--large 8] [--mib 150]

Two comparisons in one run, on a server and an S3 server of this machine:

- many small databases: one after the other in the loop, two at a time in Airflow;
- some large ones: ``xargs -P2`` in the loop, and two Celery workers that run one task each.

The loop compresses as people do it, with pg_dump's own gzip; it verifies nothing. Airflow's run dumps, verifies at
level archive and writes the set; its dumps alone are shown too. ``aws`` is the program of AWS's command line.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import texty_database
from psycopg import sql

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "distributed"))
from celery_airflow import CeleryAirflow

from airflow_pgbackup.repository.catalogue import read_catalogue, read_manifests
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

DAG = """
from airflow.sdk import DAG
from airflow_pgbackup.pipelines import pg_cluster_backup

with DAG({name!r}, schedule=None):
    pg_cluster_backup(
        postgres_conn_id="fleet", server="prod", databases=["{name}_*"], repository="s3://backups/{name}",
        init_repository=True, with_globals=False,
    )
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aws", required=True, help="the program aws")
    parser.add_argument("--small", type=int, default=50, help="number of small databases")
    parser.add_argument("--large", type=int, default=8, help="number of large databases")
    parser.add_argument("--mib", type=int, default=150, help="of rows in a large one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as name:
        directory = Path(name)
        dags = [directory / f"{name}.py" for name in ("small", "large")]
        for path in dags:
            path.write_text(DAG.format(name=path.stem))
        with CeleryAirflow(directory / "machines", dags, concurrency=1) as platform:
            platform.s3.bucket("backups")
            small = fill(platform, "small", arguments.small, 0)
            large = fill(platform, "large", arguments.large, arguments.mib)
            connections = {"fleet": platform.connection(platform.source), "aws_default": platform.s3_connection()}
            platform.start_workers(connections)
            print(f"{os.cpu_count()} cores, two workers with one task each\n", flush=True)
            for title, databases, parallel in (
                (f"{len(small)} databases of 1 MiB", small, 1),
                (f"{len(large)} databases of {arguments.mib} MiB", large, 2),
            ):
                loop = shell_loop(platform, arguments.aws, databases, parallel)
                report(platform, title, databases[0].partition("_")[0], loop, parallel)


def fill(platform: CeleryAirflow, prefix: str, number: int, mib: int) -> list[str]:
    names = [f"{prefix}_{each:02}" for each in range(number)]
    for name in names[:1]:
        with closing(platform.source.params.connect()) as session:
            session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with closing(platform.source.params.with_database(name).connect()) as session:
            texty_database.fill(session, max(mib, 1) * 1024**2)
    for name in names[1:]:
        with closing(platform.source.params.connect()) as session:
            statement = sql.SQL("create database {} template {}")
            session.execute(statement.format(sql.Identifier(name), sql.Identifier(names[0])))
    return names


def shell_loop(platform: CeleryAirflow, aws: str, databases: list[str], parallel: int) -> float:
    """Dump all databases as a script would; return the seconds."""
    params, s3 = platform.source.params, platform.s3
    env = {
        "PATH": f"{platform.source.bin_dir}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "PGHOST": params.host,
        "PGPORT": params.port,
        "PGUSER": params.user,
        "PGPASSWORD": str(params.password),
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    copy = f"{shlex.quote(aws)} --endpoint-url {s3.endpoint_url} s3 cp --only-show-errors - s3://backups/loop/{{}}.dump"
    command = f"xargs -P{parallel} -I{{}} sh -c 'pg_dump -Fc {{}} | {copy}'"
    started = time.monotonic()
    subprocess.run(["sh", "-c", command], input="\n".join(databases), text=True, env=env, check=True)
    return time.monotonic() - started


def report(platform: CeleryAirflow, title: str, dag_id: str, loop: float, parallel: int) -> None:
    run_id = platform.trigger(dag_id)
    platform.wait(lambda: platform.state(run_id) in ("success", "failed"), "the run ends", 3600)
    assert platform.state(run_id) == "success", platform.logs()
    rows: list[tuple[Any, ...]] = platform.query(
        "select task_id, extract(epoch from queued_dttm)::float, extract(epoch from start_date)::float, "
        "extract(epoch from end_date)::float from task_instance where run_id = %s",
        run_id,
    )
    dumps = [row for row in rows if row[0].endswith("databases.dump")]
    whole = max(row[3] for row in rows) - min(row[1] for row in rows)
    dumped = max(row[3] for row in dumps) - min(row[1] for row in dumps)
    repository = open_repository(f"s3://backups/{dag_id}", s3=S3Options(client_factory=platform.s3.client))
    manifests = [
        found for found in read_manifests(repository, read_catalogue(repository).backups) if isinstance(found, Manifest)
    ]
    inside = sum(manifest.duration_seconds for manifest in manifests)
    tasks = sum(row[3] - row[2] for row in dumps)
    print(f"{title}\n")
    print("| | seconds |\n|---|---|")
    print(f"| shell loop, {parallel} at a time | {loop:.1f} |")
    print(f"| Airflow: dump, verify, set | {whole:.1f} ({whole / loop:.2f} of the loop) |")
    print(f"| Airflow: from the first to the last dump | {dumped:.1f} ({dumped / loop:.2f} of the loop) |")
    print(f"| all dump tasks, as Airflow counts them | {tasks:.1f} |")
    print(f"| all dumps, as the manifests count them | {inside:.1f} |\n", flush=True)


if __name__ == "__main__":
    main()
