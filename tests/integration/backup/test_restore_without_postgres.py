"""Restores into a server that has no database postgres, as those of some managed services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from restoring import fresh_server, restored
from sets import back_up_set

from airflow_pgbackup.backup.dump import dump_cluster
from airflow_pgbackup.backup.restore.target import connect_for_cluster
from airflow_pgbackup.backup.sets.restore_set import restore_set
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute("create role keeper")
            session.execute("create database app owner keeper")
            session.execute("create table t as select 1 as id")
        yield server


@pytest.fixture
def target() -> Iterator[ConnectionParams]:
    """A server that only lets its users into defaultdb."""
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute("create database defaultdb")
        own = server.params.with_database("defaultdb")
        with own.connect() as session:
            session.execute("drop database postgres")
            session.execute("alter database template1 allow_connections false")
        yield own


def rows(params: ConnectionParams) -> object:
    with params.with_database("postgres").connect() as session:
        return session.execute("select * from t").fetchall()


def test_a_set(source: PostgresServer, target: ConnectionParams, here: Repository) -> None:
    back_up_set(source, here, ["app", "postgres"])
    into = SetTarget(connection=target)
    result = restore_set(repository=here, server="prod", target=into)
    assert [each["outcome"] for each in result["databases"]] == ["restored"] * 2  # type: ignore[attr-defined]
    assert result["roles_created"] == ["keeper", source.superuser]
    assert rows(target) == [(1,)]


def test_a_cluster(source: PostgresServer, target: ConnectionParams, here: Repository) -> None:
    reference = dump_cluster(connection=source.params, server="prod", repository=here, options=DumpAllOptions())
    chosen = connect_for_cluster(target)
    assert chosen.dbname == "defaultdb"
    result = restored(reference, here, chosen)
    assert sorted(result["databases"]) == ["app", "postgres"]
    assert rows(target) == [(1,)]
