"""The prune operator and the freshness sensor in a real Airflow, on real S3 and local repositories."""

from __future__ import annotations

import re
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series, backup_id, manifest_key, verification_key
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options


@pytest.fixture(params=["folder", "bucket"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    if request.param == "folder":
        made: Repository = LocalRepository(tmp_path / "pg")
    else:
        server: S3Server = request.getfixturevalue("s3")
        request.getfixturevalue("aws_connection")()
        made = open_repository(f"s3://{server.bucket()}/pg", s3=S3Options(client_factory=server.client))
    made.init()
    return made


def add(repository: Repository, *nights: float, database: str = "app") -> list[str]:
    """Verified backups of so many days ago."""
    series, now = Series("prod", database), datetime.now(timezone.utc)
    return [write_backup(repository, series, now - timedelta(days=night), seed=str(night)).id for night in nights]


def ids(repository: Repository) -> list[str]:
    return [backup.id for backup in read_catalogue(repository).backups]


@pytest.fixture
def run_case(tmp_path: Path, run_dag: Callable[..., Any]) -> Callable[..., Any]:
    """``run_case(tasks)``: as ``run_dag``, with what these tests need to be imported."""

    def run(tasks: str, **kwargs: Any) -> Any:
        file = tmp_path / "case.py"
        file.write_text(HEAD + textwrap.indent(textwrap.dedent(tasks), "    "))
        return run_dag(file, **kwargs)

    return run


HEAD = """
from datetime import timedelta
from airflow.sdk import DAG, Param, task
from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

with DAG("case", schedule=None, params={"delete": Param(False, type="boolean")}):
"""


def test_prune_plans_and_deletes(repository: Repository, run_case: Callable[..., Any]) -> None:
    made = add(repository, 0, 1, 2, 3)
    source = (
        f'PgBackupPruneOperator(task_id="prune", repository={repository.uri!r}, keep_daily=2,'
        ' delete="{{ params.delete }}")'
    )
    run = run_case(source)
    assert run.states == {"prune": "success"}, run.output
    plan = run.results["prune"]
    assert (plan["dry_run"], plan["kept"], plan["removed"]) == (True, 2, 2)
    assert [one["id"] for one in plan["decisions"]] == made[2:]
    assert f"keep prod/app/{made[0]}: newest backup; " in run.output
    assert f"delete prod/app/{made[3]}: no rule keeps it" in run.output
    assert ids(repository) == made
    run = run_case(source, conf={"delete": True})
    assert run.results["prune"]["dry_run"] is False
    assert ids(repository) == made[:2]


def test_prune_of_named_databases_mapped(repository: Repository, run_case: Callable[..., Any]) -> None:
    (
        add(repository, 0, 1, database="app"),
        add(repository, 0, 1, database="app_staging"),
        add(repository, 0, 1, database="b"),
    )
    task = (
        f'PgBackupPruneOperator.partial(task_id="prune", repository={repository.uri!r}, delete=True, server="prod",'
        ' keep_last=1).expand(databases=[["app"], ["b"], []])'
    )
    run = run_case(task)
    assert set(run.states.values()) == {"success"}, run.output
    assert [run.results[f"prune[{n}]"]["removed"] for n in range(3)] == [1, 1, 0]
    left = read_catalogue(repository).by_series()
    assert {series.database: len(backups) for series, backups in left.items()} == {"app": 1, "app_staging": 2, "b": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("delete=True", "the retention policy has no rule"),
        ("delete=True, sweep_only=True, keep_daily=7", "keep_daily cannot be combined with sweep_only. HINT: "),
        ("delete='perhaps', keep_last=1", "invalid delete 'perhaps'. HINT: "),
        ("delete=True, keep_last=1, databases=['app']", "databases are named without their server"),
        ("delete=True, keep_last=1, grace=timedelta(0)", "invalid grace 0:00:00"),
        ("delete=True, keep_last=1, grace=3600", "invalid grace 3600. HINT: Use a datetime.timedelta."),
        ("delete=True, keep_last=1, time_zone='Mars'", "time zone 'Mars' does not exist"),
    ],
)
def test_prune_refuses_nonsense_without_a_retry(
    tmp_path: Path, run_case: Callable[..., Any], arguments: str, message: str
) -> None:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    made = add(repository, 0, 1)
    run = run_case(f'PgBackupPruneOperator(task_id="prune", repository={repository.uri!r}, {arguments})')
    assert run.states == {"prune": "failed"}
    assert message in run.failure
    assert ids(repository) == made


def test_prune_where_there_is_no_repository(tmp_path: Path, run_case: Callable[..., Any]) -> None:
    run = run_case(
        f'PgBackupPruneOperator(task_id="prune", repository="{tmp_path.as_uri()}/x", delete=True, keep_last=1)'
    )
    assert run.states == {"prune": "failed"}
    assert "no repository at file://" in run.failure


# -- freshness ------------------------------------------------------------------------------------------------------


def sensor(repository: Repository, arguments: str) -> str:
    """max_drop=None: the backups of these tests have no contents."""
    return f'PgBackupFreshnessSensor(task_id="fresh", repository={repository.uri!r}, max_drop=None, {arguments})'


def stale(run: Any) -> str:
    (line,) = {
        line for line in run.output.splitlines() if line.startswith("airflow.sdk.exceptions.AirflowSensorTimeout: ")
    }
    return str(line).partition(": ")[2]


@pytest.mark.every_value
@pytest.mark.parametrize(
    "waiting", ["", ", deferrable=True", ", timeout=600, poke_interval=1", ", deferrable=True, timeout=600"]
)
def test_what_is_fresh_is_said_at_once(repository: Repository, run_case: Callable[..., Any], waiting: str) -> None:
    (id,) = add(repository, 0.1)
    run = run_case(sensor(repository, f"max_age=timedelta(hours=26){waiting}"))
    assert run.states == {"fresh": "success"}, run.output
    found = run.results["fresh"]
    assert (found["fresh"], found["series"][0]["id"]) == (True, id)


@pytest.mark.every_value
@pytest.mark.parametrize(
    "waiting", ["", ", timeout=2, poke_interval=1", ", deferrable=True, timeout=2, poke_interval=1"]
)
def test_what_is_stale_fails_with_the_reason_and_no_retry(
    repository: Repository, run_case: Callable[..., Any], waiting: str
) -> None:
    (id,) = add(repository, 2)
    run = run_case(sensor(repository, f"max_age=26 * 3600, server='prod', databases=['app', 'new']{waiting}"))
    assert run.states == {"fresh": "failed"}
    assert re.fullmatch(
        rf"not fresh: prod/app: the newest backup verified at archive, {id}, is 48\.\d h old, more than 26\.0 h; "
        r"prod/new: no backup",
        stale(run),
    )


def test_a_stale_one_can_be_skipped(repository: Repository, run_case: Callable[..., Any]) -> None:
    add(repository, 2)
    run = run_case(sensor(repository, "max_age=timedelta(hours=26), soft_fail=True"))
    assert run.states == {"fresh": "skipped"}, run.output


@pytest.mark.every_value
@pytest.mark.parametrize("deferrable", [False, True])
def test_waiting_ends_when_the_backup_is_there(
    repository: Repository, run_case: Callable[..., Any], deferrable: bool
) -> None:
    add(repository, 2)
    timer = threading.Timer(6, lambda: add(repository, 0.01))
    timer.start()
    try:
        run = run_case(
            sensor(repository, f"max_age=timedelta(hours=26), timeout=600, poke_interval=1, deferrable={deferrable}")
        )
    finally:
        timer.join()
    assert run.states == {"fresh": "success"}, run.output
    assert run.results["fresh"]["fresh"]


def test_databases_by_xcom_and_mapped(repository: Repository, run_case: Callable[..., Any]) -> None:
    add(repository, 0.1, database="a"), add(repository, 0.1, database="b")
    run = run_case(
        f"""
        names = task(task_id="names")(lambda: ["a", "b"])()
        servers = task(task_id="servers")(lambda: ["prod", "other"])()
        common = dict(repository={repository.uri!r}, max_drop=None, max_age=3600 * 26)
        PgBackupFreshnessSensor(task_id="all", server="prod", databases=names, **common)
        PgBackupFreshnessSensor.partial(task_id="each", **common).expand(server=servers)
        """
    )
    assert run.states["all"] == "success", run.output
    assert [one["series"] for one in run.results["all"]["series"]] == ["prod/a", "prod/b"]
    assert (run.states["each[0]"], run.states["each[1]"]) == ("success", "failed")


@pytest.mark.parametrize("waiting", ["", ", deferrable=True, timeout=600"])
def test_what_cannot_be_asked_or_looked_at(tmp_path: Path, run_case: Callable[..., Any], waiting: str) -> None:
    repository = LocalRepository(tmp_path / "pg")
    run = run_case(sensor(repository, f"max_age=60{waiting}"))
    assert run.states == {"fresh": "failed"}
    assert "no repository at file://" in run.failure
    repository.init()
    for arguments, message in (
        ("max_age=-1", "invalid max_age -1"),
        ("max_age='26'", "invalid max_age '26'. HINT: Use a datetime.timedelta, or a number of seconds."),
        ("max_age=float('nan')", "invalid max_age nan"),
        ("max_age=True", "invalid max_age True"),
        ("max_age=timedelta.max", "invalid max_age 999999999 days"),
        ("max_age=60, minimum_level='full'", "invalid minimum_level 'full'"),
        ("max_age=60, allow_drop='public.queue'", "invalid allow_drop 'public.queue'"),
        ("max_age=60, server='prod', databases='app'", "invalid databases 'app'"),
    ):
        run = run_case(sensor(repository, f"{arguments}{waiting}"))
        assert run.states == {"fresh": "failed"}
        assert message in run.failure


@pytest.mark.every_value
@pytest.mark.parametrize("waiting", ["", ", deferrable=True, timeout=600"])
@pytest.mark.parametrize("error", ["no repository", "invalid arguments"])
@pytest.mark.parametrize("argument", ["soft_fail", "never_fail"])
def test_what_cannot_be_asked_is_skipped_as_airflow_does(
    tmp_path: Path, run_case: Callable[..., Any], waiting: str, error: str, argument: str
) -> None:
    repository = LocalRepository(tmp_path / "pg")
    given = "max_age=60" if error == "no repository" else "max_age=-1"
    run = run_case(sensor(repository, f"{given}, {argument}=True{waiting}"))
    # Without a trigger, soft_fail does not skip what a retry could find.
    fails = (argument, error, waiting) == ("soft_fail", "no repository", "")
    assert run.states == {"fresh": "failed" if fails else "skipped"}, run.output


@pytest.mark.parametrize("waiting", [", timeout=3", ", deferrable=True, timeout=3"])
def test_errors_on_the_way_can_be_silent(tmp_path: Path, run_case: Callable[..., Any], waiting: str) -> None:
    repository = LocalRepository(tmp_path / "pg")
    run = run_case(sensor(repository, f"max_age=60, silent_fail=True, poke_interval=1{waiting}"))
    assert run.states == {"fresh": "failed"}
    errors = [line for line in run.output.splitlines() if line.startswith("airflow.sdk.exceptions.")]
    assert "no repository at file://" in errors[-1]
    assert run.output.count("no repository at file://") > 2


def test_a_repository_can_be_made_while_errors_are_silent(tmp_path: Path, run_case: Callable[..., Any]) -> None:
    repository = LocalRepository(tmp_path / "pg")

    def make() -> None:
        repository.init()
        add(repository, 0.01)

    timer = threading.Timer(6, make)
    timer.start()
    run = run_case(sensor(repository, "max_age=3600, silent_fail=True, deferrable=True, timeout=600, poke_interval=1"))
    timer.join()
    assert run.states == {"fresh": "success"}, run.output


def test_the_trigger_can_be_rebuilt_from_what_it_serializes(tmp_path: Path, airflow_db: Path) -> None:
    from airflow._shared.module_loading import import_string

    from airflow_pgbackup.triggers.freshness import FreshnessTrigger

    trigger = FreshnessTrigger(arguments={"repository": "file:///x"}, poke_interval=5, end=1.5, silent_fail=True)
    path, kwargs = trigger.serialize()
    again = import_string(path)(**kwargs)
    assert again.serialize() == (path, kwargs)


# -- the example ----------------------------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "dags"


@pytest.fixture
def backed_up(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., Any],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    run_dag: Callable[..., Any],
) -> Repository:
    """The repository on S3 after a night: ``dvdrental``, by the other example."""
    rows = ("create table rental (id int)", "insert into rental select generate_series(1, 2000)")
    with server18.params.connect() as connection:
        connection.execute("drop database if exists dvdrental")
    postgres_connection("dvdrental", fresh_database(server18, "dvdrental", *rows))
    aws_connection()
    bucket = s3.bucket()
    monkeypatch.setenv("PGBACKUP_LOCAL", (tmp_path / "repository").as_uri())
    monkeypatch.setenv("PGBACKUP_REMOTE", f"s3://{bucket}/pg")
    run = run_dag(EXAMPLES / "dvdrental_nightly.py", conf={"init": True})
    assert set(run.states.values()) == {"success"}, run.output
    return open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))


