"""What a person sees in Airflow: log lines and their levels, names of mapped tasks, retries."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.errors import ConnectError, PgBackupError, ToolError
from airflow_pgbackup.operators._retries import retry_soon, with_second_try
from airflow_pgbackup.operators._task_log import TaskLog
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

RunDag = Callable[..., Any]


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> ConnectionParams:
    params = fresh_database(server18, None, "CREATE TABLE film (id int)", "INSERT INTO film VALUES (1)")
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


def test_a_failure(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(
        f'PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, tables=["nosuch"])'
    )
    assert run.errors == [
        "pg_dump: error: no matching tables were found",
        "pg_dump failed (exit 1): no matching tables were found",
        "hint: Check the patterns; they are those of psql's \\d.",
    ]
    assert "AirflowFailException: pg_dump failed (exit 1): no matching tables were found\n" in run.output


def labels() -> dict[tuple[str, int], str | None]:
    """The names of the mapped task instances of the last run, as the grid shows them."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.execute(
            select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.rendered_map_index)
            .where(TaskInstance.dag_id == "case")
            .order_by(TaskInstance.start_date)  # other tests of this process have run DAGs of this name
        )
        return {(task, index): label for task, index, label in rows if index >= 0}


def test_names_of_mapped_tasks(
    database: ConnectionParams,
    server18: PostgresServer,
    fresh_database: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    run_dag: RunDag,
) -> None:
    one, two = database.dbname, fresh_database(server18, None).dbname
    run = run_dag(f"""
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
names = {[one, two, "no/such"]!r}
common = dict(postgres_conn_id="db", repository={folder.as_uri()!r})
dumps = PgDumpOperator.partial(task_id="dump", **common).expand(database=names[:2])
PgBackupVerifyOperator.partial(task_id="verify").expand(backup=dumps.output)
PgBackupUploadOperator.partial(
    task_id="own", destination={(tmp_path / "second").as_uri()!r}, init_repository=True, minimum_level=None,
    map_index_template="{{{{ task.backup['database'] }}}}",
).expand(backup=dumps.output)
PgBackupCheckOperator.partial(task_id="check", server="main", **common).expand(database=names)
PgBackupFreshnessSensor.partial(task_id="fresh", repository={folder.as_uri()!r}, max_age=60).expand(server=["db", "x"])
pg_backup.override(group_id="group").partial(**common).expand(database=names[:2])
""")
    found = labels()
    for task in ("dump", "verify", "group.dump", "group.verify"):
        assert [found[task, 0], found[task, 1]] == [f"db/{one}", f"db/{two}"], run.output
    assert [found["own", 0], found["own", 1]] == [one, two]
    assert [found["check", index] for index in (0, 1, 2)] == [f"main/{one}", f"main/{two}", "main/no/such"]
    assert run.states["check[2]"] == "failed"
    assert [found["fresh", 0], found["fresh", 1]] == ["db", "x"]


def test_what_a_fresh_and_a_stale_repository_show(database: ConnectionParams, folder: Path, run_dag: RunDag) -> None:
    run = run_dag(f"""
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
dump = pg_backup(postgres_conn_id="db", repository={folder.as_uri()!r})
common = dict(repository={folder.as_uri()!r}, max_age=3600, server="db")
fresh = PgBackupFreshnessSensor(task_id="fresh", **common)
names = ["a", "b", "c", "d", {database.dbname!r}]
stale = PgBackupFreshnessSensor(task_id="stale", databases=names, **common)
dump >> [fresh, stale]
""")
    assert run.states["fresh"] == "success", run.output
    lines = [line.split(" [airflow.")[0].split("] ", 1)[1] for line in run.output.splitlines() if "[info" in line]
    tables = [line.split() for line in lines if line.startswith("series ")]
    assert tables == [["series", "age", "level", "size"]] * 2
    row = rf"db/{database.dbname} +[\w. ]+ +archive +\d+\.\d KiB *"
    assert sum(bool(re.fullmatch(row, line)) for line in lines) == 2
    assert [line.split()[-2:] for line in lines if re.match("db/a ", line)] == [["not", "fresh"]]
    assert run.errors == [f"db/{name}: no backup" for name in "abcd"]
    assert run.failure == "not fresh: db/a: no backup; db/b: no backup; db/c: no backup; and 1 more"


class Log:
    """Keeps the lines at each level."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, line: str) -> None:
        self.lines.append(("info", line))

    def warning(self, line: str) -> None:
        self.lines.append(("warning", line))

    def error(self, line: str) -> None:
        self.lines.append(("error", line))


def test_levels_of_lines() -> None:
    logger = Log()
    log = TaskLog(logger)
    for line in (
        "dumping app",
        "pg_dump: error: query failed: ERROR:  permission denied for table film",
        "pg_dump: detail: Query was: …",
        "dumped app",
        "pg_restore: warning: errors ignored on restore: 1",
        "psql:<stdin>:12: ERROR:  relation exists",
        "HINT:  Drop it.",
        "warning: newer backup x",
        "pg_dump: dumping contents of table error: x",
        "a\x1b[31m line",
    ):
        log.line(line)
    assert [level for level, _ in logger.lines] == [
        *("info", "error", "error", "info", "warning", "error", "error", "warning", "info", "info")
    ]
    assert logger.lines[-1][1] == r"a\x1b[31m line"


def test_a_long_failure_is_wrapped() -> None:
    logger = Log()
    path = "/var/lib/" + "x" * 120
    TaskLog(logger).failure(PgBackupError(f"the program {path} " + "word " * 30 + "failed", hint="Mend it."))
    lines = [line for _, line in logger.lines]
    assert all(len(line) <= 100 or path in line for line in lines)
    assert path in "".join(lines)
    assert lines[-1] == "hint: Mend it."
    assert lines[1].startswith("  ")


def test_one_second_try_with_a_new_password() -> None:
    refused = ConnectError('cannot connect: password authentication failed for user "x"')
    outcomes: list[object] = [refused, "done"]

    def work() -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    logger = Log()
    assert with_second_try(work, TaskLog(logger)) == "done"
    assert [level for level, _ in logger.lines] == ["warning", "info"]
    outcomes += [refused, ConnectError(refused.message)]
    with pytest.raises(ConnectError) as caught:
        with_second_try(work, TaskLog(logger))
    assert caught.value.permanent
    outcomes += [ConnectError("cannot connect: Connection refused"), "never reached"]
    with pytest.raises(ConnectError, match="refused"):
        with_second_try(work, TaskLog(logger))
    assert outcomes == ["never reached"]


def test_a_retry_after_a_lock_timeout_is_soon(load_dag: Callable[..., Any]) -> None:
    """Where Airflow has retry policies (3.3): and one of the DAG stays."""
    import airflow.sdk

    error = ToolError("pg_dump failed: canceling statement due to lock timeout", tool="pg_dump", exit_code=1)
    task = load_dag('PgDumpOperator(task_id="dump", repository="file:///x")').task_dict["dump"]
    retry_soon(task, ToolError("pg_dump failed: other", tool="pg_dump", exit_code=1))
    assert getattr(task, "retry_policy", None) is None
    retry_soon(task, error)
    if not hasattr(airflow.sdk, "RetryPolicy"):
        assert not hasattr(task, "retry_policy")
        return
    decision = task.retry_policy.evaluate(exception=ValueError(), try_number=1, max_tries=2, context=None)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(minutes=1))
    task.retry_policy = own = object()
    retry_soon(task, error)
    assert task.retry_policy is own
