"""A restore that is stopped, or loses the server, while its tool commits: it says what became of the transaction."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from restoring import backup, fresh_server, local, restored, value

from airflow_pgbackup.backup.restore import database, rename
from airflow_pgbackup.backup.restore.request import StateText
from airflow_pgbackup.errors import Canceled, ConfigurationError, ConnectError, RestoreError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository

Fresh = Callable[..., ConnectionParams]

GATE = 4712
TABLE = "create table filled (a int)"
ROWS = "insert into filled values (1), (2), (3)"
# The trigger runs in the COMMIT, and waits until the test lets it end.
SLOW_COMMIT = (
    "create function gate() returns trigger language plpgsql as $$ begin "
    f"perform pg_catalog.pg_advisory_lock_shared({GATE}); return null; end $$",
    "create constraint trigger gate after insert on filled deferrable initially deferred for each row "
    "execute function gate()",
    "alter table filled enable always trigger gate",
)
WAITS = (
    "select count(*) from pg_stat_activity where application_name like 'airflow-pgbackup restore %' and wait_event = "
)


@contextmanager
def commit_held(target: ConnectionParams, then: Callable[[], object]) -> Iterator[None]:
    """Hold the COMMIT of the restore up until its transaction is noted; call a function before it goes on."""

    def hold() -> None:
        with target.with_database("postgres").connect() as other, target.connect() as connection:
            connection.execute("select pg_advisory_lock(%s)", [GATE])
            held.set()
            wait_until(lambda: one(other, WAITS + "'advisory'"))
            wait_until(lambda: re.search(r'"transaction": [1-9]', comment(target) or ""))
            then()

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    yield
    thread.join()


def one(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def wait_until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def comment(target: ConnectionParams) -> str | None:
    query = "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
    found: str | None = value(target, query)
    return found


def dumped(source: ConnectionParams, directory: Path, format: str) -> tuple[dict[str, object], Repository]:
    repository = local(directory)
    return backup(source, repository, format=format, data_only=True), repository


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_cancel_during_the_commit_ends_it(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    stored = dumped(fresh_database(server18, None, TABLE, ROWS), tmp_path, format)
    target, cancel = fresh_database(server18, None, TABLE, *SLOW_COMMIT), Cancel()

    def cancel_and_wait() -> None:
        cancel.set()
        wait_until(lambda: value(server18.params, WAITS + "'advisory'") == 0)

    with (
        pytest.raises(Canceled, match=f'; database "{target.dbname}" was not changed'),
        commit_held(target, cancel_and_wait),
    ):
        restored(*stored, target, mode="into_existing", cancel=cancel, seed="a task")
    assert (value(target, "select count(*) from filled"), comment(target)) == (0, None)
    restored(*stored, target, mode="into_existing", seed="a task")
    assert value(target, "select count(*) from filled") == 3


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_the_transaction_of_a_login_trigger_is_not_the_tool_s(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """An audit of logins, slow enough that the watch sees it, is committed; then the restore fails."""
    stored = backup(fresh_database(server18, None, TABLE, ROWS), repository := local(tmp_path), format=format)
    target = fresh_database(
        server18,
        None,
        TABLE,
        "create table logins (at timestamptz)",
        "create function audit() returns event_trigger language plpgsql as $$ begin "
        "if current_setting('application_name') like 'airflow-pgbackup restore %' then "
        "insert into logins values (now()); perform pg_sleep(1); end if; end $$",
        "create event trigger audit on login execute function audit()",
        "alter event trigger audit enable always",
    )
    for _ in range(2):
        with pytest.raises(ToolError, match=f'; database "{target.dbname}" was not changed'):
            restored(stored, repository, target, mode="into_existing", seed="a task")
        assert comment(target) is None
    assert value(target, "select count(*) from logins") > 0


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that can be told to wait for a standby in each COMMIT."""
    settings = {"synchronous_commit": "on", "max_wal_senders": "2", "wal_level": "replica"}
    with fresh_server(18, settings=settings) as server:
        yield server


