"""Dumps from a real streaming standby: its replay lag, and recovery conflicts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import FeatureNotSupported
from standby import PRIMARY_SETTINGS, streaming_standby

from airflow_pgbackup.backup import dump_preparation
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.replay import Replay, await_received, read_replay, replay_of
from airflow_pgbackup.backup.dump import CONFLICT_ATTEMPTS, dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import Canceled, ConfigurationError, ConnectError, ReplayLagError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings

FILL = (
    "create table film (id int, note text)",
    # more than the buffers between the server and the repository hold
    "insert into film select n, md5(n::text) || md5((-n)::text) from generate_series(1, 200000) n",
)


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), settings=PRIMARY_SETTINGS) as server:
        execute(server.params, "create table t (a int)", *FILL)
        yield server


@pytest.fixture
def standby(primary: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    settings = {"max_standby_streaming_delay": "0", "hot_standby_feedback": "off"}
    with streaming_standby(primary, tmp_path / "programs", settings) as server:
        wait_until(lambda: replay(server).lag_bytes == 0)
        yield server


def execute(connection: ConnectionParams, *statements: str) -> Any:
    """The first row of the last statement that returns rows."""
    row = None
    with connection.connect() as session:
        for statement in statements:
            found = session.execute(statement)
            row = found.fetchone() if found.description else row
    return row


def replay(server: PostgresServer) -> Replay:
    with server.params.connect() as session:
        return read_replay(session)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_received(standby: PostgresServer, primary: PostgresServer) -> bool:
    """Whether the standby has all WAL of the primary, which flushes commits later."""
    (written,) = execute(primary.params, "select pg_current_wal_insert_lsn()::text")
    return execute(standby.params, f"select pg_last_wal_receive_lsn() >= '{written}'") == (True,)


def dump(server: PostgresServer, here: Repository, lines: list[str] | None = None, **more: Any) -> dict[str, object]:
    log = print if lines is None else lines.append
    context = RunContext(log=log, settings=more.pop("settings", Settings()))
    options = DumpOptions(compress="none")  # nothing reads ahead to compress
    return dump_database(
        connection=server.params, server="db", repository=here, options=options, context=context, **more
    )


def manifest(here: Repository, reference: dict[str, object]) -> Any:
    return json.loads(here.read_bytes(f"{reference['series']}/{reference['id']}/manifest.json"))


def test_a_lagging_standby_is_refused_until_it_has_caught_up(
    primary: PostgresServer, standby: PostgresServer, here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(primary.params, "insert into t values (0)")
    wait_until(lambda: execute(standby.params, "select count(*) from t") == (1,))
    execute(standby.params, "select pg_wal_replay_pause()")
    execute(primary.params, "insert into t select generate_series(1, 1000)")
    wait_until(lambda: (replay(standby).lag_bytes or 0) > 0)
    for limit in ({"max_replay_lag": 0}, {"settings": Settings(max_replay_lag=0.001)}):
        with pytest.raises(
            ReplayLagError, match=r"is a standby with a replay lag of .* s, [\d,]+ bytes, more"
        ) as error:
            dump(standby, here, **limit)
        assert "Retry when the standby has caught up" in (error.value.hint or "")
        assert not error.value.permanent
    with monkeypatch.context() as patch:
        patch.setattr(dump_preparation, "check_source", lambda *_, **more: None)  # as if it reached another server
        with pytest.raises(ReplayLagError, match="more than max_replay_lag"):
            dump(standby, here, count_rows=True, max_replay_lag=0)
    assert [entry.key for entry in here.list("db")] == [], "refused before the dump"

    lagging = dump(standby, here)  # without a limit
    assert manifest(here, lagging)["source"]["replay"]["lag_bytes"] > 0
    assert manifest(here, lagging)["source"]["replay"]["lag_seconds"] > 0

    execute(standby.params, "select pg_wal_replay_resume()")
    wait_until(lambda: replay(standby).lag_bytes == 0)
    lines: list[str] = []
    current = dump(standby, here, lines, max_replay_lag=0)
    assert manifest(here, current)["source"]["replay"] == {"lag_bytes": 0, "lag_seconds": 0.0}, "no writes, no lag"
    assert any(line.endswith("is a standby; replay lag: 0.0 s, 0 bytes") for line in lines)
    assert manifest(here, dump(primary, here, lines, max_replay_lag=0))["source"]["replay"] is None
    assert not any("another server" in line for line in lines), "a standby has its primary's system identifier"
    globals = dump_cluster(
        connection=standby.params, server="db", repository=here, options=DumpAllOptions(globals_only=True)
    )
    assert manifest(here, globals)["source"]["replay"]["lag_bytes"] == 0


def test_a_standby_without_its_primary_lags(primary: PostgresServer, standby: PostgresServer, here: Repository) -> None:
    execute(primary.params, "insert into t values (1)")
    wait_until(lambda: execute(standby.params, "select count(*) from t") == (1,))
    primary.stop()
    wait_until(lambda: execute(standby.params, "select count(*) from pg_stat_wal_receiver") == (0,))
    assert (replay(standby).lag_seconds or 0) > 0
    with pytest.raises(ReplayLagError):
        dump(standby, here, max_replay_lag=0)


def test_what_a_standby_knows_of_its_lag() -> None:
    assert replay_of(True, 0, 86400.0) == Replay(0, 0.0), "nothing was written for a day"
    assert replay_of(True, -8, 5.0) == Replay(0, 0.0)
    assert replay_of(True, 100, 5.0) == Replay(100, 5.0)
    assert replay_of(False, 0, 5.0) == Replay(0, 5.0), "the primary may have written more"
    assert replay_of(False, None, 5.0) == Replay(None, 5.0), "it reads archived WAL"
    with pytest.raises(ReplayLagError, match=r"the replay lag of db is unknown"):
        replay_of(False, None, None).require_at_most(5, "db")


class AuroraReader:
    """A session whose server rejects the query, as a reader of Amazon Aurora does."""

    def execute(self, query: str) -> Any:
        raise FeatureNotSupported("Function pg_last_wal_receive_lsn() is currently not supported for Aurora")


def test_a_reader_of_aurora_reports_no_lag() -> None:
    found = read_replay(AuroraReader())  # type: ignore[arg-type]
    assert (found.lag_bytes, found.lag_seconds, str(found)) == (None, None, "unknown")
    with pytest.raises(ReplayLagError, match="unknown: this server does not report it") as error:
        found.require_at_most(5, "db")
    assert error.value.hint and "Omit max_replay_lag" in error.value.hint


@pytest.mark.parametrize("limit", [-1, "soon", float("nan"), float("inf")])
def test_an_impossible_limit_is_refused(limit: object, here: Repository) -> None:
    with pytest.raises(ConfigurationError, match="invalid max_replay_lag") as error:
        dump_database(
            connection=ConnectionParams({"host": "/nowhere", "dbname": "a"}),
            server="db",
            repository=here,
            options=DumpOptions(),
            max_replay_lag=limit,  # type: ignore[arg-type]
        )
    assert "Give a number of seconds" in (error.value.hint or "")


class Conflicting:
    """A repository whose first readings of a dump wait until replay on the standby conflicts with it."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer, times: int) -> None:
        self.primary, self.standby, self.times = primary, standby, times

    def on(self, here: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        write = here.write

        def waiting(key: str, source: Any, **more: Any) -> Any:
            if self.times:
                self.times -= 1
                source = Paused(source, self.conflict)
            return write(key, source, **more)

        monkeypatch.setattr(here, "write", waiting)

    def conflict(self) -> None:
        execute(self.primary.params, f"delete from film where id % 7 = {self.times}", "vacuum film")
        aborted = "select count(*) from pg_stat_activity where state = 'idle in transaction (aborted)'"
        seen: list[int | None] = [None]

        def canceled() -> bool:
            """Either it is, or replay waits for it, since it is canceled only when it can send to its client again."""
            seen.append(replay(self.standby).lag_bytes)
            waits = bool(seen[-1]) and seen[-6:] == [seen[-1]] * 6
            return waits or execute(self.standby.params, aborted) == (1,)

        wait_until(canceled)


class Paused:
    def __init__(self, source: Any, act: Callable[[], None]) -> None:
        self.source, self.act, self.done = source, act, False

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self.source.read(min(size, 1000) if size > 0 else size)
        if not self.done:
            self.done = True
            self.act()
        return data


def test_the_next_try_waits_for_what_was_received(primary: PostgresServer, standby: PostgresServer) -> None:
    execute(standby.params, "select pg_wal_replay_pause()")
    execute(primary.params, "insert into t select generate_series(1, 1000)")
    wait_until(lambda: has_received(standby, primary))
    await_received(standby.params, Cancel(), at_most=0)
    assert (replay(standby).lag_bytes or 0) > 0, "it gives up: replay is paused"
    asked = threading.Event()

    class Asked(Cancel):
        def check(self) -> None:
            asked.set()

    waiting = threading.Thread(target=await_received, args=(standby.params, Asked()))
    waiting.start()
    assert asked.wait(60)
    execute(standby.params, "select pg_wal_replay_resume()")
    waiting.join()
    assert execute(standby.params, "select count(*) from t") == (1000,)
    await_received(primary.params, Cancel())
    await_received(ConnectionParams({"host": "/nowhere", "dbname": "a"}), Cancel())
    execute(standby.params, "select pg_wal_replay_pause()")
    execute(primary.params, "insert into t select generate_series(1, 1000)")
    wait_until(lambda: has_received(standby, primary))
    canceled = Cancel()
    canceled.set()
    with pytest.raises(Canceled):
        await_received(standby.params, canceled)


@pytest.mark.parametrize("count_rows", [False, True])
def test_a_dump_that_replay_cancels_is_tried_again(
    primary: PostgresServer,
    standby: PostgresServer,
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
    count_rows: bool,
) -> None:
    Conflicting(primary, standby, times=1).on(here, monkeypatch)
    lines: list[str] = []
    reference = dump(standby, here, lines, count_rows=count_rows)
    (again,) = [line for line in lines if "replay canceled the dump" in line]
    assert again.endswith(f"(conflict with recovery); {CONFLICT_ATTEMPTS - 1} more attempts")
    assert verify(reference=reference, repository=here, level="archive")["verified"] == "archive"
    folders = {entry.key.split("/")[2] for entry in here.list("db")}
    assert folders == {reference["id"]}, "nothing is left of the canceled try"


def test_a_dump_that_replay_always_cancels_fails(
    primary: PostgresServer, standby: PostgresServer, here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    Conflicting(primary, standby, times=CONFLICT_ATTEMPTS).on(here, monkeypatch)
    lines: list[str] = []
    # On a busy machine, replay can end the last attempt's own session while it prepares.
    with pytest.raises((ToolError, ConnectError), match="conflict with recovery") as error:
        dump(standby, here, lines)
    assert "max_standby_streaming_delay" in (error.value.hint or "")
    assert sum("replay canceled the dump" in line for line in lines) == CONFLICT_ATTEMPTS - 1
    assert [entry.key for entry in here.list("db")] == []


def test_unlogged_tables_of_a_standby_are_not_counted(
    primary: PostgresServer, standby: PostgresServer, here: Repository
) -> None:
    """A standby has no rows of them, and pg_dump does not read them there."""
    execute(primary.params, "create unlogged table passing (a int)", "insert into passing values (1)")
    wait_until(lambda: execute(standby.params, "select to_regclass('passing') is not null") == (True,))
    reference = dump(standby, here, count_rows=True)
    assert verify(reference=reference, repository=here)["verified"] == "archive"
    assert manifest(here, reference)["left_out"] == ["public.passing"]
