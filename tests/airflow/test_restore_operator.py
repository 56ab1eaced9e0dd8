"""PgRestoreOperator in DAG runs, and the example that asks before it restores."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

RunDag = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "dags" / "restore_with_approval.py"
IMPORT = "from airflow_pgbackup.operators.restore import PgRestoreOperator\n"

STATEMENTS = (
    "create table film (id int primary key, title text)",
    "insert into film select i, 'film ' || i from generate_series(1, 300) i",
    "create table actor as select 1 as id",
)


@pytest.fixture
def folder(folder: Path) -> str:
    return folder.as_uri()


@pytest.fixture
def databases(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> tuple[ConnectionParams, ConnectionParams]:
    """The connections ``source``, with rows, and ``target``, without."""
    source, target = fresh_database(server18, None, *STATEMENTS), fresh_database(server18)
    postgres_connection("source", source)
    postgres_connection("target", target)
    return source, target


def test_a_retry_of_replace_finds_that_it_is_done_and_a_clear_does_it_again(
    databases: tuple[ConnectionParams, ConnectionParams],
    folder: str,
    run_dag: RunDag,
    run_clear_run: Callable[[str], tuple[Any, Any]],
    server18: PostgresServer,
) -> None:
    target = databases[1]
    dumped = run_dag(f"PgDumpOperator(task_id='dump', postgres_conn_id='source', repository={folder!r})")
    reference = dumped.results["dump"]
    first, second = run_clear_run(
        IMPORT
        + f"""
from datetime import timedelta
from airflow.sdk.exceptions import AirflowException

class LosesItsFirst(PgRestoreOperator):
    def _run(self, context, run):
        made = super()._run(context, run)
        if context["ti"].try_number == 1:
            raise AirflowException("lost " + made["replaced"])
        return made

LosesItsFirst(
    task_id="restore", postgres_conn_id="target", backup={reference!r}, mode="replace", retries=1,
    retry_delay=timedelta(0),
)
"""
    )
    try:
        assert first.states == second.states == {"restore": "success"}, first.output + second.output
        once, twice = first.results["restore"]["replaced"], second.results["restore"]["replaced"]
        assert f"lost {once}" in first.output
        assert once != twice
        with server18.params.connect() as session:
            query = "select datname from pg_database where starts_with(datname, %s) order by 1"
            names = [name for (name,) in session.execute(query, [target.dbname])]
        assert names == sorted([target.dbname, once, twice])
        assert films(target) == 300
    finally:
        with server18.params.connect() as session:
            for result in (first, second):
                name = sql.Identifier(result.results["restore"]["replaced"])
                session.execute(sql.SQL("drop database if exists {} with (force)").format(name))


def films(connection: ConnectionParams) -> int:
    with connection.connect() as session:
        row = session.execute("select count(*) from film").fetchone()
        assert row is not None
        count = row[0]
        assert isinstance(count, int)
        return count


def test_the_operator_has_every_option() -> None:
    """Same names, types and defaults, in the order of pg_restore's --help, but for what a restore decides itself."""
    from airflow_pgbackup.operators.restore import NOT_OFFERED, PgRestoreOperator

    signature = inspect.signature(PgRestoreOperator.__init__).parameters
    own = [argument for argument in signature if argument in RestoreOptions.__dataclass_fields__]
    assert own == [name for name in (*RestoreOptions.table(), "extra_args") if name not in NOT_OFFERED]
    for argument in own:
        field = RestoreOptions.__dataclass_fields__[argument]
        parameter = signature[argument]
        assert (parameter.annotation, parameter.default) == (field.type, field.default), argument


def test_what_a_dump_task_made_is_restored(
    databases: tuple[ConnectionParams, ConnectionParams], folder: str, run_dag: RunDag, canary: str
) -> None:
    run = run_dag(
        f"""
{IMPORT}
dump = PgDumpOperator(task_id="dump", postgres_conn_id="source", repository={folder!r})
verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
PgRestoreOperator(
    task_id="restore", backup=verify.output, postgres_conn_id="target", tables=["{{{{ 'film' }}}}"],
    mode="{{{{ 'into_' ~ 'empty' }}}}", analyze="{{{{ False }}}}",
)
""",
        logical_date=None,
    )
    assert set(run.states.values()) == {"success"}, run.output
    result = run.results["restore"]
    assert (result["rows"], result["objects"], result["mode"]) == (300, 1, "into_empty")
    assert result["warnings"] == []
    assert result["reference"] == run.results["verify"]
    assert films(databases[1]) == 300
    assert "analyzed" not in run.output
    assert canary not in run.output