def older(repository: Repository, backup: Backup, made: int | datetime) -> None:
    """The same backup, as if it had been made so many nights before, or at that time."""
    at = made if isinstance(made, datetime) else backup.started_at - timedelta(days=made)
    evidence = read_evidence(repository, backup.series, backup.id)
    old = evidence.require_manifest()
    new = replace(old, id=backup_id(at, seed="older"), started_at=at)
    (file,) = new.artifact.files
    repository.write_bytes(new.key(file), repository.read_bytes(old.key(file)))
    for seen in evidence.verifications:
        look = replace(seen, backup_id=new.id, finished_at=at + timedelta(minutes=1))
        key = verification_key(new.series, new.id, at=look.finished_at, level=look.level, result=look.result)
        repository.write_bytes(key, look.to_json())
    repository.write_bytes(manifest_key(new.series, new.id), new.to_json())


def test_example(backed_up: Repository, run_dag: Callable[..., Any]) -> None:
    (newest,) = read_catalogue(backed_up).backups
    for nights in (2, 4, 6, 10, 12):  # with today six days, whatever daylight saving does, and at most three weeks
        older(backed_up, newest, nights)
    run = run_dag(EXAMPLES / "prune_and_freshness.py")
    assert run.states == {"fresh": "success", "prune": "success", "sweep": "success"}, run.output
    assert run.results["fresh"]["series"][0]["rows"] == 2000
    # Every policy of days, weeks and months that is not full yet keeps the oldest; nothing goes so soon.
    assert (run.results["prune"]["dry_run"], run.results["prune"]["removed"]) == (False, 0)
    # Of three more days, of one week, the last is kept for all three policies and the first as the oldest.
    for day in (10, 11, 12):
        older(backed_up, newest, datetime(2024, 9, day, 12, tzinfo=timezone.utc))
    others = add(backed_up, *(700 + hour / 24 for hour in range(9)))  # which the sensor does not check
    assert run_dag(EXAMPLES / "prune_and_freshness.py", conf={"delete": False}).results["prune"]["removed"] == 1
    assert len(ids(backed_up)) == 18
    run_dag(EXAMPLES / "prune_and_freshness.py")
    assert len(ids(backed_up)) == 17
    assert set(others) < set(ids(backed_up))