def wait_for_standbys(server: PostgresServer, names: str) -> None:
    """Let each COMMIT wait for a standby of these names. That takes effect when the checkpointer has seen it."""

    def waits() -> bool:
        with server.params.connect() as probe:
            pid = probe.info.backend_pid
            thread = threading.Thread(target=lambda: probe.execute("create or replace view probe as select 1"))
            thread.start()
            query = f"select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'SyncRep'"
            wait_until(lambda: not thread.is_alive() or one(connection, query))
            waited = thread.is_alive()
            connection.execute("select pg_cancel_backend(%s)", [pid])
            thread.join()
            return waited

    with server.params.connect() as connection:
        connection.execute(f"alter system set synchronous_standby_names = '{names}'".encode())
        connection.execute("select pg_reload_conf()")
        wait_until(lambda: waits() == bool(names))


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_what_a_canceled_commit_has_made_durable_is_not_denied(
    format: str, durable: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """The COMMIT waits for a synchronous standby: PostgreSQL has committed locally, and cannot take that back."""
    stored = dumped(fresh_database(durable, None, TABLE, ROWS), tmp_path, format)
    target, cancel = fresh_database(durable, None, TABLE, *SLOW_COMMIT), Cancel()

    def cancel_later() -> None:
        with durable.params.connect() as connection:
            wait_until(lambda: one(connection, WAITS + "'SyncRep'"))
        cancel.set()

    later = threading.Thread(target=cancel_later)

    def cancel_at_the_standby() -> None:
        wait_for_standbys(durable, "nobody")
        later.start()

    try:
        with (
            pytest.raises(Canceled, match=f'; database "{target.dbname}" was restored'),
            commit_held(target, cancel_at_the_standby),
        ):
            restored(*stored, target, mode="into_existing", cancel=cancel, seed="a task")
    finally:
        wait_for_standbys(durable, "")
    later.join()
    lines: list[str] = []
    result = restored(*stored, target, mode="into_existing", log=lines.append, seed="a task")
    assert any("an earlier attempt of this task has restored" in line for line in lines)
    assert result["rows"] is None
    assert value(target, "select count(*) from filled") == 3, "not twice"
    restored(*stored, target, mode="into_existing", seed="the task after it was cleared")
    assert value(target, "select count(*) from filled") == 6


def test_a_server_that_is_gone_leaves_a_doubt(tmp_path: Path) -> None:
    with fresh_server(18) as server:
        source, target = server.params.with_database("source"), server.params.with_database("target")
        for made, *more in ((source, ROWS), (target, *SLOW_COMMIT)):
            with server.params.connect() as connection:
                connection.execute(f"create database {made.dbname}".encode())
            with made.connect() as connection:
                for statement in (TABLE, *more):
                    connection.execute(statement.encode())
        stored = dumped(source, tmp_path, "custom")

        def stop() -> None:
            assert server.private_directory
            pid_file = server.private_directory / "data" / "postmaster.pid"
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
            wait_until(lambda: not pid_file.exists())  # until then a session may still commit

        expected = '; it is not known whether database "target" was restored: check that before a retry'
        with pytest.raises(ToolError, match=re.escape(expected)), commit_held(target, stop):
            restored(*stored, target, mode="into_existing", seed="a task")


class Killed(BaseException):
    """As SIGKILL: nothing of ours runs after it."""


def kill(stored: tuple[dict[str, object], Repository], target: ConnectionParams, mode: str, transaction: int) -> None:
    """Let an attempt of "a task" end before it says that its transaction, of the given number, has ended."""

    def log(line: str) -> None:
        if line.startswith("restored objects and rows"):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "noted_transaction", lambda *_, **__: nullcontext())
        with pytest.raises(Killed):
            restored(*stored, target, mode=mode, log=log, seed="a task")
    marked = (comment(target) or "").replace('"transaction": 0', f'"transaction": {transaction}')
    with target.connect() as connection:
        connection.execute(sql.SQL("comment on database {} is {}").format(sql.Identifier(target.dbname), marked))


@pytest.mark.parametrize("mode", ["into_existing", "into_empty"])
def test_a_retry_waits_for_the_attempt_that_still_runs(
    mode: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """The first attempt was killed with its worker, but not its session on the server."""
    repository = local(tmp_path)
    stored = backup(fresh_database(server18, None, TABLE, ROWS), repository), repository
    target = fresh_database(server18)
    with target.connect(autocommit=False) as running:
        kill(stored, target, mode, one(running, "select txid_current()"))
        with pytest.raises(RestoreError, match="an earlier attempt of this task is still restoring") as caught:
            restored(*stored, target, mode=mode, seed="a task")
    assert caught.value.retry == "later"


def test_an_attempt_whose_end_nobody_knows_is_not_repeated(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    stored = dumped(fresh_database(server18, None, TABLE, ROWS), tmp_path, "custom")
    target = fresh_database(server18, None, TABLE)
    kill(stored, target, "into_existing", 0)
    with pytest.raises(ConfigurationError, match="an earlier attempt of this task may have restored into"):
        restored(*stored, target, mode="into_existing", seed="a task")
    assert value(target, "select count(*) from filled") == 3, "not twice"


def test_what_an_attempt_has_rolled_back_is_repeated(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    stored = dumped(fresh_database(server18, None, TABLE, ROWS), tmp_path, "custom")
    target = fresh_database(server18, None, TABLE)
    with target.connect(autocommit=False) as aborted:
        number = one(aborted, "select txid_current()")
        aborted.rollback()
    kill(stored, target, "into_existing", number)
    restored(*stored, target, mode="into_existing", seed="a task")
    assert value(target, "select count(*) from filled") == 6


@pytest.mark.parametrize(
    ("reachable", "error", "state"),
    [
        (True, RestoreError, "as before"),
        (False, ConnectError, "it is not known whether it was renamed: check that before a retry"),
    ],
)
def test_a_connection_lost_at_the_commit_of_a_rename(
    reachable: bool,
    error: type[Exception],
    state: str,
    server18: PostgresServer,
    fresh_database: Fresh,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, text = fresh_database(server18).dbname, StateText("as before")

    def lose(connection: psycopg.Connection[Any]) -> None:
        with server18.params.connect() as other:
            other.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        if not reachable:
            monkeypatch.setattr(rename, "session", refused)

    @contextmanager
    def refused(*_: object) -> Iterator[None]:
        raise ConnectError("the server is gone")
        yield

    with pytest.raises(error):
        rename.rename_databases(
            server18.params,
            [(name, f"{name}_b")],
            end_sessions_in=[name],
            state=text,
            after="it was renamed",
            warn=pytest.fail,
            then=lose,
        )
    assert text.text == state
