"""Assets: which tasks emit an event for which backup, as the metadata database has it, and which URIs are valid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk import Asset

from airflow_pgbackup.assets import (
    DUMPED,
    VERIFIED,
    backup_asset,
    emit,
    emit_refreshed,
    normalize_uri,
    refreshed_asset,
)
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.provider_info import get_provider_info

RunDag = Callable[..., Any]
EVERY_NAME = [
    "app",
    "App",
    "..",
    "a/b",
    "@cluster",
    "a b?verified=restore#x",
    "ä 'quoted\"",
    "\u202e",
    "user:pw@x",
    "[::1",
]


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> ConnectionParams:
    params = fresh_database(server18, None, "CREATE TABLE film (id int)", "INSERT INTO film VALUES (1), (2)")
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


@pytest.fixture
def events(airflow_db: Path) -> Callable[[], list[tuple[str, dict[str, Any]]]]:
    """Return a function that returns URI and extra of each event since the test began."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    with create_session() as session:
        before = session.scalar(select(func.max(AssetEvent.id))) or 0

    def read() -> list[tuple[str, dict[str, Any]]]:
        with create_session() as session:
            found = session.scalars(select(AssetEvent).where(AssetEvent.id > before).order_by(AssetEvent.id))
            return [(str(event.uri), dict(event.extra)) for event in found]

    return read


@pytest.mark.parametrize("name", EVERY_NAME)
def test_every_name_has_a_uri_of_its_own(name: str) -> None:
    asset = backup_asset(name, name)
    assert asset.uri == asset.name
    assert asset.uri.isascii()
    assert normalize_uri(urlsplit(asset.uri)).geturl() == asset.uri
    assert len({backup_asset(one, other).uri for one in EVERY_NAME for other in EVERY_NAME}) == len(EVERY_NAME) ** 2


def test_the_uri_is_that_of_the_series() -> None:
    assert backup_asset("prod", "app").uri == "pgbackup://prod/app?verified=archive"
    assert backup_asset("prod", "app", None).uri == "pgbackup://prod/app"
    assert backup_asset("prod", "a/b", "restore").uri == "pgbackup://prod/a%2Fb?verified=restore"
    assert backup_asset("prod", scope="globals").uri == "pgbackup://prod/@globals?verified=archive"
    assert backup_asset("prod", "@globals").uri == "pgbackup://prod/%40globals?verified=archive"
    with pytest.raises(ConfigurationError, match="invalid level 'restored'"):
        backup_asset("prod", "app", "restored")
    with pytest.raises(ConfigurationError, match="name is empty"):
        backup_asset("prod", "")


@pytest.mark.parametrize(
    "uri",
    [
        "pgbackup://prod",
        "pgbackup://prod/a b",
        "pgbackup://prod/a/b",
        "pgbackup://prod/a?verified=yes",
        "pgbackup://prod/a?level=archive",
        "pgbackup:///a",
    ],
)
def test_airflow_refuses_a_uri_that_would_have_no_events(uri: str) -> None:
    with pytest.raises(ValueError, match=r"not the URI of a backup asset.*HINT: Use backup_asset"):
        Asset(uri)


class Outlets(dict[Any, Any]):
    """As the ``outlet_events`` of a context: keeps the assets of the events that a task adds."""

    def __init__(self) -> None:
        self.uris: list[str] = []

    def __missing__(self, alias: object) -> Outlets:
        return self

    def add(self, asset: Asset, extra: dict[str, Any]) -> None:
        self.uris.append(asset.uri)


def started_by(*events: tuple[str, dict[str, str]]) -> tuple[Any, Outlets]:
    """Return the context of a run that events of these assets and backups started, and its outlets."""
    from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult as Event
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    made = [
        Event.model_validate(
            {
                "asset": {"name": uri, "uri": uri, "extra": {}},
                "extra": {"backup": backup},
                **dict.fromkeys(("source_task_id", "source_dag_id", "source_run_id", "source_map_index")),
                "source_aliases": [{"name": VERIFIED.name}],
                "timestamp": "2026-11-29T02:00:00Z",
            }
        )
        for uri, backup in events
    ]
    outlets = Outlets()
    return {"outlet_events": outlets, "triggering_asset_events": TriggeringAssetEventsAccessor.build(made)}, outlets