def test_the_newest_verified_backup_of_a_series(
    databases: tuple[ConnectionParams, ConnectionParams], folder: str, run_dag: RunDag
) -> None:
    source, target = databases
    dump = f'PgDumpOperator(task_id="dump", postgres_conn_id="source", repository={folder!r}, server="prod")'
    first = run_dag(f"dump = {dump}\nPgBackupVerifyOperator(task_id='verify', backup=dump.output)")
    with source.connect() as session:
        session.execute("delete from film")
    second = run_dag(f"{dump}")
    restore = f"""
{IMPORT}
PgRestoreOperator(
    task_id="restore", postgres_conn_id="target", repository={folder!r}, series="prod/{source.dbname}",
    mode="replace", keep_old=False,"""
    run = run_dag(f"{restore})")
    assert run.states == {"restore": "success"}, run.output
    assert run.results["restore"]["reference"]["id"] == first.results["dump"]["id"]
    assert films(target) == 300
    run = run_dag(f"{restore} backup_id={second.results['dump']['id']!r})")
    assert run.states == {"restore": "success"}, run.output
    assert films(target) == 0
    run = run_dag(f"{restore} minimum_level='restore')")
    assert run.failure.startswith(f"no backup of prod/{source.dbname} in {folder} is verified at level restore")
    run = run_dag(f"{IMPORT}PgRestoreOperator(task_id='restore', postgres_conn_id='target')")
    assert run.failure.startswith("no backup given. HINT: Pass backup=")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ('mode="overwrite"', "invalid mode 'overwrite'"),
        ('tables="film,actor"', "HINT: Pass a list: ['film', 'actor']"),
        ('keep_old="perhaps"', "invalid keep_old 'perhaps'"),
        ("data_only=True, clean=True", "data_only and clean"),
    ],
)
def test_nonsense_fails_without_a_retry_and_touches_nothing(
    arguments: str, found: str, databases: tuple[ConnectionParams, ConnectionParams], folder: str, run_dag: RunDag
) -> None:
    run = run_dag(f"""
{IMPORT}
dump = PgDumpOperator(task_id="dump", postgres_conn_id="source", repository={folder!r})
PgRestoreOperator(task_id="restore", backup=dump.output, postgres_conn_id="target", {arguments})
""")
    assert run.states == {"dump": "success", "restore": "failed"}
    assert found in run.failure
    assert "AirflowFailException" in run.output
    with databases[1].connect() as session:
        assert session.execute("select count(*) from pg_class where oid >= 16384").fetchone() == (0,)


# -- the example


