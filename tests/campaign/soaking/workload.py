"""What runs during the soak: databases under pgbench, and DAGs that back up, verify, rehearse, refresh and prune."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from celery_airflow import CeleryAirflow
from machines import HUB
from psycopg import sql

from airflow_pgbackup.embedded import REGION
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess

BUCKET = "backups"
REPOSITORY = f"s3://{BUCKET}/pg"
SERVER = "prod"
STAGING = "staging"
KEEP = 3
"""Backups of each series that the prune keeps."""
DATABASES = [f"bench_{number}" for number in range(10)]
NEVER_FRESH_DAG = "never_fresh"
"""Its sensor wants backups of the last second, waits for them in the triggerer, and fails at its timeout."""
BACKUP_DAG, DUMP_TASK = "backup", "pg_cluster_backup.databases.dump"

# Every table keeps its number of rows, so that a backup of the last minute is as large as one of the first.
_TRANSACTION = r"""
\set account random(1, 100000)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :account;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = 1;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
UPDATE person SET note = md5(random()::text) WHERE id = 1 + :account % 500;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :account, :delta, CURRENT_TIMESTAMP);
DELETE FROM pgbench_history WHERE mtime < CURRENT_TIMESTAMP - interval '20 seconds';
END;
"""

_RULES = """\
tables_without_rules: keep
columns:
  public.person.*: keep
  public.person.name: {fake: name}
  public.person.email: {fake: email}
  public.person.born: {generalize: year}
"""

_HEAD = """\
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator
from airflow_pgbackup.pipelines import pg_cluster_backup, pg_refresh
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

REPOSITORY = {repository!r}
COMMON = {{
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {{"retries": 4, "retry_delay": timedelta(seconds=2)}},
}}

with DAG({name!r}, schedule=timedelta(seconds={seconds}), **COMMON):
"""

_BODIES = {
    BACKUP_DAG: """
    pg_cluster_backup(
        postgres_conn_id="fleet", server={server!r}, databases=["bench_*"], repository=REPOSITORY, init_repository=True,
        max_bytes_per_second=4 << 20,  # a dump takes seconds, in which faults find it
    )
""",
    "rehearse": """
    @task
    def choose():
        from airflow_pgbackup.backup.drill import choose_drill
        from airflow_pgbackup.hooks.repository import open_repository

        return choose_drill(open_repository(REPOSITORY), max_bytes={rehearse_bytes}, server={server!r})

    PgBackupVerifyOperator.partial(task_id="rehearse", level="restore", max_active_tis_per_dagrun=1).expand(
        backup=choose()
    )
""",
    "refresh": """
    pg_refresh(
        repository=REPOSITORY, series={server!r} + "/bench_0", postgres_conn_id={staging!r}, keep=1,
        masking_key_conn_id="masking_key",
        rules=str(Path(__file__).with_name("rules.yaml")),
    )
""",
    "prune": """
    PgBackupPruneOperator(
        task_id="prune", repository=REPOSITORY, delete=True, keep_last={keep}, grace=timedelta(hours=1)
    )
""",
    NEVER_FRESH_DAG: """
    PgBackupFreshnessSensor(
        task_id="fresh", repository=REPOSITORY, server={server!r}, max_age=1, deferrable=True,
        timeout={patience}, poke_interval=5, max_drop=None, retries=0,
    )
""",
}

DAGS = [*_BODIES]


def write_dags(directory: Path, every: float) -> list[Path]:
    """Write the DAG files and the masking rules, and return their paths.

    :param every: seconds between two backups of a database. Rehearsals, refreshes and prunes come less often; the
        sensor waits in the triggerer nearly all the time, for what never comes.
    """
    intervals = {BACKUP_DAG: 1.0, "rehearse": 1.5, "refresh": 2.5, "prune": 1.5, NEVER_FRESH_DAG: 1.0}
    paths = [directory / "rules.yaml"]
    paths[0].write_text(_RULES)
    for name, body in _BODIES.items():
        paths.append(directory / f"{name}.py")
        values = {"repository": REPOSITORY, "name": name, "seconds": every * intervals[name], "server": SERVER}
        values |= {"keep": KEEP, "staging": STAGING, "patience": every * 0.8, "rehearse_bytes": 1 << 20}
        paths[-1].write_text((_HEAD + body).format(**values))
    return paths


def fill(platform: CeleryAirflow) -> None:
    """Create the databases, each with pgbench's tables and one with personal data, and an empty one for staging."""
    first, *others = DATABASES
    with closing(platform.target.params.connect()) as session:
        session.execute(sql.SQL("create database {}").format(sql.Identifier(STAGING)))
    with closing(platform.source.params.connect()) as session:
        session.execute(sql.SQL("create database {}").format(sql.Identifier(first)))
    _pgbench(platform, "initialize", first, "--initialize", "--quiet", "--scale=1").wait_ended(120)
    with closing(platform.source.params.with_database(first).connect()) as session:
        session.execute("create table person (id int primary key, name text, email text, born date, note text)")
        session.execute(
            "insert into person select n, 'Person ' || n, n || '@example.org', date '1950-01-01' + n * 13, md5(n::text)"
            " from generate_series(1, 500) n"
        )
        session.execute("create view adults as select id, name from person where born < date '2008-01-01'")
    with closing(platform.source.params.connect()) as session:
        for name in others:
            statement = sql.SQL("create database {} template {}")
            session.execute(statement.format(sql.Identifier(name), sql.Identifier(first)))


def start_pgbench(platform: CeleryAirflow, seconds: float, rate: float) -> None:
    """Start one pgbench for each database; they end by themselves.

    :param rate: transactions a second, of each.
    """
    script = platform.hub / "transaction.sql"
    script.write_text(_TRANSACTION)
    for name in DATABASES:
        options = ["--no-vacuum", f"--file={script}", f"--rate={rate}", f"--time={int(seconds)}"]
        _pgbench(platform, f"pgbench-{name}", name, *options, "--client=1")


def _pgbench(platform: CeleryAirflow, log: str, database: str, *options: str) -> SupervisedProcess:
    server = platform.source
    env = {
        "PATH": "/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": server.superuser,
        "PGPASSWORD": platform.password,
    }
    return platform.serve(log, [str(server.bin_dir / "pgbench"), *options, database], env)


def s3_connection(platform: CeleryAirflow, port: int) -> dict[str, object]:
    """Return the Airflow connection with which a worker reaches the S3 server through the proxy at `port`."""
    connection = platform.s3_connection()
    extra = {"endpoint_url": f"http://{HUB}:{port}", "region_name": REGION}
    return {**connection, "extra": extra}


def add_connection(platform: CeleryAirflow, name: str, connection: dict[str, object]) -> None:
    """Store a connection in Airflow's database, for the triggerer and the API server."""
    added = platform.airflow(f"connection-{name}", "connections", "add", name, "--conn-json", json.dumps(connection))
    added.wait_ended(180)
    assert added.exits == [0], added.log_tail()