def test_example_deletes_nothing_while_no_good_backups_arrive(
    backed_up: Repository,
    run_dag: Callable[..., Any],
    run_case: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (newest,) = read_catalogue(backed_up).backups
    for nights in (2, 3, 500, 501):
        older(backed_up, newest, nights)
    left = f"{newest.series.path}/{backup_id(datetime(2025, 1, 1, tzinfo=timezone.utc))}/0123abcd/left.dump"
    backed_up.write_bytes(left, b"of a killed dump")
    backed_up.delete([entry.key for entry in list(backed_up.list(newest.folder))])
    run = run_dag(EXAMPLES / "prune_and_freshness.py")
    assert run.states == {"fresh": "failed", "prune": "upstream_failed", "sweep": "success"}
    assert "the newest backup verified at archive" in stale(run)
    assert len(ids(backed_up)) == 4
    assert run.results["sweep"]["leftovers"] == []  # it is not a day old
    monkeypatch.setattr("airflow_pgbackup.backup.removal.LEAST_GRACE", timedelta(0))
    run = run_case(f"""
        PgBackupPruneOperator(
            task_id="sweep", repository={backed_up.uri!r}, sweep_only=True, delete=True,
            grace=timedelta(0),
        )
        """)
    assert run.states == {"sweep": "success"}, run.output
    assert "swept 1 leftover; no backup is deleted" in run.output
    assert len(ids(backed_up)) == 4
    assert backed_up.stat(left) is None


def test_the_deadline_alert_of_the_documentation(tmp_path: Path, load_dag: Callable[..., Any]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    text = (EXAMPLES.parent / "docs" / "reference" / "freshness.md").read_text()
    file = tmp_path / "documented.py"
    file.write_text(text.partition("<!-- example -->\n```python\n")[2].partition("```\n")[0])
    dag = load_dag(file)
    assert dag.task_ids == ["dump"]
    (alert,) = DagSerialization.to_dict(dag)["dag"]["deadline"]
    assert "SnsNotifier" in str(alert)
