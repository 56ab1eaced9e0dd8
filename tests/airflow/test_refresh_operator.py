"""PgRefreshOperator in DAG runs, its task group, and the example that refreshes staging."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from airflow_pgbackup.assets import backup_asset, normalize_uri, refreshed_asset
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError, RepositoryMismatch
from airflow_pgbackup.operators._choose_backup import ChooseBackupOperator, backup_of_event
from airflow_pgbackup.operators.refresh import PgRefreshOperator
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.open import open_repository

RunDag = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "dags" / "refresh_staging.py"
IMPORT = """
from airflow_pgbackup.operators.refresh import PgRefreshOperator
from airflow_pgbackup.pipelines import pg_refresh
"""


@pytest.fixture
def staging(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> Iterator[ConnectionParams]:
    """The connections ``source`` and ``staging``; the latter's database."""
    source = fresh_database(
        server18, None, "create table film (id int)", "insert into film select generate_series(1, 300)"
    )
    params = fresh_database(server18, None, "create table film (id int)")
    postgres_connection("source", source)
    postgres_connection("staging", params)
    yield params
    with server18.params.connect() as session:
        query = "select datname from pg_database where starts_with(datname, %s)"
        for (name,) in session.execute(query, [f"{params.dbname}_before_"]).fetchall():
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def films(connection: ConnectionParams) -> int:
    with connection.connect() as session:
        row = session.execute("select count(*) from film").fetchone()
        assert row is not None
        return int(row[0])


def dump(folder: Path) -> str:
    return f"made = pg_backup(postgres_conn_id='source', repository={folder.as_uri()!r}, check=False)\n"


