"""pg_cluster_backup on a real server: every database on its own, tied together as a set, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.backup.set_members import SetMembers
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.set_files import list_sets, read_set

ODD = ['Odd "Name"', "Ünï {{ 1 }}"]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests alone: they dump all its databases."""
    with (
        PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server,
        closing(server.params.connect()) as s,
    ):
        s.execute("CREATE ROLE clerk LOGIN PASSWORD 'hidden'")
        for name in ("app", *ODD):
            s.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER clerk").format(sql.Identifier(name)))
        with closing(server.params.with_database("app").connect()) as app:
            app.execute("CREATE TABLE film AS SELECT generate_series(1, 5000) AS id, repeat('x', 100) AS title")
        yield server


@pytest.fixture
def repository(tmp_path: Path, server: PostgresServer, postgres_connection: Callable[..., None]) -> LocalRepository:
    postgres_connection("main", server.params)
    return LocalRepository(tmp_path / "repository")


def pipeline(repository: LocalRepository, more: str = "") -> str:
    return f"""
pg_cluster_backup.override(group_id="all")(
    postgres_conn_id="main", repository={repository.uri!r}, init_repository=True, exclude=["postgres"], {more}
)
"""


def the_set(repository: LocalRepository, server: str = "main") -> BackupSet:
    (listed,) = list_sets(repository, server)
    return read_set(repository, server, listed.id)