@contextmanager
def somebody(choice: str, name: str = "dba") -> Iterator[dict[str, Any]]:
    """Who answers what a run asks for, through the function behind Airflow's API, as the page of its UI does. It then
    fails where they may not."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    over = threading.Event()
    seen: dict[str, Any] = {}

    def answer() -> bool:
        with create_session() as session:
            waiting = session.scalars(select(TaskInstance).where(TaskInstance.state == "awaiting_input")).first()
            if waiting is None:
                return False
            asked = session.scalars(select(HITLDetail).where(HITLDetail.ti_id == waiting.id)).one()
            seen.update(subject=asked.subject, body=asked.body)
            payload = UpdateHITLDetailPayload(chosen_options=[choice], params_input={})
            user = SimpleAuthManagerUser(username=name, role="admin")
            update_hitl_detail(waiting.dag_id, waiting.run_id, waiting.task_id, payload, user, session)
            return True

    def end_waiting(state: str) -> None:
        with create_session() as session:
            session.execute(update(TaskInstance).where(TaskInstance.state == "awaiting_input").values(state=state))

    def run() -> None:
        try:
            while not over.wait(0.5) and not answer():
                pass
            # dag.test() writes the state again after the task has ended, perhaps over that of the answer.
            while not over.wait(0.5):
                end_waiting("scheduled")
        except Exception as error:
            seen["error"] = error
            end_waiting("failed")  # dag.test() would never end

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


# The triggerer inside Airflow 3.2's dag.test() cannot wait for a person.
ASKS = not version("apache-airflow-core").startswith("3.2.")


@dataclass
class Example:
    """A backup in S3, made by the other example, and the database that has lost most of its rows since."""

    database: ConnectionParams
    series: str
    backup_id: str


@pytest.fixture
def example(
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., Any],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    run_dag: RunDag,
) -> Example:
    database = fresh_database(server18, None, *STATEMENTS)
    postgres_connection("dvdrental", database)
    aws_connection()
    remote = f"s3://{s3.bucket()}/pg"
    series = f"dvdrental/{database.dbname}"
    monkeypatch.setenv("PGBACKUP_LOCAL", (tmp_path / "local").as_uri())
    monkeypatch.setenv("PGBACKUP_REMOTE", remote)
    monkeypatch.setenv("PGBACKUP_RESTORABLE", series)
    monkeypatch.setenv("PGBACKUP_APPROVERS", "dba,head")
    made = run_dag(EXAMPLE.with_name("dvdrental_nightly.py"), conf={"init": True})
    assert set(made.states.values()) == {"success"}, made.output
    aws_connection("other_account")
    aws_connection(login="revoked")
    monkeypatch.setenv("PGBACKUP_REMOTE_AWS_CONN_ID", "other_account")
    with database.connect() as session:
        session.execute("delete from film where id > 10")
        session.execute("insert into actor values (2)")
        session.execute("create table added (id int)")
        session.execute("select pg_stat_force_next_flush()")
    return Example(database, series, made.results["dump"]["id"])


@pytest.mark.parametrize("choice", ["Approve", "Reject"])
def test_restore_with_approval(choice: str, example: Example, server18: PostgresServer, run_dag: RunDag) -> None:
    database = example.database
    with somebody(choice) as seen:
        run = run_dag(EXAMPLE, conf={"backup_id": example.backup_id})
    assert "error" not in seen, seen["error"]
    assert seen["subject"].startswith(f"Restore {example.series} into {server18.superuser}@127.0.0.1")
    assert f"    {example.series}/{example.backup_id} would be restored:\n" in seen["body"]
    assert "\n    - the old database is renamed, with the date" in seen["body"]
    assert re.search(r"\n    - taken 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC, [\w. ]+ ago\n", seen["body"])
    assert "\n    - verified at level archive\n" in seen["body"]
    assert re.search(r"\n    - \d+\.\d KiB in custom format, \d+ rows in \d+ tables?\n", seen["body"])
    assert re.search(rf'\n    - now: database "{database.dbname}" holds \d+ tables, about \d+ rows, ', seen["body"])
    assert "\n    - now: not in the backup: 1 table: public.added\n" in seen["body"]
    assert "\n    - now: public.actor: about 2 rows, 1 in the backup\n" in seen["body"]
    if choice == "Reject":
        assert run.states == {"plan": "success", "approve": "success", "restore": "skipped"}, run.output
        assert films(database) == 10
    else:
        assert set(run.states.values()) == {"success"}, run.output
        assert films(database) == 300
        result = run.results["restore"]
        assert result["reference"]["id"] == example.backup_id
        old = database.with_database(result["replaced"])
        assert films(old) == 10
        with server18.params.connect() as session:
            session.execute(sql.SQL("drop database {}").format(sql.Identifier(old.dbname)))


def test_somebody_else_may_not_approve(example: Example, run_dag: RunDag) -> None:
    with somebody("Approve", name="trigger_only") as seen:
        run = run_dag(EXAMPLE)
    assert "not a respondent" in str(seen["error"].detail)
    assert run.states == {"plan": "success", "approve": "failed", "restore": "upstream_failed"}
    assert films(example.database) == 10


def test_a_step_marked_as_successful_is_no_approval(example: Example, run_dag: RunDag) -> None:
    run = run_dag(EXAMPLE, mark_success_pattern="approve")
    assert run.states == {"plan": "success", "approve": "success", "restore": "failed"}
    assert "invalid mode 'not approved'" in run.failure
    assert films(example.database) == 10


@pytest.mark.parametrize(
    "conf",
    [
        {"series": "dvdrental/postgres"},
        {"series": "{{ 7 * 6 }}"},
        {"backup_id": "../../other"},
        {"backup_id": "{{ 7 * 6 }}"},
        {"repository": "file:///"},
    ],
    ids=str,
)
def test_params_name_nothing_that_the_author_does_not_allow(
    conf: dict[str, str], example: Example, run_dag: RunDag
) -> None:
    with pytest.raises(Exception, match="Invalid input for param"):
        run_dag(EXAMPLE, conf=conf)
    assert films(example.database) == 10


def test_other_params_change_nothing(example: Example, run_dag: RunDag) -> None:
    """What earlier versions of the example took, and what the operator would."""
    conf = {
        "database": "postgres",
        "mode": "into_existing",
        "postgres_conn_id": "postgres_default",
    }
    run = run_dag(EXAMPLE, conf=conf, mark_success_pattern="approve")
    assert run.states["plan"] == "success"
    assert example.database.dbname in run.results["plan"]["target"]
    assert any("takes the name" in line or "old database is renamed" in line for line in run.results["plan"]["plan"])


if not ASKS:
    del test_restore_with_approval, test_somebody_else_may_not_approve


def test_a_table_is_restored_beside_the_live_one(
    databases: tuple[ConnectionParams, ConnectionParams], folder: str, run_dag: RunDag
) -> None:
    source = databases[0]
    dumped = run_dag(f"PgDumpOperator(task_id='dump', postgres_conn_id='source', repository={folder!r})")
    with source.connect() as session:
        session.execute("delete from film where id > 10")
    run = run_dag(
        f"""
{IMPORT}
PgRestoreOperator(
    task_id="restore", backup={dumped.results["dump"]!r}, postgres_conn_id="source", mode="into_existing",
    tables=["film"], into_schema="{{{{ 'recovered' ~ '_1' }}}}",
)
""",
        logical_date=None,
    )
    assert run.states == {"restore": "success"}, run.output
    result = run.results["restore"]
    assert (result["rows"], result["into_schema"], result["mode"]) == (300, "recovered_1", "into_existing")
    assert films(source) == 10
    with source.connect() as session:
        for statement in result["statements"]:
            session.execute(statement)
    assert films(source) == 300
