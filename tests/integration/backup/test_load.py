"""The load that a dump puts on its server: the rate limit, and locks that it waits for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from airflow_pgbackup.backup import lock_watch, throttle
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import ConnectError, OptionError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings

Fresh = Callable[..., ConnectionParams]
RATE = 100_000


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of a dump by a clock that only they move, so that no test waits."""
    waits: list[float] = []
    parameters = throttle.Throttled.__init__.__kwdefaults__
    monkeypatch.setitem(parameters, "clock", lambda: sum(waits))
    monkeypatch.setitem(parameters, "sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    "options",
    [DumpOptions(), DumpOptions(format="tar"), DumpOptions(format="plain"), DumpOptions(compress="gzip:6")],
    ids=["custom", "tar", "plain", "gzip by pg_dump"],
)
def test_a_dump_is_read_at_the_rate(
    server18: PostgresServer, fresh_database: Fresh, here: Repository, options: DumpOptions, slept: list[float]
) -> None:
    database = fresh_database(server18, None, "create table t as select md5(n::text) from generate_series(1, 30000) n")
    settings = Settings(max_bytes_per_second=RATE)
    reference = dump_database(
        connection=database, server="db", repository=here, options=options, context=RunContext(settings=settings)
    )
    assert verify(reference=reference, repository=here, level="archive")["verified"] == "archive"
    dumped = int(str(reference["size"])) if options.compress or options.format != "custom" else 30_000 * 33
    assert dumped > 400_000
    assert dumped / RATE - throttle.BURST - 0.1 <= sum(slept) <= 1.5 * dumped / RATE + 1


def test_a_cluster_and_a_directory(
    server18: PostgresServer, fresh_database: Fresh, here: Repository, slept: list[float]
) -> None:
    database = fresh_database(server18)
    dump_cluster(
        connection=database,
        server="db",
        repository=here,
        options=DumpAllOptions(globals_only=True),
        max_bytes_per_second=100,
    )
    assert sum(slept) > 1
    with pytest.raises(OptionError, match="max_bytes_per_second cannot be combined with format directory") as error:
        dump_database(
            connection=database,
            server="db",
            repository=here,
            options=DumpOptions(format="directory"),
            max_bytes_per_second=RATE,
        )
    assert "Choose format custom" in (error.value.hint or "")


@pytest.fixture
def migration(
    server18: PostgresServer, fresh_database: Fresh, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ConnectionParams, psycopg.Connection[Any]]]:
    """A database in which another session holds a lock on a table, and that session."""
    monkeypatch.setattr(lock_watch, "INTERVAL", 0.05)
    database = fresh_database(server18, None, 'create table "Film" (id int)', "create table calm (id int)")
    named = ConnectionParams({**database.keywords, "application_name": "migrate 2"}, password=database.password)
    with contextlib.closing(named.connect(autocommit=False)) as session:
        session.execute("alter table \"Film\" add column secret text default 'hunter2'")
        yield database, session


@pytest.mark.parametrize("options", [DumpOptions(), DumpOptions(format="directory", jobs=2), DumpAllOptions()])
@pytest.mark.parametrize("query", ["hide", "show"])
def test_the_holder_of_a_lock_is_named_while_a_dump_waits(
    migration: tuple[ConnectionParams, psycopg.Connection[Any]],
    here: Repository,
    options: DumpOptions | DumpAllOptions,
    query: str,
) -> None:
    database, holder = migration
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting for a lock"):
            holder.rollback()

    context = RunContext(log=log, settings=Settings(lock_holder_query=query))
    common: Any = {"connection": database, "server": "db", "repository": here, "context": context}
    if isinstance(options, DumpAllOptions):
        dump_cluster(options=options, **common)
    else:
        dump_database(options=options, **common)
    (line,) = [line for line in lines if line.startswith("waiting for a lock")]
    held = f'waiting for a lock on public."Film" held by pid {holder.info.backend_pid}, user {database.user}, '
    assert line.startswith(held + "application migrate 2, in a transaction since 20")
    assert ", idle in transaction" in line
    assert ('query alter table "Film" add column' in line) == (query == "show")
    assert "hunter2" not in line or query == "show"


def test_a_look_that_fails_is_not_the_last(
    migration: tuple[ConnectionParams, psycopg.Connection[Any]], here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, holder = migration
    look, failures = lock_watch.LockWatch._look, iter([ConnectError("too many connections"), psycopg.Error()])
    lines: list[str] = []

    def fails_first(self: lock_watch.LockWatch) -> str | None:
        for error in failures:
            raise error
        return look(self)

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting for a lock"):
            holder.rollback()

    monkeypatch.setattr(lock_watch.LockWatch, "_look", fails_first)
    context = RunContext(log=log, settings=Settings(lock_wait_timeout=3600))
    dump_database(connection=database, server="db", repository=here, options=DumpOptions(), context=context)
    assert any(line.startswith('waiting for a lock on public."Film"') for line in lines)


def test_a_lock_timeout_names_the_holder(
    migration: tuple[ConnectionParams, psycopg.Connection[Any]], here: Repository
) -> None:
    """The statement of the dump is canceled when the holder has been seen, whenever that is on a busy machine."""
    database, holder = migration

    def log(line: str) -> None:
        if line.startswith("waiting for a lock"):
            holder.execute(
                "select pg_cancel_backend(pid) from pg_stat_activity"
                " where application_name = 'pg_dump' and datname = current_database()"
            )

    context = RunContext(log=log, settings=Settings(lock_wait_timeout=3600))
    with pytest.raises(ToolError, match="canceling statement due to") as error:
        dump_database(connection=database, server="db", repository=here, options=DumpOptions(), context=context)
    held = f'The dump waited for a lock on public."Film" held by pid {holder.info.backend_pid}, user {database.user},'
    assert held in (error.value.hint or "")


def test_a_role_that_sees_little_still_learns_who_holds_the_lock(
    migration: tuple[ConnectionParams, psycopg.Connection[Any]], here: Repository
) -> None:
    database, holder = migration
    with database.connect() as session:
        session.execute("create role onlooker login password 'x' in role pg_read_all_data")
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting for a lock"):
            holder.rollback()

    reader = ConnectionParams({**database.keywords, "user": "onlooker"}, password="x")
    try:
        dump_database(
            connection=reader, server="db", repository=here, options=DumpOptions(), context=RunContext(log=log)
        )
    finally:
        with database.connect() as session:
            session.execute("drop role onlooker")
    (line,) = [line for line in lines if line.startswith("waiting for a lock")]
    assert f"held by pid {holder.info.backend_pid}, user {database.user}, application migrate 2" in line
    assert "insufficient privilege" not in line
