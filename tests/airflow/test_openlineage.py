"""What the OpenLineage provider's own emitter sends about our tasks, into a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from live import LiveAirflow

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.operators._lineage import MOST_TABLES, Work, artifact, lineage
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.verification import Check, TableResult, Verification

NOW = datetime.now(timezone.utc)
DAG = """
from airflow.sdk import DAG
from airflow_pgbackup.operators.dump import PgDumpOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
from airflow_pgbackup.operators.upload import PgBackupUploadOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator

with DAG("chain", schedule=None):
    dump = PgDumpOperator(task_id="dump", postgres_conn_id="source", repository={local!r})
    verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
    upload = PgBackupUploadOperator(task_id="upload", backup=verify.output, destination={remote!r})
    again = PgBackupVerifyOperator.partial(task_id="again", level="integrity").expand(backup=[upload.output])
    plan = PgRestoreOperator(
        task_id="plan", backup=upload.output, postgres_conn_id="source", database="planned", mode="create",
        plan_only=True,
    )
    restore = PgRestoreOperator(
        task_id="restore", backup=upload.output, postgres_conn_id="source", database={copy!r}, mode="create"
    )
    [again, plan] >> restore
"""


def test_a_chain(
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    assert_no_canary: Callable[[object], None],
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, "create table film (id int)", "insert into film values (1), (2), (3)")
    copy = f"{database.dbname}_copy"
    postgres_connection("source", database)
    aws_connection()
    bucket = s3.bucket()
    local, remote = (tmp_path / "pg").as_uri(), f"s3://{bucket}/copies"
    open_repository(local).init()
    open_repository(remote, s3=S3Options(client_factory=s3.client)).init()
    path = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(path), "append": True}
    environment = {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "nightly",
    }
    airflow = LiveAirflow(tmp_path / "airflow", environment, processes=())
    (airflow.dags / "chain.py").write_text(DAG.format(local=local, remote=remote, copy=copy))
    try:
        with airflow:
            airflow.run("dags", "test", "chain")
    finally:
        with server18.params.connect() as session:
            session.execute(f'drop database if exists "{copy}"'.encode())
    assert_no_canary(path.read_text())
    events = [json.loads(line) for line in path.read_text().splitlines()]
    done = {one["job"]["name"].removeprefix("chain."): one for one in events if one["eventType"] == "COMPLETE"}
    assert {"dump", "verify", "upload", "again", "plan", "restore"} <= done.keys()
    assert not [one for one in events if one["eventType"] in ("FAIL", "ABORT")]

    source = (f"postgres://{database.host}:{database.port}", database.dbname)
    (stored,) = names(done["dump"], "outputs")
    assert names(done["dump"], "inputs") == [source]
    assert stored[0] == "file"
    assert Path(stored[1]).is_file()
    (output,) = done["dump"]["outputs"]
    assert output["outputFacets"]["outputStatistics"]["size"] == Path(stored[1]).stat().st_size

    (read,) = done["verify"]["inputs"]
    assert names(done["verify"], "inputs") == [stored]
    assert assertion(read) == {"assertion": "verified at level archive", "success": True}
    assert read["inputFacets"]["dataQualityMetrics"]["rowCount"] == 3
    (table,) = read["facets"]["schema"]["fields"]
    assert (table["name"], table["type"], table["description"]) == ("public.film", "table", "3 rows")
    assert done["verify"]["outputs"] == []

    assert names(done["upload"], "inputs") == [stored]
    (uploaded,) = names(done["upload"], "outputs")
    assert uploaded[0] == f"s3://{bucket}"
    s3.client().head_object(Bucket=bucket, Key=uploaded[1])
    assert names(done["again"], "inputs") == [uploaded]
    assert names(done["restore"], "inputs") == [uploaded]
    assert names(done["restore"], "outputs") == [(source[0], copy)]
    assert done["restore"]["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert names(done["plan"], "inputs") == [uploaded]
    assert done["plan"]["outputs"] == []


def names(event: dict[str, Any], side: str) -> list[tuple[str, str]]:
    return [(one["namespace"], one["name"]) for one in event[side]]


def assertion(dataset: dict[str, Any]) -> dict[str, Any]:
    (found,) = dataset["inputFacets"]["dataQualityAssertions"]["assertions"]
    return {name: found[name] for name in ("assertion", "success")}


REFERENCE = {"repository": "s3://bucket/pg", "key": "prod/app/1/2/app.dump", "size": 7, "format": "custom"}


def seen(result: str, tables: int = 1) -> Verification:
    return Verification(
        backup_id="x",
        level="restore",
        result=result,
        started_at=NOW,
        finished_at=NOW,
        duration_seconds=1.0,
        checks=(Check("restore", result),),
        tables=tuple(
            TableResult(schema="s", name=f"t{number}\u202e", rows=2, sha256=None, result="pass")
            for number in range(tables)
        ),
        artifact_sha256="0" * 64,
    )


@pytest.mark.parametrize(
    ("result", "failure", "success"),
    [
        ("pass", None, True),
        ("fail", VerificationFailed("it does not restore", hint="Choose another."), False),
        ("notproven", NotProven("an extension is missing", hint="Install it."), None),
        ("pass", KeyboardInterrupt(), True),
    ],
)
def test_a_verification_is_asserted_only_where_it_found_something_out(
    result: str, failure: BaseException | None, success: bool | None
) -> None:
    found = lineage(Work(read=REFERENCE, verification=seen(result), failure=failure))
    (dataset,) = found.inputs
    assert (dataset.namespace, dataset.name) == ("s3://bucket", "pg/prod/app/1/2/app.dump")
    facets = dataset.inputFacets or {}
    if success is None:
        assert facets == {}
    else:
        assert [one.success for one in facets["dataQualityAssertions"].assertions] == [success]
    assert found.outputs == []


def test_what_failed_wrote_nothing() -> None:
    work = Work(wrote=REFERENCE, database=("h", "5432", "app"), failure=RuntimeError())
    assert lineage(work).outputs == []
    assert lineage(replace(work, failure=None), failed=True).outputs == []
    assert lineage(replace(work, failure=None, reads_database=True)).inputs[0].name == "app"


def test_a_task_that_was_stopped_wrote_nothing() -> None:
    task = PgBackupCheckOperator(task_id="stopped", postgres_conn_id="p")
    task._work = Work(wrote=REFERENCE)
    found = task.get_openlineage_facets_on_failure(None)
    assert found is not None
    assert found.outputs == []


def test_rows_of_a_dump_where_they_were_counted() -> None:
    (dataset,) = lineage(Work(wrote=REFERENCE), rows=3).outputs
    assert (dataset.outputFacets or {})["outputStatistics"].rowCount == 3


def test_tables_are_bounded_and_printable() -> None:
    (dataset,) = lineage(Work(read=REFERENCE, verification=seen("pass", MOST_TABLES + 5))).inputs
    fields = dataset.facets["schema"].fields
    assert len(fields) == MOST_TABLES + 1
    assert fields[0].name == "s.t0\\u202e"
    assert fields[-1].description == "5 more tables are in the verification"


@pytest.mark.parametrize(
    ("keywords", "database"),
    [
        ({"host": "db1", "port": "6000", "dbname": "app"}, ("db1", "6000", "app")),
        ({"host": "db1,db2", "port": "1,2", "dbname": "app"}, ("db1", "1", "app")),
        ({"host": "/run/postgresql", "dbname": "app"}, ("localhost", "5432", "app")),
        ({"hostaddr": "10.0.0.7", "dbname": "app"}, ("10.0.0.7", "5432", "app")),
        ({"host": "::1", "dbname": "app"}, ("[::1]", "5432", "app")),
    ],
)
def test_the_name_of_a_server(keywords: dict[str, str], database: tuple[str, str, str]) -> None:
    work = Work()
    work.connects(ConnectionParams(keywords=keywords, password="secret"), reads=True)
    assert work.database == database


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("s3://b", ("s3://b", "k")),
        ("s3://b/p/q/", ("s3://b", "p/q/k")),
        ("file:///var/pg", ("file", "/var/pg/k")),
        ("file:///var/my%20pg/", ("file", "/var/my pg/k")),
    ],
)
def test_the_name_of_an_artifact(repository: str, expected: tuple[str, str]) -> None:
    assert artifact({"repository": repository, "key": "k"}) == expected


def test_a_set_that_was_restored() -> None:
    work = Work(database=("h", "5432", ""))
    work.finish({"databases": [{"name": "a", "outcome": "restored"}, {"name": "b", "outcome": "failed"}], "rows": None})
    assert [one.name for one in lineage(work).outputs] == ["a"]


def test_nothing_of_openlineage_is_imported_unless_it_asks() -> None:
    program = (
        "import sys; import airflow_pgbackup.operators.dump, airflow_pgbackup.operators.verify; "
        "sys.exit(any(name.startswith('openlineage') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=400).returncode == 0
