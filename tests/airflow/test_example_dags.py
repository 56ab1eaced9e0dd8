"""Every DAG in dags/ loads without error, and does what it says on a real PostgreSQL and a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

EXAMPLES = Path(__file__).parents[2] / "dags"

STATEMENTS = (
    "CREATE TABLE rental (id int PRIMARY KEY, note text)",
    "INSERT INTO rental SELECT i, 'rental ' || i FROM generate_series(1, 1000) i",
    "CREATE TABLE payment (id int PRIMARY KEY, amount numeric)",
    "INSERT INTO payment SELECT i, i * 1.5 FROM generate_series(1, 500) i",
    "CREATE TABLE payment_archive (id int PRIMARY KEY)",
    "INSERT INTO payment_archive SELECT generate_series(1, 200)",
    "CREATE TABLE film_old (id int)",
)


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., Any],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
) -> str:
    """What the examples expect: a database, a server, S3, and the two places. The name of the bucket."""
    database = fresh_database(server18, None, *STATEMENTS)
    bucket = s3.bucket()
    postgres_connection("dvdrental", database)
    postgres_connection("postgres_default", server18.params)
    aws_connection()
    monkeypatch.setenv("PGBACKUP_LOCAL", (tmp_path / "repository").as_uri())
    monkeypatch.setenv("PGBACKUP_REMOTE", f"s3://{bucket}/pg")
    return bucket


def manifest_of(s3: S3Server, bucket: str, reference: dict[str, Any]) -> dict[str, Any]:
    return read_json(s3, bucket, f"pg/{reference['series']}/{reference['id']}/manifest.json")


def read_json(s3: S3Server, bucket: str, key: str) -> Any:
    import json

    return json.loads(s3.client().get_object(Bucket=bucket, Key=key)["Body"].read())


def rows_of(s3: S3Server, bucket: str, reference: dict[str, Any]) -> dict[str, int]:
    """Rows per table, from the verification that lies beside the backup on S3."""
    prefix = f"pg/{reference['series']}/{reference['id']}/verification-"
    (entry,) = s3.client().list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    tables = read_json(s3, bucket, entry["Key"])["tables"]
    return {table["name"]: table["rows"] for table in tables}


def test_examples_load_without_error(airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.syspath_prepend(EXAMPLES)  # as Airflow does
    bag = DagBag(EXAMPLES)
    assert bag.import_errors == {}
    of_fleet = {"fleet", "fleet_alerts"}  # test_fleet has its DAGs
    assert {dag_id for dag_id in bag.dags if not dag_id.startswith("pgbackup_")} == {
        path.stem for path in EXAMPLES.glob("*.py")
    } - of_fleet


def test_dvdrental_nightly(world: str, s3: S3Server, run_dag: Callable[..., Any]) -> None:
    run = run_dag(EXAMPLES / "dvdrental_nightly.py", conf={"init": True})
    assert run.states == {"dump": "success", "verify": "success", "upload": "success"}, run.output
    reference = run.results["upload"]
    assert reference["artifact"].endswith(".dump")
    assert reference["verified"] == "archive"
    assert rows_of(s3, world, reference) == {"rental": 1000, "payment": 500, "payment_archive": 200, "film_old": 0}
    manifest = manifest_of(s3, world, reference)
    assert manifest["origin"]["dag_id"] == "dvdrental_nightly"
    assert manifest["artifact"]["format"] == "custom"
    # progress is in the task's log
    assert "dvdrental" in run.output


def test_second_run_needs_no_init(world: str, run_dag: Callable[..., Any]) -> None:
    first = run_dag(EXAMPLES / "dvdrental_nightly.py", conf={"init": True})
    second = run_dag(EXAMPLES / "dvdrental_nightly.py")
    assert set(second.states.values()) == {"success"}, second.output
    assert second.results["dump"]["id"] != first.results["dump"]["id"]


def test_without_init_a_missing_repository_is_an_error(world: str, run_dag: Callable[..., Any]) -> None:
    run = run_dag(EXAMPLES / "dvdrental_nightly.py")
    assert run.states["dump"] in ("failed", "up_for_retry")
    assert "no repository at file://" in run.failure
    assert "HINT: " in run.failure


def test_all_databases_nightly(world: str, s3: S3Server, run_dag: Callable[..., Any]) -> None:
    run = run_dag(EXAMPLES / "all_databases_nightly.py", conf={"init": True})
    assert set(run.states.values()) == {"success"}, run.output
    result = run.results["pg_cluster_backup.set"]
    assert (result["status"], result["server"]) == ("complete", "main")
    uploads = {run.results[task]["series"]: run.results[task] for task in run.states if ".upload" in task}
    assert len(uploads) == result["databases"] + 1
    assert uploads["main/@globals"]["verified"] == "archive"
    (rental,) = [one for one in uploads.values() if rows_of(s3, world, one).get("rental")]
    assert rental["format"] == "custom"
    listed = s3.client().list_objects_v2(Bucket=world, Prefix=f"pg/{result['set']}/")["Contents"]
    (copy,) = [read_json(s3, world, each["Key"]) for each in listed]
    assert (copy["status"], len(copy["databases"])) == ("complete", result["databases"])


def test_definitions_weekly(world: str, s3: S3Server, run_dag: Callable[..., Any]) -> None:
    run = run_dag(EXAMPLES / "definitions_weekly.py", conf={"init": True})
    assert set(run.states.values()) == {"success"}, run.output
    texts = {}
    for task in ("schema", "roles", "tablespaces"):
        reference = run.results[task]
        key = f"pg/{reference['key']}"
        body = s3.client().get_object(Bucket=world, Key=key)["Body"].read()
        if key.endswith(".zst"):
            import io

            import zstandard

            body = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
        elif key.endswith(".gz"):
            import gzip

            body = gzip.decompress(body)
        texts[task] = body.decode()
    assert "CREATE TABLE public.rental" in texts["schema"]
    assert "COPY public.rental" not in texts["schema"]
    assert "CREATE ROLE" in texts["roles"]
    assert "CREATE TABLE" not in texts["roles"]
    assert "CREATE ROLE" not in texts["tablespaces"]


def test_selection_daily(world: str, s3: S3Server, run_dag: Callable[..., Any]) -> None:
    run = run_dag(EXAMPLES / "selection_daily.py", conf={"init": True})
    assert set(run.states.values()) == {"success"}, run.output
    tables, schemas = run.results["tables.verify"], run.results["schemas.verify"]
    assert tables["format"] == schemas["format"] == "custom"
    assert rows_of(s3, world, tables) == {"rental": 1000, "payment": 500}
    assert rows_of(s3, world, schemas) == {"rental": 1000, "payment": 500, "payment_archive": 200}


@pytest.mark.parametrize(("task", "level"), [("verify", "archive"), ("rehearse", "restore")])
def test_one_named_backup(
    task: str,
    level: str,
    world: str,
    s3: S3Server,
    run_dag: Callable[..., Any],
    aws_connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand and from the Backups page: verify_backup.py and rehearse_backup.py."""
    repository = f"s3://{world}/pg"
    aws_connection("other_account")
    monkeypatch.setenv("PGBACKUP_AWS_CONN_IDS", "aws_default,other_account")
    monkeypatch.setenv("PGBACKUP_REPOSITORIES", f"s3://another/pg,{repository}")
    made = run_dag(EXAMPLES / "dvdrental_nightly.py", conf={"init": True}).results["upload"]
    aws_connection(login="revoked")
    conf = {
        "repository": repository,
        "series": made["series"],
        "backup_id": made["id"],
        "aws_conn_id": "other_account",
    }
    run = run_dag(EXAMPLES / f"{task}_backup.py", conf=conf)
    assert run.states == {"choose": "success", task: "success"}, run.output
    assert (run.results[task]["id"], run.results[task]["verified"]) == (made["id"], level)

    for wrong in (
        {"repository": "file:///etc"},
        {"series": "../../other"},
        {"series": "x" * 2000 + "/y"},
        {"backup_id": "latest"},
        {"backup_id": "../../x"},
        {"backup_id": f"{made['id']}/.."},
        {"aws_conn_id": "not_listed"},
    ):
        with pytest.raises(Exception, match="Invalid input for param"):
            run_dag(EXAMPLES / f"{task}_backup.py", conf=conf | wrong)
    with pytest.raises(Exception, match="No value passed"):
        run_dag(EXAMPLES / f"{task}_backup.py", conf={"repository": repository})
    unknown = run_dag(EXAMPLES / f"{task}_backup.py", conf=conf | {"series": "no/such"})
    assert unknown.states == {"choose": "failed", task: "upstream_failed"}
    assert f"no backup of no/such is in {repository}" in unknown.output