def test_every_database_on_its_own_and_a_set(
    repository: LocalRepository, run_dag: Callable[..., Any], s3: S3Server, aws_connection: Callable[..., None]
) -> None:
    aws_connection()
    away = f"s3://{s3.bucket()}/pg"
    run = run_dag(pipeline(repository, f"upload_to={away!r}, format='directory', jobs=2"))
    assert set(run.states.values()) == {"success"}, run.output
    assert run.states.keys() == {
        "all.discover",
        *(f"all.globals.{task}" for task in ("dump", "verify", "upload")),
        *(f"all.databases.{task}[{number}]" for task in ("dump", "verify", "upload") for number in range(3)),
        "all.set",
    }
    written = the_set(repository)
    assert written.status == "complete"
    assert written.databases[0].database == "app", "the largest first"
    assert {each.database for each in written.databases} == {"app", *ODD}
    assert {each.level for each in written.members} == {"archive"}
    assert {each.database: each.reason for each in written.left_out} == {
        "postgres": "excluded",
        "template0": "it accepts no connections",
        "template1": "it is a template",
    }
    assert (written.origin["dag_id"], written.origin["task_id"]) == ("case", "all.set")
    result = run.results["all.set"]
    assert (result["set"], result["status"], result["databases"]) == (written.location, "complete", 3)
    for number, member in enumerate(written.databases):
        assert run.results[f"all.databases.dump[{number}]"]["id"] == member.id
        assert run.results[f"all.databases.dump[{number}]"]["format"] == "directory"
        assert run.results[f"all.databases.upload[{number}]"]["series"] == member.series
    bucket, prefix = away.removeprefix("s3://").split("/")
    keys = [
        each["Key"] for each in s3.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/main/@sets/")["Contents"]
    ]
    (copied,) = [BackupSet.from_json(s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
    assert (copied.id, copied.status, copied.globals is not None) == (written.id, "complete", True)
    assert "they are not one snapshot" in run.output


def test_one_that_fails_holds_up_no_other_and_is_named(
    repository: LocalRepository, server: PostgresServer, run_dag: Callable[..., Any]
) -> None:
    with closing(server.params.with_database(ODD[0]).connect()) as session:
        session.execute("CREATE TABLE locked (id int)")
        session.execute("BEGIN")
        session.execute("LOCK TABLE locked")
        run = run_dag(pipeline(repository, "lock_wait_timeout='5s'"))
    number = next(n for n, one in enumerate(run.results["all.discover"]) if one["database"] == ODD[0])
    others = {0, 1, 2} - {number}
    assert run.states[f"all.databases.dump[{number}]"] == "failed"
    assert run.states[f"all.databases.verify[{number}]"] == "upstream_failed"
    assert {run.states[f"all.databases.verify[{other}]"] for other in others} == {"success"}
    assert run.states["all.set"] == "failed"
    written = the_set(repository)
    assert written.status == "partial"
    assert [(each.database, each.reason) for each in written.missing] == [(ODD[0], "no backup was made")]
    assert len(written.databases) == 2
    assert f"is partial: missing {ODD[0]} (no backup was made)" in run.output


def test_a_failed_discovery_is_the_only_failure(
    tmp_path: Path, server: PostgresServer, postgres_connection: Callable[..., None], run_dag: Callable[..., Any]
) -> None:
    postgres_connection("main", server.params)
    unmounted = tmp_path / "unmounted"
    run = run_dag(pipeline(LocalRepository(unmounted)).replace("init_repository=True", "init_repository=False"))
    assert run.states["all.discover"] == "failed"
    assert {state for task, state in run.states.items() if task != "all.discover"} == {"upstream_failed"}
    assert f"no repository at {unmounted.as_uri()}: on host " in run.output
    assert "Several workers need a shared volume" in run.output
    assert "dumping " not in run.output


def test_more_databases_than_airflow_maps_over_are_announced(
    server: PostgresServer,
    postgres_connection: Callable[..., None],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    postgres_connection("main", server.params)
    source = "from airflow_pgbackup.operators.discover import PgDiscoverOperator\n"
    source += "PgDiscoverOperator(task_id='discover', postgres_conn_id='main', exclude=['postgres'])"
    assert "max_map_length" not in run_dag(source).output
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    run = run_dag(source)
    assert run.states == {"discover": "success"}
    assert "warning: 3 databases exceed [core] max_map_length 2; raise it on the API server, " in run.output


def test_a_worker_with_a_disk_of_its_own_fails_before_it_dumps(
    tmp_path: Path, server: PostgresServer, postgres_connection: Callable[..., None], run_dag: Callable[..., Any]
) -> None:
    postgres_connection("main", server.params)
    other = LocalRepository(tmp_path / "other")
    other.init()
    run = run_dag(
        f"PgDumpOperator(task_id='dump', postgres_conn_id='main', repository={other.uri!r}, "
        "repository_uuid='0b9f3f3e-1c44-4c6c-9a4e-5f7d1a2b3c4d')"
    )
    assert run.states == {"dump": "failed"}
    assert f"{other.uri} is repository {other.uuid}, the reference was made in repository 0b9f3f3e" in run.output
    assert "dumping " not in run.output


def test_a_cleared_run_has_another_set(
    repository: LocalRepository, run_clear_run: Callable[..., tuple[Any, Any]]
) -> None:
    runs = run_clear_run(pipeline(repository))
    for run in runs:
        assert set(run.states.values()) == {"success"}, run.output
    later, earlier = list_sets(repository, "main")
    for run, listed in zip(runs, (earlier, later), strict=True):
        assert [name.status for name in listed.names] == ["complete"]
        written = read_set(repository, "main", listed.id)
        assert written.id == run.results["all.set"]["id"]
        assert {each.id for each in written.databases} == {
            run.results[f"all.databases.dump[{number}]"]["id"] for number in range(3)
        }


def test_a_cleared_run_that_fails_leaves_the_complete_set_and_its_backups(
    repository: LocalRepository, tmp_path: Path, run_clear_run: Callable[..., tuple[Any, Any]]
) -> None:
    second = tmp_path / "second"
    source = f"""
import pathlib
second = pathlib.Path({str(second)!r})

def fail_again(context):
    if second.exists() and context["task"].database == "app":
        raise RuntimeError("app cannot be dumped now")

def note(context, result=None):
    second.touch()

"""
    more = 'with_globals=False, pre_execute=fail_again, backup_set={"post_execute": note}, prune={"keep_last": 1}'
    first, _ = run_clear_run(source + pipeline(repository, more))
    later, earlier = list_sets(repository, "main")
    assert (later.status, earlier.status) == ("partial", "complete")
    assert earlier.id == first.results["all.set"]["id"]
    assert SetMembers(repository).unusable(read_set(repository, "main", earlier.id).members) == []


def test_a_cleared_dump_that_never_starts_again_is_missing(
    repository: LocalRepository, run_clear_run: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow keeps its result, the backup of before: an earlier day's, if the run is an old one."""
    from airflow.sdk.definitions import dag as dag_module
    from airflow.utils.session import create_session

    started: set[tuple[str, int]] = set()
    run_task: Any = dag_module._run_task

    def run(*, ti: Any, task: Any, **more: Any) -> Any:
        again = (ti.task_id, ti.map_index) in started
        started.add((ti.task_id, ti.map_index))
        if not again or (ti.task_id, ti.map_index) != ("dump", 0):
            return run_task(ti=ti, task=task, **more)
        with create_session() as session:
            session.merge(ti).state = "failed"  # as a person marks it while it is queued
        return None

    monkeypatch.setattr(dag_module, "_run_task", run)
    first, second = run_clear_run(f"""
from airflow_pgbackup.operators.backup_set import PgBackupSetOperator
from airflow_pgbackup.operators.discover import PgDiscoverOperator
srv = dict(postgres_conn_id="main", repository={repository.uri!r})
found = PgDiscoverOperator(task_id="discover", databases=["app", "postgres"], init_repository=True, **srv)
dump = PgDumpOperator.partial(task_id="dump", **srv).expand_kwargs(found.output)
PgBackupSetOperator(
    task_id="set", repository={repository.uri!r}, discovery=found.output["discovery"], backups=dump.output,
    with_globals=False, minimum_level=None, trigger_rule="all_done_min_one_success",
)
""")
    assert first.states == {"discover": "success", "dump[0]": "success", "dump[1]": "success", "set": "success"}
    assert second.states == {"discover": "success", "dump[0]": "failed", "dump[1]": "success", "set": "failed"}
    later, earlier = list_sets(repository, "main")
    assert (later.status, earlier.status) == ("partial", "complete")
    written = read_set(repository, "main", later.id)
    (missing,) = written.missing
    before = first.results["dump[0]"]
    assert missing.database == before["database"]
    assert missing.reason == f"backup {before['id']} is from before its task was cleared; the task is now failed"
    assert [member.id for member in written.databases] == [second.results["dump[1]"]["id"]]


def test_two_runs_without_a_logical_date_are_two_sets(repository: LocalRepository, run_dag: Callable[..., Any]) -> None:
    source = pipeline(repository, "with_globals=False, databases=['app']")
    runs = [run_dag(source, logical_date=None, run_after=None) for _ in range(2)]
    assert [set(run.states.values()) for run in runs] == [{"success"}, {"success"}]
    sets = list_sets(repository, "main")
    assert len(sets) == 2
    assert {one.id for one in sets} == {run.results["all.set"]["id"] for run in runs}
    assert read_set(repository, "main", sets[0].id).globals is None


def test_inner_parameters_and_default_args_reach_their_tasks(
    repository: LocalRepository, load_dag: Callable[..., Any]
) -> None:
    dag = load_dag(
        f"""
pg_cluster_backup.override(group_id="all")(
    postgres_conn_id="main", server="prod", repository={repository.uri!r}, pool="pgbackup_prod", format="custom",
    discover={{"retries": 7}}, globals={{"retries": 6}}, verify={{"retries": 5, "deadline": 60}},
    upload_to="s3://b/x", upload={{"retries": 4}}, backup_set={{"retries": 3}}, prune={{"keep_daily": 7, "retries": 2}},
)
"""
    )
    tasks = dag.task_dict
    assert tasks["all.discover"].retries == 7
    assert (tasks["all.globals.dump"].retries, tasks["all.globals.dump"].passwords_if_allowed) == (6, True)
    assert tasks["all.databases.dump"].pool == "pgbackup_prod"
    assert tasks["all.databases.dump"].max_active_tis_per_dagrun is None
    assert tasks["all.databases.verify"].retries == tasks["all.globals.verify"].retries == 5
    assert tasks["all.databases.verify"].deadline == 60
    assert tasks["all.databases.upload"].retries == 4
    assert tasks["all.set"].retries == 3
    assert (tasks["all.prune"].keep_daily, tasks["all.prune"].server, tasks["all.prune"].is_teardown) == (
        7,
        "prod",
        True,
    )
    assert not any(task.pool == "pgbackup_prod" for name, task in tasks.items() if name != "all.databases.dump")


def test_the_connection_of_default_args_does_not_narrow_what_is_pruned(
    repository: LocalRepository, load_dag: Callable[..., Any]
) -> None:
    dag = load_dag(
        f"""
pg_cluster_backup.override(group_id="all", default_args={{"postgres_conn_id": "main", "databases": ["app"]}})(
    repository={repository.uri!r}, prune={{"keep_daily": 7}}
)
"""
    )
    prune = dag.task_dict["all.prune"]
    assert (prune.server, prune.postgres_conn_id, prune.databases) == ("main", None, None)


def test_checks_are_for_databases_and_not_for_the_globals(
    repository: LocalRepository, load_dag: Callable[..., Any]
) -> None:
    dag = load_dag(
        f"""
pg_cluster_backup.override(group_id="all")(
    postgres_conn_id="main", repository={repository.uri!r}, level="restore",
    verify={{"checks": ["select true"], "scratch_conn_id": "scratch"}},
)
"""
    )
    databases, globals = (dag.task_dict[f"all.{name}.verify"] for name in ("databases", "globals"))
    assert databases.checks == ["select true"]
    assert (globals.checks, globals.level, globals.scratch_conn_id) == ((), "restore", "scratch")


def test_the_globals_get_what_holds_for_a_whole_set(repository: LocalRepository, load_dag: Callable[..., Any]) -> None:
    more = 'labels=["release"], role="dumper", max_replay_lag=60, deadline=30, max_bytes_per_second=9, retries=5'
    tasks = load_dag(pipeline(repository, more + ", globals={'deadline': 7}")).task_dict
    made = tasks["all.globals.dump"]
    assert (made.labels, made.role, made.max_replay_lag, made.max_bytes_per_second) == (["release"], "dumper", 60, 9)
    assert (made.deadline, made.retries) == (7, 0)
    assert tasks["all.databases.dump"].deadline == 30


def test_four_databases_at_once_unless_limited(repository: LocalRepository, load_dag: Callable[..., Any]) -> None:
    tasks = load_dag(pipeline(repository, 'upload_to="s3://b/x"')).task_dict
    for name in ("dump", "verify", "upload"):
        task = tasks[f"all.databases.{name}"]
        assert (task.pool, task.max_active_tis_per_dagrun) == ("default_pool", 4), name
    assert tasks["all.globals.verify"].max_active_tis_per_dagrun is None
    limited = 'upload_to="s3://b/x", verify={"max_active_tis_per_dagrun": 2}, upload={"pool": "s3"}'
    tasks = load_dag(pipeline(repository, limited)).task_dict
    assert tasks["all.databases.dump"].max_active_tis_per_dagrun == 4
    assert tasks["all.databases.verify"].max_active_tis_per_dagrun == 2
    assert tasks["all.databases.upload"].max_active_tis_per_dagrun is None
