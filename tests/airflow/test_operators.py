"""The operators in DAG runs, against real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

RunDag = Callable[..., Any]


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> ConnectionParams:
    """A database with two tables, and the connection ``db`` to it."""
    params = fresh_database(
        server18,
        None,
        "CREATE TABLE film (id int PRIMARY KEY, title text)",
        "INSERT INTO film SELECT i, 'film ' || i FROM generate_series(1, 300) i",
        "CREATE SCHEMA staging CREATE TABLE raw (id int)",
    )
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def backups(folder: Path, series: str) -> list[str]:
    """The ids of a series' backups."""
    return sorted(path.parent.name for path in (folder / series).glob("*/manifest.json"))


def manifest(folder: Path, reference: dict[str, Any]) -> Any:
    return json.loads((folder / reference["series"] / reference["id"] / "manifest.json").read_text())


def test_runs_without_a_logical_date(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(
        f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupVerifyOperator(task_id="verify", backup=dump.output, level="integrity")
""",
        logical_date=None,
    )
    assert run.states == {"dump": "success", "verify": "success"}, run.output
    assert run.results["verify"]["verified"] == "archive"  # the default compression is ours
    assert run.results["dump"]["series"] == f"db/{database.dbname}"
    assert json.loads(json.dumps(run.results)) == run.results
    origin = manifest(folder, run.results["dump"])["origin"]
    assert (origin["dag_id"], origin["task_id"], origin["map_index"], origin["try_number"]) == ("case", "dump", -1, 1)


def test_rehearsed_on_a_scratch_server(
    server18: PostgresServer,
    database: ConnectionParams,
    folder: Path,
    postgres_connection: Any,
    run_dag: RunDag,
    assert_no_canary: Callable[[object], None],
) -> None:
    postgres_connection("scratch", server18.params)
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupVerifyOperator(task_id="verify", backup=dump.output, level="restore", scratch_conn_id="{{{{ 'scratch' }}}}")
""")
    assert run.states == {"dump": "success", "verify": "success"}, run.output
    assert run.results["verify"]["verified"] == "restore"
    assert f"rehearsing on the scratch server {server18.params.label}" in run.output
    assert_no_canary(run.output)


def test_options_reach_pg_dump(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(f"""
PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, server="main", format="plain",
    compress="none", schemas=["{{{{ 'staging' }}}}"], no_owner=True, no_privileges=True, lock_wait_timeout="7s",
    artifact_template="{{database}}-{{{{ dag.dag_id }}}}",
)
""")
    assert run.states == {"dump": "success"}, run.output
    reference = run.results["dump"]
    assert reference["series"] == f"main/{database.dbname}"
    assert reference["artifact"] == f"{database.dbname}-case.sql"
    text = (folder / reference["key"]).read_text()
    assert "CREATE TABLE staging.raw" in text
    assert "film" not in text
    assert "OWNER TO" not in text
    assert manifest(folder, reference)["options"]["lock_wait_timeout"] == "7s"
    assert run.rendered["dump"]["schemas"] == ["staging"]


def test_limits_of_the_source_reach_the_dump(
    database: ConnectionParams, server18: PostgresServer, folder: Path, run_dag: RunDag
) -> None:
    run = run_dag(f"""
from datetime import timedelta

PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, max_replay_lag=timedelta(minutes=5),
    max_bytes_per_second="{{{{ 10 ** 9 }}}}",
)
PgDumpAllOperator(
    task_id="globals", postgres_conn_id="db", repository={folder.as_uri()!r}, globals_only=True,
    max_replay_lag="{{{{ 60 }}}}", max_bytes_per_second=10**9,
)
""")
    assert run.states == {"dump": "success", "globals": "success"}, run.output
    assert manifest(folder, run.results["dump"])["source"]["replay"] is None, "a primary has no lag"


def test_mapped_over_databases(
    server18: PostgresServer,
    database: ConnectionParams,
    fresh_database: Callable[..., Any],
    folder: Path,
    run_dag: RunDag,
) -> None:
    other = fresh_database(server18, None, "CREATE TABLE t (id int)")
    run = run_dag(f"""
dumps = PgDumpOperator.partial(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, no_owner=True
).expand(database=[{database.dbname!r}, {other.dbname!r}])
PgBackupVerifyOperator.partial(task_id="verify").expand(backup=dumps.output)
""")
    assert set(run.states) == {"dump[0]", "dump[1]", "verify[0]", "verify[1]"}
    assert set(run.states.values()) == {"success"}, run.output
    assert [run.results[f"verify[{i}]"]["database"] for i in (0, 1)] == [database.dbname, other.dbname]
    assert manifest(folder, run.results["dump[1]"])["origin"]["map_index"] == 1
    assert manifest(folder, run.results["dump[1]"])["options"] == {"no_owner": True}


def test_a_pipeline_mapped_over_databases(
    server18: PostgresServer,
    database: ConnectionParams,
    fresh_database: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    run_dag: RunDag,
) -> None:
    other = fresh_database(server18, None, "CREATE TABLE t (id int)")
    second = (tmp_path / "second").as_uri()
    run = run_dag(f"""
pg_backup.partial(
    postgres_conn_id="db", repository={folder.as_uri()!r}, upload_to={second!r}, init_repository=True, no_comments=True
).expand(database=[{database.dbname!r}, {other.dbname!r}])
""")
    assert set(run.states.values()) == {"success"}, run.output
    uploads = [run.results[f"pg_backup.upload[{i}]"] for i in (0, 1)]
    assert [upload["database"] for upload in uploads] == [database.dbname, other.dbname]
    assert {upload["repository"] for upload in uploads} == {second}
    assert {upload["verified"] for upload in uploads} == {"archive"}


def test_a_pipeline_checks_first_and_prunes_in_the_end(
    server18: PostgresServer,
    database: ConnectionParams,
    fresh_database: Callable[..., Any],
    folder: Path,
    run_dag: RunDag,
) -> None:
    other = fresh_database(server18, None, "CREATE TABLE t (id int)")
    source = f"""
pg_backup.partial(
    postgres_conn_id="db", server="prod", repository={folder.as_uri()!r}, check={{"fail_on": "never"}},
    prune={{"keep_last": 1}}, init_repository=True, lock_wait_timeout="5s",
).expand(database=[{database.dbname!r}, {other.dbname!r}])
"""
    first = run_dag(source)
    second = run_dag(source)
    tasks = ("check", "dump", "verify", "prune")
    for run in (first, second):
        assert run.states == {f"pg_backup.{task}[{i}]": "success" for task in tasks for i in (0, 1)}, run.output
    for i, name in enumerate((database.dbname, other.dbname)):
        removed = [one["id"] for one in second.results[f"pg_backup.prune[{i}]"]["decisions"]]
        assert removed == [first.results[f"pg_backup.dump[{i}]"]["id"]]
        assert backups(folder, f"prod/{name}") == [second.results[f"pg_backup.dump[{i}]"]["id"]]
    # A database that cannot be dumped: its run still prunes, and the run fails.
    with closing(other.connect()) as session:
        session.execute("BEGIN")
        session.execute("LOCK TABLE t")
        third = run_dag(source)
    assert third.states["pg_backup.dump[1]"] == "failed"
    assert third.states["pg_backup.verify[1]"] == "upstream_failed"
    assert third.states["pg_backup.prune[1]"] == third.states["pg_backup.prune[0]"] == "success"
    assert third.state == "failed"
    assert backups(folder, f"prod/{other.dbname}") == [second.results["pg_backup.dump[1]"]["id"]]


def test_a_policy_is_for_the_database_of_the_connection(
    folder: Path, database: ConnectionParams, run_dag: RunDag
) -> None:
    repository, now = open_repository(folder.as_uri()), datetime.now(timezone.utc)
    billing = [
        write_backup(repository, Series("prod", "billing"), now - timedelta(days=age), seed=str(age)).id
        for age in (1, 2)
    ]
    run = run_dag(f"""
pg_backup(postgres_conn_id="db", server="prod", repository={folder.as_uri()!r}, prune={{"keep_last": 1}}, check=False)
""")
    assert run.states["pg_backup.prune"] == "success", run.output
    assert backups(folder, "prod/billing") == sorted(billing)


def test_a_check_with_errors_stops_the_pipeline(folder: Path, database: ConnectionParams, run_dag: RunDag) -> None:
    nowhere = (folder / "unmounted").as_uri()
    run = run_dag(f"pg_backup(postgres_conn_id='db', repository={nowhere!r})")
    assert run.states["pg_backup.check"] == "failed"
    assert run.states["pg_backup.dump"] == run.states["pg_backup.verify"] == "upstream_failed"
    assert f"no repository at {nowhere}" in run.output


def test_lists_of_options_from_tasks(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(f"""
@task
def names():
    return ["public.film"]

@task
def name(schema):
    return schema

both = name.expand(schema=["public", "staging"])
PgDumpOperator(task_id="one", postgres_conn_id="db", repository={folder.as_uri()!r}, tables=names())
PgDumpOperator(task_id="two", postgres_conn_id="db", repository={folder.as_uri()!r}, schemas=both)
""")
    assert run.states["one"] == run.states["two"] == "success", run.output
    assert manifest(folder, run.results["one"])["options"] == {"tables": ["public.film"]}
    assert manifest(folder, run.results["two"])["options"] == {"schemas": ["public", "staging"]}


def test_default_args_give_options(database: ConnectionParams, folder: Path, load_dag: Callable[..., Any]) -> None:
    dag = load_dag(f"""
common = dict(postgres_conn_id="db", repository={folder.as_uri()!r}, no_owner=True, schemas=["public"])
PgDumpOperator(task_id="dump", default_args=common)
PgDumpOperator.partial(task_id="mapped", default_args=common).expand(database=["a"])
""")
    assert dag.get_task("dump").no_owner is True
    assert dag.get_task("dump").schemas == ["public"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("schemas='a,b'", "HINT: Pass a list: ['a', 'b']"),
        ("data_only=True, schema_only=True", "data_only and schema_only cannot be combined"),
        ("extra_args=['--dbn=x']", "extra_args has --dbn"),
        ("format='zip'", "format is 'zip'"),
        ("compress='zip'", "unknown compression method"),
        ("format='directory', max_bytes_per_second='1000'", "max_bytes_per_second cannot be combined with format dir"),
        ("max_bytes_per_second='fast'", "invalid max_bytes_per_second 'fast'"),
        ("max_replay_lag='soon'", "invalid max_replay_lag 'soon'"),
    ],
)
def test_options_that_make_no_sense(options: str, found: str, tmp_path: Path, run_dag: RunDag) -> None:
    """Refused before anything is touched: there is no connection of that name, and no repository is made."""
    run = run_dag(f"""
PgDumpOperator(
    task_id="dump", postgres_conn_id="nowhere", repository={(tmp_path / "new").as_uri()!r}, init_repository=True,
    {options}
)
""")
    assert run.states == {"dump": "failed"}
    assert found in run.failure
    assert "AirflowFailException" in run.output  # no retry would help
    assert not (tmp_path / "new").exists()


def test_unknown_option_is_refused_when_the_dag_is_parsed(load_dag: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="schema_onyl"):
        load_dag('PgDumpOperator(task_id="dump", repository="file:///x", schema_onyl=True)')
    with pytest.raises(AssertionError, match="unexpected keyword argument"):
        load_dag('PgDumpOperator.partial(task_id="d", repository="file:///x", creat=True).expand(database=["a"])')


@pytest.mark.parametrize(
    ("fields", "found", "hint"),
    [
        ({"password": "wrong"}, "password authentication failed", "password"),
        ({"password": None}, "no password supplied", "password"),
        ({"port": "closed"}, "Connection refused", "port"),
        ({"host": "nowhere.invalid"}, "nowhere.invalid", "host"),
        ({"schema": "no such db"}, 'database "no such db" does not exist', "database"),
        ({"schema": None}, "no database given", "schema"),
        ({"extra": {"sslmod": "require"}}, "unknown connection option 'sslmod'", "sslmode"),
    ],
    ids=["wrong-password", "no-password", "unreachable", "unknown-host", "missing-database", "unnamed", "typo"],
)
def test_a_connection_that_fails(
    fields: dict[str, Any],
    found: str,
    hint: str,
    database: ConnectionParams,
    folder: Path,
    run_dag: RunDag,
    postgres_connection: Any,
    assert_no_canary: Callable[[object], None],
) -> None:
    if fields.get("port"):
        fields = {"port": 1}
    postgres_connection("db", database, **fields)
    run = run_dag(f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})')
    assert run.states == {"dump": "failed"}
    assert ("retrying once in" in run.output) == ("password" in found)
    assert ("AirflowFailException" in run.output) == (found not in ("Connection refused", "nowhere.invalid"))
    message, _, given = run.failure.partition(". HINT: ")
    assert found in message
    assert hint in given
    assert files(folder) == ["repository.json"]
    assert_no_canary(run.output)


@pytest.mark.parametrize(
    ("bucket", "fields", "found"),
    [
        ("missing-bucket", {}, "bucket missing-bucket does not exist"),
        (None, {"password": "wrong"}, "the secret key is wrong"),
        (None, {"login": "AKWRONG"}, "does not know this access key"),
        (None, {"extra": {"endpoint_url": "http://127.0.0.1:9"}}, "http://127.0.0.1:9"),
    ],
    ids=["missing-bucket", "wrong-secret", "wrong-key", "unreachable"],
)
def test_a_store_that_fails(
    bucket: str | None,
    fields: dict[str, Any],
    found: str,
    s3: S3Server,
    database: ConnectionParams,
    folder: Path,
    run_dag: RunDag,
    aws_connection: Any,
) -> None:
    real = s3.bucket()
    aws_connection("aws_default")
    aws_connection("aws_bad", **fields)
    uri = f"s3://{bucket or real}/pg"
    run = run_dag(f"""
straight = PgDumpOperator(
    task_id="straight", postgres_conn_id="db", repository={uri!r}, aws_conn_id="aws_bad", init_repository=True
)
""")
    assert run.states == {"straight": "failed"}
    assert found in run.failure
    assert ". HINT: " in run.failure
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupUploadOperator(
    task_id="upload", backup=dump.output, destination={uri!r}, destination_aws_conn_id="aws_bad", minimum_level=None
)
""")
    assert run.states == {"dump": "success", "upload": "failed"}
    assert found in run.failure
    assert "Contents" not in s3.client().list_objects_v2(Bucket=real)
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=real)


def test_upload_passes_extra_arguments(
    s3: S3Server, database: ConnectionParams, folder: Path, run_dag: RunDag, aws_connection: Any
) -> None:
    bucket = s3.bucket()
    aws_connection("aws_other")
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupUploadOperator(
    task_id="upload", backup=dump.output, destination="s3://{bucket}/pg", destination_aws_conn_id="aws_other",
    minimum_level=None, checksum_algorithm="SHA256", init_repository=True,
    extra_args={{"StorageClass": "STANDARD_IA", "Tagging": "team=data"}},
)
""")
    assert set(run.states.values()) == {"success"}, run.output
    reference = run.results["upload"]
    key = f"pg/{reference['key']}"
    head = s3.client().head_object(Bucket=bucket, Key=key)
    assert head["StorageClass"] == "STANDARD_IA"
    assert s3.client().get_object_tagging(Bucket=bucket, Key=key)["TagSet"] == [{"Key": "team", "Value": "data"}]