def test_no_run_starts_its_own_dag_without_end(caplog: pytest.LogCaptureFixture) -> None:
    backup = {"series": "prod/app", "id": "20261129T020000Z-abcdef", "repository_uuid": "one"}
    rehearsed, archived = (backup_asset("prod", "app", level).uri for level in ("restore", "archive"))

    def verify(*events: tuple[str, dict[str, str]]) -> list[str]:
        context, outlets = started_by(*events)
        emit(context, VERIFIED, backup, "restore", {})
        return outlets.uris

    with caplog.at_level("INFO"):
        assert verify((archived, backup), (rehearsed, backup)) == []
    assert caplog.messages == [f"emitting no event of {rehearsed}: one of this backup started the run"]
    assert verify((archived, backup)) == [rehearsed]
    assert verify((rehearsed, {**backup, "id": "20261128T020000Z-abcdef"})) == [rehearsed]
    assert verify((rehearsed, {**backup, "repository_uuid": "copies"})) == [rehearsed]
    assert verify() == [rehearsed]

    refreshed = {"reference": backup, **dict.fromkeys(("replaced", "rows", "database_bytes", "duration_seconds"))}
    staging = refreshed_asset("staging", "app")
    for started, expected in ((archived, [staging.uri]), (staging.uri, [])):
        context, outlets = started_by((started, backup))
        emit_refreshed(context, staging, {**refreshed, "database": "app"})
        assert outlets.uris == expected


def test_the_handler_is_registered() -> None:
    (entry,) = get_provider_info()["asset-uris"]
    assert (entry["schemes"], entry["handler"]) == (["pgbackup"], "airflow_pgbackup.assets.normalize_uri")


def test_tasks_declare_their_outlets_when_the_dag_is_parsed(load_dag: Callable[..., Any]) -> None:
    dag = load_dag("""
from airflow.sdk import Asset
mine = Asset("x-mine://asset")
PgDumpOperator(task_id="dump", repository="file:///r")
PgDumpAllOperator(task_id="cluster", repository="file:///r", outlets=[mine])
PgDumpOperator(task_id="proven", repository="file:///r", verify="archive")
PgDumpOperator.partial(task_id="many", repository="file:///r", verify="archive").expand(database=["a"])
PgBackupVerifyOperator(task_id="verify", backup={})
PgBackupVerifyOperator.partial(task_id="mapped", outlets=[mine]).expand(backup=[{}])
PgBackupVerifyOperator.partial(task_id="plain").expand(backup=[{}])
PgBackupUploadOperator(task_id="upload", backup={}, destination="file:///s")
""")
    mine = Asset("x-mine://asset")
    assert {task.task_id: task.outlets for task in dag.tasks} == {
        "dump": [DUMPED],
        "cluster": [mine, DUMPED],
        "proven": [DUMPED, VERIFIED],
        "many": [DUMPED, VERIFIED],
        "verify": [VERIFIED],
        "mapped": [mine, VERIFIED],
        "plain": [VERIFIED],
        "upload": [],
    }


def test_one_event_for_each_dump_and_each_verification(
    database: ConnectionParams, folder: Path, run_dag: RunDag, events: Callable[[], Any]
) -> None:
    run = run_dag(f"""
dump = PgDumpOperator(
    task_id="dump", postgres_conn_id="db", server="prod", repository={folder.as_uri()!r}, count_rows=True
)
verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
PgBackupVerifyOperator(task_id="again", backup=verify.output, level="integrity")
roles = PgDumpAllOperator(task_id="roles", postgres_conn_id="db", repository={folder.as_uri()!r}, roles_only=True)
""")
    assert set(run.states.values()) == {"success"}, run.output
    name = database.dbname
    found = dict(events())
    assert len(events()) == len(found)
    assert {uri: (extra["backup"], extra["level"]) for uri, extra in found.items()} == {
        "pgbackup://db/@roles": (run.results["roles"], None),
        f"pgbackup://prod/{name}": (run.results["dump"], None),
        f"pgbackup://prod/{name}?verified=archive": (run.results["verify"], "archive"),
        f"pgbackup://prod/{name}?verified=integrity": (run.results["again"], "integrity"),
    }
    for extra in found.values():
        assert (extra["size"], extra["sha256"]) == (extra["backup"]["size"], extra["backup"]["sha256"])
        assert extra["duration_seconds"] > 0
        assert extra["restore_seconds"] is None
    rows = {uri.partition("?")[2] or "dump": extra["rows"] for uri, extra in found.items() if "prod" in uri}
    # Compressed by this package, so level integrity reads it to its end, too.
    assert rows == {"dump": 2, "verified=archive": 2, "verified=integrity": 2}
    password = database.get_password()
    assert password is None or password not in json.dumps(events())


def test_a_rehearsal_emits_its_event_with_the_restore_time(
    database: ConnectionParams, folder: Path, run_dag: RunDag, events: Callable[[], Any]
) -> None:
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupVerifyOperator(task_id="rehearse", backup=dump.output, level="restore", scratch_conn_id="db")
""")
    assert set(run.states.values()) == {"success"}, run.output
    extra = dict(events())[f"pgbackup://db/{database.dbname}?verified=restore"]
    assert (extra["level"], extra["rows"], extra["backup"]["verified"]) == ("restore", 2, "restore")
    assert 0 < extra["restore_seconds"] <= extra["duration_seconds"]
    (report,) = folder.glob(f"db/{database.dbname}/*/verification-*.json")
    assert json.loads(report.read_text())["restore_seconds"] == extra["restore_seconds"]


def test_no_event_for_a_failed_or_unproven_backup(
    database: ConnectionParams, folder: Path, run_dag: RunDag, events: Callable[[], Any], postgres_connection: Any
) -> None:
    postgres_connection("nowhere", database, port=1)
    run = run_dag(f"""
