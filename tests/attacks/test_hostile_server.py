"""Whoever wrote the dump is superuser of a rehearsal's server, which need not answer the session that inspects it."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.rehearsal import run as rehearse
from airflow_pgbackup.backup.rehearsal import session_guard
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.backup.rehearsal.session_guard import guarded_sessions
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import Canceled, ConnectError, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.repository.open import open_repository

# Makes a session that reads large objects wait for a lock, and stops its process, which then obeys neither
# statement_timeout nor a cancel request.
STOP_WHO_LOOKS = """
psql=$(dirname $(readlink /proc/$(head -1 postmaster.pid)/exe))/psql
PGUSER=$1 PGDATABASE=$2 PGHOST=$(sed -n 5p postmaster.pid) PGPORT=$(sed -n 4p postmaster.pid) setsid $psql <<'END' &
do $$ declare waiting int; begin
    lock table pg_largeobject in access exclusive mode;
    loop
        select pid into waiting from pg_locks where relation = 'pg_largeobject'::regclass and not granted;
        exit when waiting is not null;
        perform pg_sleep(0.01);
    end loop;
    execute format('copy (select 1) to program %L', 'cat > /dev/null; kill -STOP ' || waiting);
    perform pg_sleep(600);
end $$;
END
"""
# A throwaway server has jit off, the test's server on.
MARKED = """
create function marked(int) returns int language plpgsql as $f$ begin
    if current_setting('jit') = 'off' then
        execute format('copy (select 1) to program %L', format(
            'cat > /dev/null; echo {script} | base64 -d | sh -s %s %s > /dev/null 2>&1',
            current_user, current_database()));
        loop
            exit when exists (select from pg_locks where relation = 'pg_largeobject'::regclass and granted
                                                     and mode = 'AccessExclusiveLock');
            perform pg_sleep(0.01);
        end loop;
    end if; return $1; end $f$"""


@pytest.fixture
def rehearsed(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> Callable[[float, Cancel], object]:
    repository = open_repository(f"file://{tmp_path / 'repository'}")
    repository.init()
    database = fresh_database(
        server18,
        None,
        MARKED.format(script=base64.b64encode(STOP_WHO_LOOKS.encode()).decode()),
        "create table t (a int)",
        "insert into t values (1)",
        "set jit = on",
        "alter table t add check (marked(a) > 0)",
    )
    reference = dump_database(connection=database, server="s", repository=repository, options=DumpOptions())

    def rehearsed(deadline: float, cancel: Cancel) -> object:
        return verify(
            reference=reference,
            repository=repository,
            level="restore",
            context=RunContext(deadline=deadline, cancel=cancel),
        )

    return rehearsed


def stopped_backend() -> bool:
    """Whether a session of a server of this process is stopped; other workers run this test's kind too."""
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() == psutil.STATUS_STOPPED and "".join(process.cmdline()).startswith("postgres: pgb_"):
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def test_a_server_that_is_stopped_ends_the_rehearsal(
    rehearsed: Callable[[float, Cancel], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that passes the deadline when the session that inspects the server is stopped."""
    monkeypatch.setattr(rehearse, "_PHASES", 1)
    clock = SimpleNamespace(monotonic=lambda: 1e9 if stopped_backend() else 0.0)
    monkeypatch.setattr(session_guard, "time", clock)
    with pytest.raises(NotProven, match="took more than 600 s"):
        rehearsed(600.0, Cancel())


def test_a_rehearsal_on_a_stopped_server_can_be_canceled(rehearsed: Callable[[float, Cancel], object]) -> None:
    cancel = Cancel()

    def ask() -> None:
        limit = time.monotonic() + 240
        while not stopped_backend() and time.monotonic() < limit:
            time.sleep(0.05)
        cancel.set()

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(Canceled):
        rehearsed(3600.0, cancel)  # longer than a test may take
    thread.join()


@pytest.fixture
def server(server18: PostgresServer) -> RehearsalServer:
    programs = find_clients([str(server18.bin_dir)])[0]
    return RehearsalServer(params=server18.params, directory=server18.shared, programs=programs, loader=programs)


def test_endless_results_are_not_kept(server: RehearsalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_guard, "_MOST_MEMORY", 64 << 20)
    stop = Cancel()

    def ask() -> None:
        with guarded_sessions(server, Cancel(), 60, stop), server.params.with_database("postgres").connect() as session:
            session.execute("select repeat('x', 1000), generate_series(1, 1000000000)")

    with pytest.raises(NotProven, match=r"took more than 64\.0 MiB of memory"):
        ask()
    assert stop.is_set()  # for the tools


def test_no_new_session_after_the_sessions_were_closed(server: RehearsalServer) -> None:
    cancel = Cancel()
    with guarded_sessions(server, cancel, 60, Cancel()):
        with server.params.connect() as session:
            assert session.execute("select 1").fetchone() == (1,)
        cancel.set()
        with pytest.raises(ConnectError, match="the task was canceled"):
            server.params.connect()