def test_upload_refuses_what_is_not_verified(
    database: ConnectionParams, folder: Path, tmp_path: Path, run_dag: RunDag
) -> None:
    second = tmp_path / "second"
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
PgBackupUploadOperator(
    task_id="upload", backup=dump.output, destination={second.as_uri()!r}, init_repository=True
)
""")
    assert run.states == {"dump": "success", "upload": "failed"}
    assert "is not verified" in run.failure
    assert files(second) == ["repository.json"]


def test_a_damaged_backup_fails_its_verification(
    database: ConnectionParams, folder: Path, run_dag: RunDag, load_dag: Callable[..., Any]
) -> None:
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})

@task
def damage(reference):
    import pathlib
    path = pathlib.Path({str(folder)!r}, reference["key"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    return reference

PgBackupVerifyOperator(task_id="verify", backup=damage(dump.output), retries=3)
""")
    assert run.states == {"dump": "success", "damage": "success", "verify": "failed"}
    assert "failed verification at level archive" in run.failure
    assert "AirflowFailException" in run.output  # no retry would help


@pytest.mark.parametrize("backup", ["'a text'", "{'id': 'x'}", "'{{ ti.xcom_pull(task_ids=\"dump\") }}'"])
def test_something_that_is_no_reference(backup: str, database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(f"""
dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
dump >> PgBackupVerifyOperator(task_id="verify", backup={backup})
""")
    assert run.states == {"dump": "success", "verify": "failed"}
    assert "HINT: Pass what a dump, verify or upload task returned" in run.failure


def test_a_retry_proves_what_the_first_try_committed(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    """Killed after the commit; meanwhile somebody has verified the backup at a lower level."""
    run = run_dag(f"""
from airflow_pgbackup.backup.verify import verify

class Dies(PgDumpOperator):
    def _run(self, context, run):
        self.verify = None
        first = super()._run(context, run)
        lower = verify(reference=first, repository=self._repository(), level="integrity", context=run)
        assert lower["verified"] == "integrity", lower
        self.verify = "archive"
        again = super()._run(context, run)
        assert (again["id"], again["verified"]) == (first["id"], "archive"), again
        return again

Dies(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, compress="none", verify="archive"
)
""")
    assert run.states == {"dump": "success"}, run.output


def test_a_retry_returns_what_the_first_try_committed(
    database: ConnectionParams, folder: Path, load_dag: Callable[..., Any], run_dag: RunDag
) -> None:
    """Killed between the commit and the XCom: the second try of the same task instance finds the first one's backup."""
    run = run_dag(f"""
from airflow.sdk.exceptions import AirflowException

class Dies(PgDumpOperator):
    def _run(self, context, run):
        first = super()._run(context, run)
        again = super()._run(context, run)
        assert first == again, (first, again)
        return again

Dies(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})
""")
    assert run.states == {"dump": "success"}, run.output
    assert "was committed by an earlier attempt" in run.output
    assert len([name for name in files(folder) if name.endswith("manifest.json")]) == 1


def test_a_retry_finds_and_a_clear_makes_a_new_one(
    database: ConnectionParams, folder: Path, run_clear_run: Callable[[str], tuple[Any, Any]]
) -> None:
    """The first try commits, and its success is lost. Clearing the task when it has succeeded asks for a new backup."""
    first, second = run_clear_run(f"""
from datetime import timedelta
from airflow.sdk.exceptions import AirflowException

class LosesItsFirst(PgDumpOperator):
    def _run(self, context, run):
        made = super()._run(context, run)
        if context["ti"].try_number == 1:
            raise AirflowException("lost " + made["id"])
        return made

LosesItsFirst(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, retries=1, retry_delay=timedelta(0)
)
""")
    assert first.states == second.states == {"dump": "success"}, first.output + second.output
    assert f"lost {first.results['dump']['id']}" in first.output
    assert "was committed by an earlier attempt" in first.output
    assert "was committed by an earlier attempt" not in second.output
    assert second.results["dump"]["id"] != first.results["dump"]["id"]
    assert len([name for name in files(folder) if name.endswith("manifest.json")]) == 2


def test_cluster_without_a_database_in_the_connection(
    server18: PostgresServer, folder: Path, run_dag: RunDag, postgres_connection: Any
) -> None:
    postgres_connection("server", server18.params, schema="")
    run = run_dag(f"""
PgDumpAllOperator(task_id="roles", postgres_conn_id="server", repository={folder.as_uri()!r}, roles_only=True)
PgDumpAllOperator(
    task_id="named", postgres_conn_id="server", repository={folder.as_uri()!r}, server="named", database="template1",
    globals_only=True, compress="gzip:1",
)
""")
    assert run.states == {"roles": "success", "named": "success"}, run.output
    assert run.results["named"]["artifact"].endswith(".sql.gz")


def test_settings_come_from_airflow_s_configuration(
    database: ConnectionParams, folder: Path, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__PGBACKUP__DUMP_DEADLINE", "soon")
    run = run_dag(f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r})')
    assert run.states == {"dump": "failed"}
    assert "setting dump_deadline is 'soon'" in run.failure
