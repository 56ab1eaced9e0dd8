"""A canceled task ends within seconds, even if the server has stopped answering."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.source_rows import hold_source
from airflow_pgbackup.errors import Canceled, DeadlineExceeded
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from tests.campaign.relay import Relay

LIMIT = 60.0
_END_ALL = "select pg_terminate_backend(pid, 60000) from pg_stat_activity where wait_event = 'PgSleep'"


@pytest.fixture
def relay(server18: PostgresServer) -> Iterator[Relay]:
    with Relay(server18.port).running() as relay:
        yield relay


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_pgbackup.postgres.connection.interrupt._PATIENCE", 0.4)
    monkeypatch.setattr("airflow_pgbackup.postgres.compare.interruptible._GRACE", 0.2)


def through(relay: Relay, params: ConnectionParams) -> ConnectionParams:
    return replace(params, keywords={**params.keywords, "host": "127.0.0.1", "port": str(relay.port)})


@contextmanager
def stalled(relay: Relay, server: PostgresServer, work: Callable[[], object]) -> Iterator[None]:
    """Run work in a thread, and stall the relay when the work waits in pg_sleep(); then require the end of the work."""
    with ThreadPoolExecutor(1) as pool, server.params.connect() as other:
        other.execute(_END_ALL)  # those of earlier tests
        running = pool.submit(work)
        waiting = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
        end = time.monotonic() + LIMIT
        while not other.execute(waiting).fetchone()[0]:  # type: ignore[index]
            assert time.monotonic() < end
            time.sleep(0.02)
        relay.stall()
        try:
            yield
            running.result(LIMIT)
        finally:
            relay.release()
            other.execute(_END_ALL)


@pytest.mark.parametrize("last", [False, True])
def test_a_server_that_does_not_answer(server18: PostgresServer, relay: Relay, last: bool) -> None:
    with closing(through(relay, server18.params).open_session()) as opened:

        def sleep() -> None:
            with pytest.raises(psycopg.OperationalError):
                opened.execute("select pg_sleep(3600)")

        with stalled(relay, server18, sleep):
            start = time.monotonic()
            interrupt(opened, last=last)
            assert time.monotonic() - start < LIMIT / 3


def test_a_flag_that_is_set_in_a_signal_handler(server18: PostgresServer, relay: Relay) -> None:
    """As Airflow's on_kill and the CLI's Ctrl-C do; the handler returns, and the statement ends."""
    cancel, returned = Cancel(), threading.Event()

    def stop(*_: object) -> None:
        relay.stall()
        cancel.set()
        returned.set()

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(Canceled), session(through(relay, server18.params), cancel) as opened:  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            opened.execute("select pg_sleep(3600)")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert returned.is_set()


def test_a_process_of_the_server_that_has_stopped(server18: PostgresServer) -> None:
    """It gets the cancel request, but does not obey."""
    with closing(server18.params.open_session()) as opened, ThreadPoolExecutor(1) as pool:
        pid = opened.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            running = pool.submit(opened.execute, "select 1")
            interrupt(opened, last=True)
            with pytest.raises(psycopg.OperationalError):
                running.result(LIMIT)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_session_goes_on_after_an_interrupted_statement(server18: PostgresServer) -> None:
    with closing(server18.params.open_session()) as opened, ThreadPoolExecutor(1) as pool:
        running = pool.submit(opened.execute, "select pg_sleep(3600)")
        while not running.done():
            interrupt(opened)
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result(LIMIT)
        assert opened.execute("select 1").fetchone() == (1,)


def test_a_comparison_ends_at_its_deadline(
    server18: PostgresServer, relay: Relay, fresh_database: Callable[..., ConnectionParams]
) -> None:
    database = fresh_database(server18, None, "create view slow as select from pg_sleep(3600)")

    def count() -> None:
        with (
            DatabaseReader(through(relay, database), None, deadline=1.0) as reader,
            pytest.raises(DeadlineExceeded),
        ):
            reader.count("public", "slow", only=False)

    with stalled(relay, server18, count):
        pass


def test_an_interrupted_dump_does_not_wait_for_its_row_counts(
    server18: PostgresServer, relay: Relay, fresh_database: Callable[..., ConnectionParams]
) -> None:
    database = fresh_database(server18, None, "create table film (id int)")
    with database.connect(autocommit=False) as other, suppress(KeyboardInterrupt):
        other.execute("lock table film in access exclusive mode")
        with hold_source(through(relay, database), DumpOptions(), client=server18.version):
            relay.stall()
            raise KeyboardInterrupt
