"""Backups of a fleet on two Celery workers that share no disk, one of which dies: ``make test-distributed``.

The workers are machines of their own (see :mod:`machines`). Each test switches one off and lets the other finish.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery_airflow import CeleryAirflow
from machines import Machine
from psycopg import sql

from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.sets.restore_set import restore_set
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import is_complete, read_evidence
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.set_files import list_sets, read_listed_set

pytestmark = pytest.mark.timeout(3600)
NUMBER = 20
LARGE = ("large_1", "large_2")
SMALL = [f"small_{number}" for number in range(10, NUMBER + 1)]
DATABASES = [
    *LARGE, 'quo\'te "d"', " Spaces ", "CRM", "Ünï 数据库", "a.b", "@sets", "empty",
    *SMALL,
]  # fmt: skip
LOGIN_PASSWORD = "of the application"
LARGE_ROWS = 60_000  # of 1 KiB that do not compress: a dump takes seconds
RUN_SECONDS = 1800.0

DAG = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_pgbackup.pipelines import pg_cluster_backup

with DAG(
    {name!r}, schedule=None, max_active_runs=1, default_args={{"retries": 3, "retry_delay": timedelta(seconds=1)}}
):
    pg_cluster_backup(
        postgres_conn_id="fleet", server="prod", databases={databases!r}, exclude=["postgres"],
        repository={repository!r}, init_repository=True, compress="none",
        prune={{"keep_last": 1, "grace": timedelta(hours=1)}},
    )
"""


def run_sql(params: ConnectionParams, *statements: str | sql.Composed) -> list[tuple[Any, ...]]:
    with closing(params.connect()) as session:
        for statement in statements:
            cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


def fill(server: PostgresServer) -> None:
    """Create the fleet: a role that can log in, and its databases."""
    run_sql(server.params, f"create role app login password '{LOGIN_PASSWORD}'", "create role readers nologin")
    for number, name in enumerate(DATABASES):
        run_sql(server.params, sql.SQL("create database {} owner app").format(sql.Identifier(name)))
        if name == "empty":
            continue
        rows = LARGE_ROWS if name in LARGE else 100 + number
        run_sql(
            server.params.with_database(name),
            "create table film (id int primary key, title text not null)",
            "create function noise() returns text language sql volatile as "
            "$$ select string_agg(md5(random()::text), '') from generate_series(1, 32) $$",
            f"insert into film select n, noise() from generate_series(1, {rows}) n",
            "create view titles as select title from film",
            "alter table film owner to app",
            "grant select on film to readers",
        )


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryAirflow]:
    directory = tmp_path_factory.mktemp("platform")
    dags = directory / "dags"
    dags.mkdir()
    files = []
    for name, repository, databases in (
        ("fleet", "s3://backups/pg", ["*"]),
        ("after_commit", "s3://backups/after", ["small_*"]),
        ("on_a_disk", f"file://{directory}/machines/worker-1/repository", ["small_*"]),
    ):
        files.append(dags / f"{name}.py")
        files[-1].write_text(DAG.format(name=name, repository=repository, databases=databases))
    with CeleryAirflow(directory / "machines", files) as platform:
        platform.s3.bucket("backups")
        fill(platform.source)
        platform.start_workers({"fleet": platform.connection(platform.source), "aws_default": platform.s3_connection()})
        yield platform


@pytest.fixture
def both(platform: CeleryAirflow) -> CeleryAirflow:
    """Both machines are on."""
    for machine in platform.machines:
        if not machine.running:
            platform.start_worker(machine)
    return platform


def repository(platform: CeleryAirflow, name: str) -> Repository:
    return open_repository(f"s3://backups/{name}", s3=S3Options(client_factory=platform.s3.client))


def dumping(machine: Machine) -> list[str]:
    """Return the command lines of the pg_dump processes of a machine."""
    return [line for line in machine.processes().values() if re.search(r"/pg_dump\b", line)]


@contextmanager
def locked(server: PostgresServer, databases: Sequence[str]) -> Iterator[None]:
    """Let the dumps of databases wait: on a fast machine those of two workers need not meet."""
    with ExitStack() as stack:
        for name in databases:
            session = stack.enter_context(closing(server.params.with_database(name).connect()))
            stack.enter_context(session.transaction())
            session.execute("lock table film")
        yield


def finish(platform: CeleryAirflow, run_id: str) -> None:
    platform.wait(lambda: platform.state(run_id) in ("success", "failed"), "the run ends", RUN_SECONDS)
    assert platform.state(run_id) == "success", f"{platform.tasks(run_id)}\n{platform.logs()}"


def one_good_backup_each(where: Repository, databases: list[str]) -> None:
    """Check the repository of a run: a complete set, with one backup of each database, and none beside them."""
    (listed,) = list_sets(where)
    found = read_listed_set(where, listed)
    assert (found.status, found.missing, found.globals_missing, found.dropped) == ("complete", (), None, ())
    assert sorted(str(member.database) for member in found.databases) == sorted(databases)
    assert {member.level for member in found.members} == {"archive"}
    catalogue = read_catalogue(where)
    assert sorted((backup.series.path, backup.id) for backup in catalogue.backups) == sorted(
        (member.series, member.id) for member in found.members
    )
    for backup in catalogue.backups:
        evidence = read_evidence(where, backup.series, backup.id)
        assert is_complete(evidence), backup
        assert (evidence.backup.state, evidence.backup.level) == ("verified", "archive")