def test_a_backup_is_encrypted_to_other_keys_by_hand(
    world: str, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("PGBACKUP_REPOSITORIES", f"s3://{world}/pg")
    monkeypatch.setenv("AIRFLOW__PGBACKUP__RECIPIENTS", str(owner.to_public()))
    monkeypatch.setenv("AIRFLOW__PGBACKUP__IDENTITY_CONN_ID", "owner")
    monkeypatch.setenv("AIRFLOW_CONN_OWNER", json.dumps({"conn_type": "generic", "password": str(owner)}))
    made = run_dag(EXAMPLES / "dvdrental_nightly.py", conf={"init": True}).results["upload"]
    assert made["artifact"].endswith(".age")
    later = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("AIRFLOW__PGBACKUP__RECIPIENTS", str(later.to_public()))
    conf = {"repository": f"s3://{world}/pg", "series": made["series"], "backup_id": made["id"]}
    run = run_dag(EXAMPLES / "rewrap_backup.py", conf=conf)
    assert run.states == {"choose": "success", "rewrap": "success"}, run.output
    new = run.results["rewrap"]
    assert (new["id"] > made["id"], new["verified"]) == (True, made["verified"])
    assert str(owner) not in run.output
    again = run_dag(EXAMPLES / "rewrap_backup.py", conf=conf)
    assert again.results["rewrap"]["id"] == new["id"]


def test_the_drill_and_the_retention_work_on_what_the_others_make(
    world: str, s3: S3Server, run_dag: Callable[..., Any]
) -> None:
    # Not all_databases_nightly: other tests make and drop databases on that server.
    for name in ("dvdrental_nightly", "definitions_weekly", "selection_daily"):
        run = run_dag(EXAMPLES / f"{name}.py", conf={"init": True})
        assert set(run.states.values()) == {"success"}, run.output
    run = run_dag(EXAMPLES / "weekly_drill.py")
    rehearsed = {task: state for task, state in run.states.items() if task.startswith("rehearse")}
    assert set(rehearsed.values()) == {"success"}, run.output
    assert {run.results[task]["verified"] for task in rehearsed} == {"restore"}
    assert {run.results[task]["series"].partition("/")[0] for task in rehearsed} == {
        *("dvdrental", "definitions", "rentals", "schemas")
    }
    run = run_dag(EXAMPLES / "prune_and_freshness.py", conf={"delete": False})
    assert run.states["sweep"] == "success", run.output
