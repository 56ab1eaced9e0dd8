"""What Airflow logs, stores and shows when a database is full of names that a terminal would obey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.text import printable

HOSTILE = "\x1b]0;t\x07\x1b[8m[/]%s{}\u202e\x9b2J"
SHOWN = printable(HOSTILE)
COPY = f"{HOSTILE}2"


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> Iterator[ConnectionParams]:
    """A database, a table and a role of that name; the connections ``db``, and ``poor`` for the role."""
    name = sql.Identifier(HOSTILE)
    params = fresh_database(server18, HOSTILE)
    with params.connect() as session:
        session.execute(sql.SQL("create table {0} ({0} int)").format(name))
        session.execute(sql.SQL("create role {} login password 'no secret'").format(name))
    postgres_connection("db", params)
    postgres_connection("poor", params, login=HOSTILE, password="no secret")
    yield params
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(COPY)))
        session.execute(sql.SQL("drop role {}").format(name))


@pytest.fixture
def uri(tmp_path: Path) -> str:
    from airflow_pgbackup.repository.open import open_repository

    open_repository(tmp_path.as_uri()).init()
    return tmp_path.as_uri()


def assert_shown(output: str) -> None:
    """The name is in there, and only as text; Airflow itself may write styles."""
    assert SHOWN in output
    for part in ("\x1b]", "\x07", "\x1b[8m", "\u202e", "\x9b"):
        assert part not in output


def test_lines_of_the_log(database: ConnectionParams, uri: str, run_dag: Callable[..., Any]) -> None:
    run = run_dag(f"""
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

dump = PgDumpOperator(task_id="dump", postgres_conn_id="db", repository={uri!r})
verify = PgBackupVerifyOperator(task_id="verify", backup=dump.output)
check = PgBackupCheckOperator(task_id="check", postgres_conn_id="poor", fail_on="never")
restore = PgRestoreOperator(
    task_id="restore", backup=verify.output, postgres_conn_id="db", database={COPY!r}, mode="create"
)
prune = PgBackupPruneOperator(task_id="prune", repository={uri!r}, keep_last=1, delete=False)
fresh = PgBackupFreshnessSensor(task_id="fresh", repository={uri!r}, max_age=3600)
verify >> [prune, fresh]
""")
    assert set(run.states.values()) == {"success"}, run.output
    assert run.results["dump"]["database"] == HOSTILE  # data stays as it is
    assert_shown(run.output)
    for line in (f"/{SHOWN} (PostgreSQL 18", f'"{SHOWN}" lacks SELECT on table public."{SHOWN}"', f"{SHOWN}2"):
        assert line in run.output


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ('PgDumpOperator(task_id="a", postgres_conn_id="poor", repository=URI)', f"table {SHOWN}"),
        (
            'PgBackupFreshnessSensor(task_id="a", repository=URI, max_age=1, server="db", databases=[NAME])',
            f"db/{SHOWN}: ",
        ),
        ('PgBackupVerifyOperator(task_id="a", backup=NAME)', SHOWN),
    ],
)
def test_the_line_of_a_failure(
    task: str, said: str, database: ConnectionParams, uri: str, run_dag: Callable[..., Any]
) -> None:
    run = run_dag(f"""
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

URI, NAME = {uri!r}, {HOSTILE!r}
{task}
""")
    assert run.states == {"a": "failed"}, run.output
    assert said in run.failure
    assert_shown(run.output)


def test_names_from_xcom_are_no_templates(
    server18: PostgresServer,
    fresh_database: Callable[..., Any],
    postgres_connection: Any,
    uri: str,
    run_dag: Callable[..., Any],
) -> None:
    """Who may create databases chooses their names: rendered, one could read secrets, or name another database."""
    name = "{{ 'post' ~ 'gres' }}"
    postgres_connection("srv", fresh_database(server18, name).with_database("postgres"))
    run = run_dag(f"""
from airflow_pgbackup.operators.discover import PgDiscoverOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

class CompanyDump(PgDumpOperator):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)

class OneDump(PgDumpOperator):
    def __init__(self, *, name, **kwargs):
        super().__init__(database=name, **kwargs)

class CompanySensor(PgBackupFreshnessSensor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)

@task
def renamed(found):
    return [{{"name": each["database"]}} for each in found]

@task
def which(found):
    return [{{"databases": [each["database"]], "max_age": 3600}} for each in found]

srv = dict(postgres_conn_id="srv", repository={uri!r})
found = PgDiscoverOperator(task_id="discover", databases=["?? 'post' ~*"], **srv)
dump = PgDumpOperator.partial(task_id="dump", server="{{{{ dag.dag_id }}}}", **srv).expand_kwargs(found.output)
fresh = PgBackupFreshnessSensor.partial(
    task_id="fresh", repository={uri!r}, server="case", minimum_level=None
).expand_kwargs(which(found.output))
ours = CompanyDump.partial(task_id="ours", **srv).expand_kwargs(found.output)
one = OneDump.partial(task_id="one", **srv).expand_kwargs(renamed(found.output))
watched = CompanySensor.partial(
    task_id="watched", repository={uri!r}, server="case", minimum_level=None
).expand_kwargs(which(found.output))
dump >> [fresh, watched]
given = PgDumpOperator.partial(task_id="given", **srv).expand_kwargs([{{"database": "{{{{ 'postgres' }}}}"}}])
""")
    assert set(run.states.values()) == {"success"}, run.output
    assert [run.results[f"{task}[0]"]["database"] for task in ("dump", "ours", "one")] == [name] * 3
    for task in ("fresh[0]", "watched[0]"):
        assert [one["series"] for one in run.results[task]["series"]] == [run.results["dump[0]"]["series"]]
    assert run.results["dump[0]"]["series"].startswith("case/")
    assert run.results["given[0]"]["database"] == "postgres"
    assert run.rendered["dump[0]"]["database"] == name