def nothing_is_left(platform: CeleryAirflow, where: Repository, prefix: str) -> None:
    """Sweep as after the time of grace; then every object belongs to a backup or a set, and no upload is open.

    The age of an open upload is measured by the store's clock, which cannot be set, so those are swept by a call of
    their own.
    """
    later = datetime.now(timezone.utc) + timedelta(hours=2)
    prune(repository=where, policy=Policy(keep_last=1), dry_run=False, grace=timedelta(hours=1), now=later)
    where.remove_unfinished(where.unfinished_writes(timedelta(0)))
    known = {f"{prefix}/repository.json"}
    for backup in read_catalogue(where).backups:
        manifest = read_evidence(where, backup.series, backup.id).require_manifest()
        known |= {f"{prefix}/{manifest.artifact_key}", f"{prefix}/{backup.folder}/manifest.json"}
    client = platform.s3.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="backups", Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    others = [key for key in keys if key not in known and not re.search(r"/(verification|set)-[^/]+\.json$", key)]
    assert others == []
    assert client.list_multipart_uploads(Bucket="backups").get("Uploads", []) == []


def script_of(server: PostgresServer, database: str) -> str:
    """A database as pg_dump writes it: two that are the same have the same script."""
    with client_environment(server.params.with_database(database)) as env:
        argv = [server.bin_dir / "pg_dump", "--create", "--no-password"]
        script = subprocess.run(argv, env=env, capture_output=True, check=True).stdout.decode()
    script = re.sub(r"COMMENT ON DATABASE .* IS 'airflow-pgbackup: \{.*\}';", "", script)
    script = re.sub(r"--\n-- Name: DATABASE .*?; Type: COMMENT.*?\n--\n", "", script)
    return re.sub(r"\n+", "\n", re.sub(r"\\(un)?restrict \w+", "", script))


def test_a_worker_dies_in_the_middle_of_a_dump(both: CeleryAirflow) -> None:
    platform, (first, second) = both, both.machines
    with locked(platform.source, LARGE):
        run_id = platform.trigger("fleet")
        platform.wait(lambda: dumping(first) and dumping(second), "both workers dump")
        platform.wait(lambda: dumping(first), "the first worker dumps")
        first.kill()
    finish(platform, run_id)

    tasks = platform.tasks(run_id)
    dumps = {key: value for key, value in tasks.items() if key[0].endswith("databases.dump")}
    assert len(dumps) == NUMBER
    hosts = {host for _, host, _ in tasks.values()}
    assert "worker-2" in hosts
    retried = [value for value in tasks.values() if value[2] > 1]
    assert retried, tasks
    assert {host for _, host, _ in retried} == {"worker-2"}

    where = repository(platform, "pg")
    one_good_backup_each(where, DATABASES)
    nothing_is_left(platform, where, "pg")


def test_the_set_restores_into_an_empty_server(platform: CeleryAirflow) -> None:
    outcome = restore_set(
        repository=repository(platform, "pg"),
        server="prod",
        target=SetTarget(connection=platform.target.params, jobs=2),
    )
    databases: Any = outcome["databases"]
    assert [one["outcome"] for one in databases] == ["restored"] * NUMBER
    for name in DATABASES:
        assert script_of(platform.target, name) == script_of(platform.source, name)
    for name in DATABASES:
        login = {**platform.target.params.keywords, "user": "app", "dbname": name}
        ((user,),) = run_sql(ConnectionParams(login, password=LOGIN_PASSWORD), "select current_user::text")
        assert user == "app"


def test_a_worker_dies_just_after_a_commit(both: CeleryAirflow) -> None:
    platform, (first, _) = both, both.machines
    run_id = platform.trigger("after_commit")
    client = platform.s3.client()

    def committed() -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="backups", Prefix="after/prod/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ()) if "manifest.json" in entry["Key"]]
        return [key for key in keys if _hostname(client, key) == first.name]

    platform.wait(committed, "the first worker commits a backup")
    first.kill()
    finish(platform, run_id)
    where = repository(platform, "after")
    one_good_backup_each(where, SMALL)
    nothing_is_left(platform, where, "after")


def _hostname(client: Any, key: str) -> object:
    return json.loads(client.get_object(Bucket="backups", Key=key)["Body"].read())["origin"].get("hostname")


def test_a_repository_on_one_workers_disk_fails_before_any_dump(both: CeleryAirflow) -> None:
    """The repository is created by the task that runs on the first worker; the second one does not see it.

    A retry may come to the worker that sees it, so how the run ends is a matter of luck.
    """
    platform = both
    run_id = platform.trigger("on_a_disk")
    platform.wait(lambda: platform.state(run_id) in ("success", "failed"), "the run ends", RUN_SECONDS)
    logs = [
        "\n".join(path.read_text() for path in each.directory.glob(f"**/run_id={run_id}/**/attempt=*.log"))
        for each in platform.machines
    ]
    blind = [text for text in logs if "shared volume" in text]
    assert len(blind) == 1, "one worker does not see it, and says what to do"
    assert "made backup" not in blind[0]
    assert "made backup" in "".join(logs)