from airflow_pgbackup.assets import backup_asset
PgDumpOperator(task_id="refused", postgres_conn_id="nowhere", repository={folder.as_uri()!r})
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})

@task
def spoil(backup):
    from pathlib import Path
    artifact = Path({str(folder)!r}) / backup["key"]
    artifact.chmod(0o600)
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
    return backup

spoiled = spoil(dump.output)
PgBackupVerifyOperator(task_id="failed", backup=spoiled)
PgBackupVerifyOperator(task_id="unproven", backup=dump.output, level="restore", scratch_conn_id="nowhere")
""")
    assert (run.states["failed"], run.states["unproven"], run.states["refused"]) == ("failed",) * 3, run.output
    assert [uri for uri, _ in events()] == [f"pgbackup://db/{database.dbname}"]


def test_a_retry_that_finds_the_backup_emits_one_event(
    database: ConnectionParams, folder: Path, run_clear_run: Callable[..., Any], events: Callable[[], Any]
) -> None:
    first, _ = run_clear_run(f"""
from datetime import timedelta

def die_once(context, result):
    if context["ti"].try_number == 1:
        raise RuntimeError("killed after the commit")

dump = PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, retries=1, retry_delay=timedelta(0),
    post_execute=die_once,
)
PgBackupVerifyOperator(
    task_id="verify", backup=dump.output, retries=1, retry_delay=timedelta(0), post_execute=die_once
)
""")
    assert set(first.states.values()) == {"success"}, first.output
    assert first.output.count("killed after the commit") >= 2
    found = events()
    of_first = [uri for uri, extra in found if extra["backup"]["id"] == first.results["dump"]["id"]]
    name = database.dbname
    assert sorted(of_first) == [f"pgbackup://db/{name}", f"pgbackup://db/{name}?verified=archive"]
    # A person who clears the run asks for another backup, which has its own events.
    assert len(found) == 4


def test_one_event_for_each_of_100_mapped_series_also_after_retries(
    database: ConnectionParams, folder: Path, run_dag: RunDag, events: Callable[[], Any], tmp_path: Path
) -> None:
    run = run_dag(f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})')
    made = run.results["dump"]
    series = [f"s{number}" for number in range(100)]
    source = folder / made["series"] / made["id"]
    references = []
    for server in series:
        copy = folder / server / database.dbname / made["id"]
        shutil.copytree(source, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["series"]["server"] = server
        (copy / "manifest.json").chmod(0o600)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        references.append({**made, "series": f"{server}/{database.dbname}"})
    damaged, retried = range(0, 100, 20), range(1, 100, 20)
    for number in damaged:
        artifact = folder / series[number] / made["key"].partition("/")[2]
        artifact.chmod(0o600)
        artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
    run = run_dag(
        f"""
from datetime import timedelta

def die_once(context, result):
    ti = context["ti"]
    if ti.try_number == 1 and ti.map_index in {[*retried]!r}:
        raise RuntimeError("killed after the verification")

PgBackupVerifyOperator.partial(
    task_id="verify", level="integrity", retries=1, retry_delay=timedelta(0), post_execute=die_once
).expand(backup={references!r})
""",
        retries=True,
    )
    failed = [task for task, state in run.states.items() if state != "success"]
    assert sorted(failed) == sorted(f"verify[{number}]" for number in damaged), run.output
    assert run.output.count("RuntimeError: killed after the verification") == len(retried)
    verified = sorted(uri for uri, extra in events() if extra["level"])
    proven = [server for number, server in enumerate(series) if number not in damaged]
    assert verified == sorted(f"pgbackup://{server}/{database.dbname}?verified=integrity" for server in proven)


def test_a_dump_that_is_verified_while_it_is_written_emits_both_events(
    database: ConnectionParams, folder: Path, run_dag: RunDag, events: Callable[[], Any]
) -> None:
    run = run_dag(f"""
PgDumpOperator(
    task_id="dump", postgres_conn_id="db", server="prod", repository={folder.as_uri()!r}, verify="archive"
)
PgDumpOperator(
    task_id="tar", postgres_conn_id="db", server="old", repository={folder.as_uri()!r}, verify="archive", format="tar"
)
PgDumpOperator(
    task_id="refused", postgres_conn_id="db", repository={folder.as_uri()!r}, verify="restore"
)
""")
    states = {"dump": "success", "tar": "success", "refused": "failed"}
    assert run.states == states, run.output
    assert "while it is written" in run.output
    name = database.dbname
    assert {(uri, extra["backup"]["verified"]) for uri, extra in events()} == {
        (f"pgbackup://{server}/{name}{level}", "archive")
        for server in ("prod", "old")
        for level in ("", "?verified=archive")
    }
    assert len(list(folder.glob("*/*/*/verification-*-archive-pass.json"))) == 2
