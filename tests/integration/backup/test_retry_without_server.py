"""A dump has made its backup, its task is retried, and the server cannot be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyrage
import pytest
from honest import write_verification
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConnectError, RepositoryError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings

Database = Callable[..., ConnectionParams]


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server:
        yield server


class Task:
    """A dump task in a run that has begun; each call is a try. :ivar log: of the last one."""

    def __init__(self, repository: Repository, connection: ConnectionParams, *, seed: str = "task") -> None:
        self.repository, self.connection = repository, connection
        self.context = RunContext(
            seed=seed, not_before=datetime.now(timezone.utc), log=lambda line: self.log.append(line)
        )
        self.log: list[str] = []

    def dump(self) -> dict[str, object]:
        self.log.clear()
        options = DumpOptions()
        return dump_database(
            connection=self.connection, server="main", repository=self.repository, options=options, context=self.context
        )

    def dump_globals(self) -> dict[str, object]:
        self.log.clear()
        return dump_cluster(
            connection=self.connection,
            server="main",
            repository=self.repository,
            options=DumpAllOptions(globals_only=True),
            passwords_if_allowed=True,
            context=self.context,
        )

    def fails(self) -> None:
        with pytest.raises(ConnectError):
            self.dump()


def close(server: PostgresServer, connection: ConnectionParams, *, opens: bool = False) -> None:
    """Let the database refuse connections."""
    assert connection.dbname
    statement = sql.SQL("alter database {} allow_connections {}")
    with server.params.connect() as session:
        session.execute(statement.format(sql.Identifier(connection.dbname), sql.Literal(opens)))


@pytest.fixture
def task(server18: PostgresServer, fresh_database: Database, here: Repository) -> Task:
    return Task(here, fresh_database(server18, "app", "create table here (a int)"))


def test_a_stopped_server(here: Repository) -> None:
    with PostgresServer(postgres_bin_dir(18), password="secret") as server:
        task = Task(here, server.params.with_database("postgres"))
        made = [task.dump(), task.dump_globals()]
    assert [task.dump(), task.dump_globals()] == made
    (warning,) = (line for line in task.log if line.startswith("warning: "))
    assert "connection" in warning
    assert (
        f"backup {made[1]['id']} was committed by an earlier attempt of this task; no connection is needed" in task.log
    )
    Task(here, task.connection, seed="another task").fails()


def test_an_encrypted_backup(task: Task, server18: PostgresServer) -> None:
    to = Settings(recipients=(str(pyrage.x25519.Identity.generate().to_public()),))
    task.context = replace(task.context, settings=to)
    made = task.dump()
    close(server18, task.connection)
    assert task.dump() == made


def test_the_backup_of_a_former_run(task: Task, server18: PostgresServer) -> None:
    task.dump()
    close(server18, task.connection)
    task.context = replace(task.context, not_before=datetime.now(timezone.utc) + timedelta(hours=1))
    task.fails()


def test_a_run_without_a_start(task: Task, server18: PostgresServer) -> None:
    task.context = replace(task.context, not_before=None)
    task.dump()
    close(server18, task.connection)
    task.fails()


def test_a_backup_that_has_failed(task: Task, server18: PostgresServer) -> None:
    made = load_manifest(task.repository, task.dump())
    write_verification(task.repository, made, "archive", "fail", datetime.now(timezone.utc))
    close(server18, task.connection)
    task.fails()


def test_an_incomplete_backup(task: Task, server18: PostgresServer) -> None:
    task.repository.delete([str(task.dump()["key"])])
    close(server18, task.connection)
    task.fails()


@pytest.mark.parametrize("key", ["host", "port"])
def test_a_connection_to_another_place(task: Task, key: str) -> None:
    task.dump()
    elsewhere = {"host": "127.0.0.2", "port": "1"}[key]
    task.connection = ConnectionParams({**task.connection.keywords, key: elsewhere, "connect_timeout": "5"})
    task.fails()


def test_two_servers_write_the_series(
    task: Task, server18: PostgresServer, other_server: PostgresServer, fresh_database: Database
) -> None:
    """Which of the two a connection leads to is unknown while it fails."""
    there = fresh_database(other_server, "app")
    Task(task.repository, there, seed="another task").dump()
    made = task.dump()
    assert task.dump() == made
    close(server18, task.connection)
    task.fails()
    close(server18, task.connection, opens=True)
    assert task.dump() == made


def test_a_server_whose_identifier_is_unknown(task: Task, server18: PostgresServer) -> None:
    with task.connection.connect() as session:
        session.execute("revoke execute on function pg_control_system() from public")
        session.execute("create role without_identifier login password 'secret'")
        session.execute("grant pg_read_all_data to without_identifier")
    owner = task.connection
    try:
        task.connection = ConnectionParams({**owner.keywords, "user": "without_identifier", "password": "secret"})
        made = task.dump()
        assert task.dump() == made
        close(server18, owner)
        task.fails()
    finally:
        close(server18, owner, opens=True)
        with owner.connect() as session:
            session.execute("drop owned by without_identifier; drop role without_identifier")


def test_a_damaged_backup_hides_no_connection_error(task: Task, server18: PostgresServer, tmp_path: Path) -> None:
    made = task.dump()
    (tmp_path / "repository" / "main" / "app" / str(made["id"]) / "manifest.json").write_bytes(b"{")
    close(server18, task.connection)
    task.fails()
    assert any(line.startswith("cannot look for a backup of an earlier attempt") for line in task.log)


def test_a_store_that_does_not_list_hides_no_connection_error(
    task: Task, server18: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folders(prefix: str = "") -> list[str]:
        raise RepositoryError("no answer")

    task.dump()
    close(server18, task.connection)
    monkeypatch.setattr(task.repository, "folders", folders)
    task.fails()
    assert "cannot look for a backup of an earlier attempt of this task: no answer" in task.log
