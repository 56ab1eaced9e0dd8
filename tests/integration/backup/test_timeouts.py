"""Timeouts of a role or database end no session of ours, on servers that know all of them and on older ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from restoring import backup, restored, value

from airflow_pgbackup.backup import source, source_rows
from airflow_pgbackup.backup.databases.inspection import inspect_database
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.backup.sets import discover
from airflow_pgbackup.backup.source import describe_source
from airflow_pgbackup.backup.source_rows import hold_source
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

ALL = {
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
}
SET = "select name from pg_settings where name like '%_timeout' and setting = '3600000'"
TIMED = (
    "do $$ declare name text; begin for name in select s.name from pg_settings s where s.name = any (array['"
    + "', '".join(sorted(ALL))
    + "']) loop execute format('alter database %I set %I = %L', current_database(), name, '1h'); end loop; end $$"
)
# Holds only in a session without these two timeouts: pg_restore and scripts set the others.
QUIET = (
    "create function quiet() returns bool language sql as $$ select current_setting('idle_session_timeout') = '0'"
    " and coalesce(current_setting('transaction_timeout', true), '0') = '0' $$",
    "create table film (id int check (quiet()))",
    "insert into film values (1)",
)


def left(session: psycopg.Connection[Any]) -> set[str]:
    """The timeouts that the session still has."""
    return {name for (name,) in session.execute(SET)}  # type: ignore[arg-type]


@pytest.fixture(params=["server16", "server18"])
def timed(request: pytest.FixtureRequest, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    """A database whose sessions have all timeouts that its server knows."""
    return fresh_database(request.getfixturevalue(request.param), None, "create table film (id int)", TIMED)


def test_the_database_has_all_timeouts(timed: ConnectionParams) -> None:
    with timed.connect() as plain:
        old = plain.info.server_version < 170000
        assert left(plain) == (ALL - {"transaction_timeout"} if old else ALL)


def test_a_session_that_changes_a_server(timed: ConnectionParams) -> None:
    with session(timed) as connection:
        assert left(connection) == set()


def test_the_session_that_counts_rows(timed: ConnectionParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rows, "_count", lambda session, *_: left(session))
    with hold_source(timed, DumpOptions(), client=(18, 0)) as held:
        assert held.rows() == set()


def test_the_session_that_describes_the_source(timed: ConnectionParams, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    ask = source._one
    monkeypatch.setattr(source, "_one", lambda session, query: seen.append(left(session)) or ask(session, query))
    describe_source(timed)
    assert seen
    assert set().union(*seen) == set()


def test_the_session_that_finds_databases(timed: ConnectionParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "_SERVER", f"select coalesce(string_agg(name, ' '), ''), '' from ({SET}) found")
    assert discover.discover(connection=timed).server_version == ""


def test_the_session_that_inspects(timed: ConnectionParams) -> None:
    with inspect_database(timed, Findings()) as found:
        assert {name for (name,) in found.rows(SET.replace("%", "%%"))} == set()  # type: ignore[arg-type]


def test_the_sessions_that_compare(timed: ConnectionParams) -> None:
    with DatabaseReader(timed, None) as reader, reader._session() as kept, reader._connected() as other:
        assert left(kept) == left(other) == set()


@pytest.mark.parametrize("format", ["plain", "custom"])
def test_a_restore_into_a_database_with_timeouts(
    format: str,
    server16: PostgresServer,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
) -> None:
    """The dump of an older server sets no transaction_timeout."""
    reference = backup(fresh_database(server16, None, *QUIET), here, format=format, no_owner=True)
    target = fresh_database(server18, None, TIMED)
    restored(reference, here, target, options={} if format == "plain" else {"no_owner": True})
    assert value(target, "select count(*) from film") == 1


def test_a_rehearsal_of_a_database_with_timeouts(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    reference = backup(fresh_database(server18, None, *QUIET, TIMED), here)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