def test_a_refresh_and_its_event(staging: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run = run_dag(
        IMPORT + dump(folder) + "PgRefreshOperator(task_id='refresh', postgres_conn_id='staging', backup=made.output)"
    )
    result = run.results["refresh"]
    assert films(staging) == result["rows"] == 300, run.output
    assert result["kept"] == [result["replaced"]]
    with create_session() as session:
        uri = refreshed_asset("staging", staging.dbname).uri
        (event,) = [event for event in session.scalars(select(AssetEvent)) if event.uri == uri]
        assert event.extra["backup"] == result["reference"]
        assert (event.extra["rows"], event.extra["database"]) == (300, staging.dbname)


def test_an_unverified_backup_is_refused_without_retries(
    staging: ConnectionParams, folder: Path, run_dag: RunDag
) -> None:
    run = run_dag(
        IMPORT
        + f"made = PgDumpOperator(task_id='dump', postgres_conn_id='source', repository={folder.as_uri()!r})\n"
        + "PgRefreshOperator(task_id='refresh', postgres_conn_id='staging', backup=made.output, retries=3)",
        retries=True,
    )
    assert run.states["refresh"] == "failed"
    assert "not verified yet, and archive is required. HINT: Verify it at level archive first, or choose" in run.failure
    assert films(staging) == 0


def test_a_lost_result(staging: ConnectionParams, folder: Path, run_dag: RunDag, server18: PostgresServer) -> None:
    """The task's retry returns what the first attempt completed."""
    run = run_dag(
        IMPORT
        + dump(folder)
        + """
from datetime import timedelta
from airflow.sdk.exceptions import AirflowException

class LosesItsFirst(PgRefreshOperator):
    def _run(self, context, run):
        made = super()._run(context, run)
        if context["ti"].try_number == 1:
            raise AirflowException("lost " + made["replaced"])
        return made

LosesItsFirst(
    task_id="refresh", postgres_conn_id="staging", backup=made.output, retries=1, retry_delay=timedelta(0)
)
""",
        retries=True,
    )
    assert run.states["refresh"] == "success", run.output
    assert f"lost {run.results['refresh']['replaced']}" in run.output
    assert run.results["refresh"]["kept"] == [run.results["refresh"]["replaced"]]


def test_mapped_with_templates_and_a_plan(
    staging: ConnectionParams, folder: Path, run_dag: RunDag, server18: PostgresServer, fresh_database: Any
) -> None:
    other = fresh_database(server18, None, "create table film (id int)")
    run = run_dag(
        IMPORT
        + dump(folder)
        + f"""
PgRefreshOperator.partial(
    task_id="refresh", postgres_conn_id="staging", backup=made.output, keep="{{{{ 0 }}}}", jobs="{{{{ 2 }}}}",
).expand(database=[{staging.dbname!r}, {other.dbname!r}])
PgRefreshOperator(
    task_id="plan", postgres_conn_id="staging", backup=made.output, plan_only="{{{{ True }}}}", keep="no"
)
"""
    )
    assert films(staging) == films(other) == 300, run.output
    assert [run.results[f"refresh[{index}]"]["kept"] for index in (0, 1)] == [[], []]
    assert run.failure == "invalid keep 'no'. HINT: Pass a whole number, 0 or more."


def test_masked_by_a_file_of_rules(
    staging: ConnectionParams, folder: Path, run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789abcdef of the tests"
    monkeypatch.setenv("AIRFLOW_CONN_MASKS", json.dumps({"conn_type": "generic", "password": key}))
    (tmp_path / "masking.yaml").write_text("columns:\n  public.film.id: {generalize: 1000}\n")
    run = run_dag(
        IMPORT
        + dump(folder)
        + f"""
PgRefreshOperator(
    task_id="refresh", postgres_conn_id="staging", backup=made.output, keep=0,
    rules="{tmp_path}/{{{{ 'masking' }}}}.yaml", masking_key_conn_id="masks",
    checks=["select count(*) = 300 from film"],
)
"""
    )
    assert run.states["refresh"] == "success", run.output
    with staging.connect() as session:
        assert session.execute("select distinct id from film").fetchall() == [(0,)]
    assert run.results["refresh"]["masked_columns"] == 1
    assert key not in run.output


def test_an_empty_value_is_not_taken_for_none(
    staging: ConnectionParams, folder: Path, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that renders to nothing would turn off masking, the subset, the checks, or choose another database."""
    monkeypatch.setenv("AIRFLOW_CONN_MASKS", json.dumps({"conn_type": "generic", "password": "0123456789abcdef"}))
    empty = "{{ var.value.get('unset', '') }}"
    cases = {
        "rules": f'rules="{empty}", masking_key_conn_id="masks"',
        "masking_key_conn_id": f'masking_key_conn_id="{empty}"',
        "subset": f'subset="{empty}"',
        "database": f'database="{empty}"',
        "checks": f'checks="{empty}"',
        "key": 'masking_key_conn_id="masks"',
    }
    run = run_dag(
        IMPORT
        + dump(folder)
        + "".join(
            f"PgRefreshOperator(task_id={name!r}, postgres_conn_id='staging', backup=made.output, {more})\n"
            for name, more in cases.items()
        )
        + f"""
PgDumpOperator(
    task_id="uuid", postgres_conn_id="source", repository={folder.as_uri()!r}, repository_uuid="{empty}"
)
PgDumpOperator(task_id="keys", postgres_conn_id="source", repository={folder.as_uri()!r}, recipients=["{empty}"])
PgBackupVerifyOperator(task_id="scratch", backup=made.output, level="restore", scratch_conn_id="{empty}")
"""
    )
    assert {name: run.states[name] for name in (*cases, "uuid", "keys", "scratch")} == dict.fromkeys(
        (*cases, "uuid", "keys", "scratch"), "failed"
    ), run.output
    for message in (
        *(f"{name} is empty" for name in ("rules", "masking_key_conn_id", "subset", "database", "checks")),
        "a masking key is given, but no rules",
        *(f"{name} is empty" for name in ("repository_uuid", "recipients", "scratch_conn_id")),
    ):
        assert message in run.output
    assert films(staging) == 0


def test_a_task_group_asks_for_the_level_that_is_given(load_dag: Callable[..., Any]) -> None:
    dag = load_dag(
        IMPORT
        + """pg_refresh(
    level="archive", minimum_level="restore", identity_conn_id="key", postgres_conn_id="staging",
    repository="file:///r", series="source/x",
)"""
    )
    refresh, verify = dag.get_task("pg_refresh.refresh"), dag.get_task("pg_refresh.verify")
    assert (refresh.minimum_level, verify.level, verify.identity_conn_id) == ("restore", "archive", "key")


def test_a_task_group_verifies_first(staging: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run_dag(dump(folder))
    common = f"postgres_conn_id='staging', repository={folder.as_uri()!r}, series='source/{{name}}'"
    with_name = common.format(name="x")
    missing = run_dag(IMPORT + f"pg_refresh({with_name})")
    assert "no backup of source/x is in" in missing.failure
    (name,) = (path.name for path in (folder / "source").iterdir())
    subset = "subset={'where': {'public.film': 'id <= {{ 120 }}'}}"
    run = run_dag(IMPORT + f"pg_refresh(level='integrity', keep=0, {common.format(name=name)}, {subset})")
    assert run.states == dict.fromkeys(("pg_refresh.choose", "pg_refresh.verify", "pg_refresh.refresh"), "success"), (
        run.output
    )
    assert films(staging) == 120
    assert run.results["pg_refresh.refresh"]["subset"] == [{"table": "public.film", "before": 300, "after": 120}]


def test_the_example(
    staging: ConnectionParams,
    run_dag: RunDag,
    monkeypatch: pytest.MonkeyPatch,
    s3: S3Server,
    aws_connection: Callable[..., None],
    tmp_path: Path,
) -> None:
    rules, key = tmp_path / "masking.yaml", tmp_path / "masking.key"
    rules.write_text("columns:\n  public.film.id: hash\n")
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    monkeypatch.setenv("PGBACKUP_MASKING_RULES", str(rules))
    monkeypatch.setenv("AIRFLOW__PGBACKUP__MASKING_KEY_FILE", str(key))
    aws_connection()
    remote = f"s3://{s3.bucket()}/pg"
    monkeypatch.setenv("PGBACKUP_LOCAL", remote)
    monkeypatch.setenv("PGBACKUP_SERVER", "source")
    made = run_dag(
        f"pg_backup(postgres_conn_id='source', repository={remote!r}, check=False, init_repository=True)"
    ).results["pg_backup.verify"]
    monkeypatch.setenv("PGBACKUP_DATABASE", made["database"])
    run = run_dag(EXAMPLE)
    assert run.states == {"staging.refresh": "success"}, run.output
    assert films(staging) == 300
    result = run.results["staging.refresh"]
    assert (result["reference"]["id"], result["masked_columns"]) == (made["id"], 1)
    with staging.connect() as session:
        assert session.execute("select count(*) from film where id between 1 and 300").fetchall() == [(0,)]


@dataclass
class Event:
    extra: Any


def test_the_backup_of_an_event() -> None:
    def backup(id: str, series: str = "prod/app") -> Event:
        return Event({"backup": {"id": id, "series": series}})

    older, newer = backup("20261127T010000Z-aaaaaa"), backup("20261127T020000Z-bbbbbb")
    other = backup("20261128T020000Z-cccccc", "prod/other")
    context: Any = {
        "triggering_asset_events": {
            backup_asset("prod", "app"): [newer, older],
            backup_asset("prod", "other"): [other],
            "of something else": [Event({}), Event(None), Event({"backup": "text"})],
        }
    }
    assert backup_of_event(task(None), context, Cancel()) == other.extra["backup"]
    assert backup_of_event(task("prod/app"), context, Cancel()) == newer.extra["backup"]
    assert backup_of_event(task("prod/third"), context, Cancel()) is None
    assert backup_of_event(task(None), {"triggering_asset_events": {}}, Cancel()) is None  # type: ignore[typeddict-item]


@pytest.mark.parametrize("id", ["zzz", "", "20261128", 5, ["x"], None, "9" * 10**6, "20261128T010000Z-aaaaaa\n"])
def test_an_event_with_an_invalid_id_is_ignored(id: Any) -> None:
    good = {"id": "20261127T010000Z-aaaaaa", "series": "prod/app"}
    chooser = task("prod/app")

    def chosen(*backups: dict[str, Any]) -> Any:
        context: Any = {"triggering_asset_events": {"asset": [Event({"backup": each}) for each in backups]}}
        return backup_of_event(chooser, context, Cancel())

    wrong = {**good, "id": id}
    assert chosen(good, wrong) == chosen(wrong, good) == good
    assert chosen(wrong) is None
    assert len(chooser.log.lines) == 3
    assert {line[:60] for line in chooser.log.lines} == {
        f"ignoring an asset event of prod/app with the invalid id {id!r}"[:60]
    }
    assert max(map(len, chooser.log.lines)) < 300


@pytest.mark.parametrize("id", ["20261128T010000Z-aaaaaa", "99991231T235959Z-aaaaaa"], ids=["pruned", "future"])
def test_an_event_of_a_backup_that_does_not_exist_is_ignored(id: str, folder: Path) -> None:
    repository = open_repository(folder.as_uri())
    good = {
        "id": "20261127T010000Z-aaaaaa",
        "series": "prod/app",
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
    }
    manifest = folder / "prod" / "app" / good["id"] / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    missing = {**good, "id": id}
    chooser = task(None, folder.as_uri())

    def chosen(*backups: dict[str, Any]) -> Any:
        context: Any = {"triggering_asset_events": {"asset": [Event({"backup": each}) for each in backups]}}
        return backup_of_event(chooser, context, Cancel())

    assert chosen(good, missing) == chosen(missing, missing, good) == good
    ignored = f"ignoring an asset event of prod/app/{id}: no such backup in {repository.uri}"
    assert chooser.log.lines == [ignored] * 2
    for series in ("", "app", "../app", "prod/%", 5, None, "prod/" + "a" * 10**5, "prod/app\x00"):
        assert chosen(good, {**missing, "series": series}) == good
    assert max(map(len, chooser.log.lines)) < 400
    assert chosen(missing) == missing  # reading it fails the task, with an error that names the backup
    chooser.log.lines.clear()
    many = [{**missing, "id": f"99991231T235959Z-{number:06x}"} for number in range(1000)]
    assert chosen(good, *many)["id"].startswith("9999")
    assert len(chooser.log.lines) == 50


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)


def task(series: str | None, repository: str | None = None) -> Any:
    return SimpleNamespace(series=series, repository=repository, aws_conn_id=None, log=Log())


def test_of_a_task_with_a_repository_the_event_must_be_of_that_one(folder: Path, tmp_path: Path) -> None:
    uuid = open_repository(folder.as_uri()).uuid
    elsewhere = (tmp_path / "elsewhere").as_uri()

    def backup(time: str, **more: str) -> dict[str, str]:
        return {"id": f"20261127T{time}Z-aaaaaa", "series": "prod/app", **more}

    def chosen(*backups: dict[str, str], repository: str = folder.as_uri()) -> Any:
        context: Any = {"triggering_asset_events": {"asset": [Event({"backup": each}) for each in backups]}}
        return backup_of_event(task("prod/app", repository), context, Cancel())

    own = backup("010000", repository=folder.as_uri(), repository_uuid=uuid)
    other = backup("020000", repository=elsewhere, repository_uuid="another")
    assert chosen(own, other) == own
    assert chosen(own, other, repository=f"{folder.as_uri()}/") == own
    # The UUID is no secret: it is read in the task's repository all the same, and a mount may have another path there.
    assert chosen({**own, "repository": elsewhere}) == own
    assert chosen() is None
    for forged in (other, backup("020000", repository=folder.as_uri()), {**own, "repository_uuid": "another"}):
        with pytest.raises(RepositoryMismatch, match="the asset event is of a backup in ") as error:
            chosen(forged)
        assert forged["repository"] in str(error.value)
        assert f"not in {folder.as_uri()} (repository {uuid})" in str(error.value)
    with pytest.raises(ConfigurationError, match="repository is empty"):
        chosen(own, repository=" ")


@pytest.mark.parametrize("level", ["", "level='integrity', "], ids=["refreshed", "chosen"])
def test_an_event_does_not_redirect_a_refresh(
    staging: ConnectionParams,
    folder: Path,
    tmp_path: Path,
    run_dag: RunDag,
    level: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = (tmp_path / "elsewhere").as_uri()
    made = run_dag(
        f"pg_backup(postgres_conn_id='source', repository={elsewhere!r}, check=False, init_repository=True)"
    ).results["pg_backup.verify"]
    started_by = {"triggering_asset_events": {"asset": [Event({"backup": made})]}}
    operator: Any = ChooseBackupOperator if level else PgRefreshOperator
    original = operator._run
    monkeypatch.setattr(operator, "_run", lambda self, context, run: original(self, {**context, **started_by}, run))
    common = f"postgres_conn_id='staging', repository={folder.as_uri()!r}, series={made['series']!r}, keep=0"
    run = run_dag(IMPORT + f"pg_refresh({level}{common})")
    assert run.states["pg_refresh.choose" if level else "pg_refresh.refresh"] == "failed", run.output
    assert run.failure.startswith(f"the asset event is of a backup in {elsewhere} (repository ")
    assert films(staging) == 0


def test_the_asset_of_a_refreshed_database() -> None:
    asset = refreshed_asset("staging", "a/b")
    assert asset.uri == "pgbackup://staging/a%2Fb?refreshed=yes"
    assert normalize_uri(urlsplit(asset.uri)).geturl() == asset.uri
