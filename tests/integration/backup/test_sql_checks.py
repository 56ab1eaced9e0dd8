"""SQL checks of a restored copy: what they prove, what they cannot do, and what is said of the backup."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import psycopg
import pytest

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_evidence, load_manifest
from airflow_pgbackup.backup.sql_checks import SqlCheck, parse_checks, run_checks
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import Canceled, ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository

AT = datetime(2026, 11, 27, 2, 0, tzinfo=timezone.utc)


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table orders (id int, at timestamptz default now())",
        "insert into orders select generate_series(1, 10)",
        "create table empty (a int)",
        "create schema app",
        "create table app.item (a int)",
    )


@pytest.fixture
def reference(here: Repository, database: ConnectionParams) -> dict[str, object]:
    return dump_database(connection=database, server="s", repository=here, options=DumpOptions())


def test_in_a_rehearsed_copy(here: Repository, reference: dict[str, object]) -> None:
    checks = [
        "select count(*) = 10 from orders",
        {"name": "recent", "sql": "select max(at) > current_setting('pgbackup.started_at')::timestamptz - interval '1h'"
            " from orders;"},
        {"name": "nice to have", "sql": "select count(*) > 0, count(*) from empty", "required": False},
    ]  # fmt: skip
    assert verify(reference=reference, repository=here, level="restore", checks=checks)["verified"] == "restore"
    (report,) = load_evidence(here, reference).verifications
    found = {check.name: (check.result, check.detail) for check in report.checks}
    assert found["sql check 'select count(*) = 10 from orders'"] == ("pass", "true")
    assert found["sql check 'recent'"] == ("pass", "true")
    assert found["note"] == ("pass", "sql check 'nice to have': false, {\"count\": 0}; it is not required")


def test_restorable_and_useless(here: Repository, reference: dict[str, object]) -> None:
    checks = [{"name": "rows in empty", "sql": "select count(*) > 0, count(*) as rows from empty"}]
    with pytest.raises(VerificationFailed, match=r"sql check 'rows in empty': false, \{\"rows\": 0\}") as caught:
        verify(reference=reference, repository=here, level="restore", checks=checks)
    assert "The backup restores, but" in str(caught.value)
    evidence = load_evidence(here, reference)
    assert evidence.backup.state == "failed"
    results = {check.name: check.result for check in evidence.verifications[0].checks}
    assert results["restore"] == "pass"
    assert results["sql check 'rows in empty'"] == "fail"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select count(*) > 0 from no_table", 'relation "no_table" does not exist'),
        ("selec true", "syntax error"),
        ("select 1", "its first column is not boolean"),
        ("with recursive r as (select true x union all select x from r) select x from r", "it returned several rows"),
        ("select true where false", "it returned no row"),
        ("insert into orders values (1) returning true", "syntax error"),
        ("with x as (insert into orders values (1) returning 1) select true from x", "data-modifying"),
        ("select true; drop table orders", "cannot insert multiple commands"),
        ("select true; commit; drop table orders", "cannot insert multiple commands"),
        ("select nextval('s') > 0 from (select 1) x", 'relation "s" does not exist'),
    ],
)
def test_a_check_that_cannot_run(sql: str, said: str, database: ConnectionParams) -> None:
    (outcome,) = run_checks(database, [SqlCheck("x", sql)], started_at=AT)
    assert outcome.result == "notproven"
    assert said in outcome.detail
    with database.connect() as session:
        assert session.execute("select count(*) from orders").fetchall() == [(10,)]


def test_it_says_nothing_about_the_backup(here: Repository, reference: dict[str, object]) -> None:
    with pytest.raises(NotProven, match=r"sql check 'x': syntax error .* The backup restores\."):
        verify(reference=reference, repository=here, level="restore", checks=[SqlCheck("x", "selec true")])
    evidence = load_evidence(here, reference)
    assert evidence.backup.state == "notproven"
    assert {check.name: check.result for check in evidence.verifications[0].checks}["restore"] == "pass"


@pytest.mark.parametrize(
    "sql",
    [
        "select lo_create(0) > 0",
        "select pg_sleep(100) is null",
        "select set_config('transaction_read_only', 'off', true) = 'off' and lo_create(0) > 0",
    ],
    ids=["writes", "sleeps", "writes after a switch"],
)
def test_it_changes_nothing_and_ends(sql: str, database: ConnectionParams) -> None:
    (outcome,) = run_checks(database, [SqlCheck("x", sql)], started_at=AT, seconds=0.5)
    assert outcome.result == "notproven"
    with database.connect() as session:
        assert session.execute("select count(*) from pg_largeobject_metadata").fetchall() == [(0,)]


def test_names_are_found_as_in_the_application(database: ConnectionParams) -> None:
    with database.connect() as session:
        session.execute(f'alter database "{database.dbname}" set search_path = app'.encode())
    checks = [SqlCheck("item", "select count(*) = 0 from item"), SqlCheck("null", "select null::bool")]
    outcomes = run_checks(database, checks, started_at=AT)
    assert [(outcome.result, outcome.detail) for outcome in outcomes] == [("pass", "true"), ("fail", "NULL")]


@pytest.mark.parametrize(
    ("sql", "detail"),
    [
        ("select true, 'infinity'::timestamptz as newest", 'true, {"newest": "infinity"}'),
        ("select true, '20000-01-01'::date as day", 'true, {"day": "20000-01-01"}'),
        ("select true, 1 as a, 2 as a", 'true, {"a": 1, "a": 2}'),
        ("select true, null as a, (1, 'x') as b", 'true, {"a": null, "b": {"f1":1,"f2":"x"}}'),
        ("values (true, 3)", 'true, {"column2": 3}'),
        ("select true -- why", "true"),
        ("select true; -- why", "true"),
        ("select true as a order by a limit 1", "true"),
    ],
)
def test_what_it_shows(sql: str, detail: str, database: ConnectionParams) -> None:
    (outcome,) = run_checks(database, [SqlCheck("x", sql)], started_at=AT)
    assert (outcome.result, outcome.detail) == ("pass", detail)


def test_what_it_prints_is_bounded(database: ConnectionParams) -> None:
    sql = "select false, E'\\x1b[31m' as escape, repeat('x', 10000000) as large"
    (outcome,) = run_checks(database, [SqlCheck("x", sql)], started_at=AT)
    assert outcome.result == "fail"
    assert len(outcome.detail) < 300
    assert "\x1b" not in outcome.detail


def test_a_large_result_stays_in_the_server(database: ConnectionParams, monkeypatch: pytest.MonkeyPatch) -> None:
    received = []
    fetchall = psycopg.Cursor.fetchall

    def spy(cursor: psycopg.Cursor[Any]) -> list[Any]:
        rows = fetchall(cursor)
        received.append(len(str(rows)))
        return rows

    monkeypatch.setattr(psycopg.Cursor, "fetchall", spy)
    run_checks(database, [SqlCheck("x", "select true, repeat('x', 10000000)")], started_at=AT)
    assert received
    assert max(received) < 1000


def test_an_error_of_megabytes_is_shortened(
    here: Repository, reference: dict[str, object], database: ConnectionParams
) -> None:
    with database.connect() as session:
        session.execute(
            "create function loud() returns bool language plpgsql as "
            "$$ begin raise exception '%', repeat('x', 10000000); end $$"
        )
    (outcome,) = run_checks(database, [SqlCheck("x", "select loud()")], started_at=AT)
    assert outcome.result == "notproven"
    assert len(outcome.detail) < 600


@pytest.mark.parametrize(
    "function",
    [
        # Catches what statement_timeout and a cancel request raise.
        "language plpgsql as $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; "
        "end loop; end $$",
        # Runs while the query is planned, and removes the timeout for what follows.
        "immutable language plpgsql as $$ begin perform set_config('statement_timeout', '0', true); return true; "
        "end $$",
    ],
    ids=["catches", "removes"],
)
def test_a_function_of_the_dump_that_defeats_the_timeout(
    function: str, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_pgbackup.backup.sql_checks._GRACE", 0.5)
    with database.connect() as session:
        session.execute(f"create function endless() returns bool {function}".encode())
    checks = [
        SqlCheck("endless", "select pg_sleep(3600) is not null where endless()"),
        SqlCheck("next", "select count(*) = 10 from orders"),
    ]
    outcomes = run_checks(database, checks, started_at=AT, seconds=2)
    assert outcomes[0].result == "notproven"
    assert "was killed" in outcomes[0].detail
    assert outcomes[1].check.name == "next"
    with database.connect() as session:
        query = "select count(*) from pg_stat_activity where query like 'FETCH%' and datname = current_database()"
        deadline = time.monotonic() + 60
        while session.execute(query).fetchone() != (0,):
            assert time.monotonic() < deadline, "the session of the check still runs"
            time.sleep(0.05)


def test_a_cancellation_ends_it(database: ConnectionParams) -> None:
    with database.connect() as session:
        session.execute(
            "create function endless() returns bool language plpgsql as $$ begin loop begin perform pg_sleep(60); "
            "exception when query_canceled then null; end; end loop; end $$"
        )
    cancel = Cancel()
    with ThreadPoolExecutor(max_workers=1) as pool:
        done = pool.submit(
            run_checks, database, [SqlCheck("x", "select endless()")], started_at=AT, cancel=cancel, seconds=3600
        )
        with database.connect() as session:
            query = (
                "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
            )
            while session.execute(query).fetchone() == (0,):
                assert not done.done()
                time.sleep(0.05)
        cancel.set()
        with pytest.raises(Canceled):
            done.result(timeout=240)


def test_only_where_a_copy_is_restored(
    here: Repository, reference: dict[str, object], server16: PostgresServer
) -> None:
    before = len(list(here.list()))
    with pytest.raises(ConfigurationError, match="cannot be combined with level archive"):
        verify(reference=reference, repository=here, checks=["select true"])
    assert len(list(here.list())) == before
    cluster = dump_cluster(
        connection=server16.params, server="s", repository=here, options=DumpAllOptions(roles_only=True)
    )
    with pytest.raises(ConfigurationError, match="the backup of a cluster"):
        verify(reference=cluster, repository=here, level="restore", checks=["select true"])
    assert load_manifest(here, cluster)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"name": "x"}], "without sql"),
        ([{"sql": "select true"}], "without name"),
        ([{"name": "x", "sql": "y", "requierd": True}], "unknown field 'requierd'"),
        ([{"name": "x", "sql": "y", "required": "no"}], "required is 'no'"),
        ([7], "not a check: '7'"),
        (["select true", "select true"], "two checks are named"),
        ([{"name": "x", "sql": "a\0b"}], "without sql"),
        ([{"name": "x" * 500, "sql": "y"}], "500 characters"),
        ([f"select {n}" for n in range(1001)], "1001 checks"),
    ],
    ids=["no sql", "no name", "typo", "required", "number", "twice", "nul", "long", "many"],
)
def test_what_is_no_check_is_refused(given: list[Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_checks(given)
