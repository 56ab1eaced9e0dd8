"""Two Airflow deployments share a repository, and give the same names to two servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.source_identity import source_identity
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.sets.discover import Discovery, discover
from airflow_pgbackup.backup.sets.write_set import write_set
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.set_files import list_sets

CONTEXT = RunContext(seed="the same DAG, task and run")


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server:
        yield server


@pytest.fixture
def two(
    server18: PostgresServer, other_server: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> tuple[ConnectionParams, ConnectionParams]:
    return (
        fresh_database(server18, "app", "create table here (a int)"),
        fresh_database(other_server, "app", "create table there (a int)"),
    )


def dump(connection: ConnectionParams, repository: Repository, context: RunContext = CONTEXT) -> dict[str, object]:
    options = DumpOptions()
    return dump_database(connection=connection, server="main", repository=repository, options=options, context=context)


def dump_globals(connection: ConnectionParams, repository: Repository) -> dict[str, object]:
    options = DumpAllOptions(globals_only=True)
    return dump_cluster(connection=connection, server="main", repository=repository, options=options, context=CONTEXT)


@pytest.mark.parametrize("make", [dump, dump_globals])
def test_each_dumps_its_own_and_finds_its_own(
    make: Callable[[ConnectionParams, Repository], dict[str, object]],
    here: Repository,
    two: tuple[ConnectionParams, ConnectionParams],
) -> None:
    made = [make(each, here)["id"] for each in two]
    assert made[0] != made[1]
    assert [make(each, here)["id"] for each in two] == made


def test_both_in_the_same_second(
    here: Repository, two: tuple[ConnectionParams, ConnectionParams], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        started_at = datetime(2026, 11, 28, 2, tzinfo=timezone.utc)

        def stop(self) -> tuple[datetime, float]:
            return self.started_at, 1.0

    monkeypatch.setattr("airflow_pgbackup.backup.dump.Stopwatch", Clock)
    one, other = (str(dump(each, here)["id"]) for each in two)
    assert (one != other, one[:16]) == (True, other[:16])


def test_a_server_is_known_by_its_place_and_its_system(two: tuple[ConnectionParams, ConnectionParams]) -> None:
    here, there = two
    moved = replace(here, keywords={**here.keywords, "host": "clone.example"})
    renamed = replace(here, keywords={**here.keywords, "user": "short-lived", "dbname": "other"})
    with here.connect() as session, there.connect() as other:
        known = source_identity(here, session)
        assert source_identity(renamed, session) == known
        assert len({known, source_identity(here, other), source_identity(moved, session)}) == 3


def test_a_role_that_may_not_read_the_system_identifier(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    database = fresh_database(server18, None, "revoke execute on function pg_control_system() from public")
    with database.connect() as session:
        session.execute("create role limited")
        session.execute("set role limited")
        try:
            known = source_identity(database, session)
            assert source_identity(database, session) == known
        finally:
            session.execute("reset role")
            session.execute("drop role limited")
        assert source_identity(database, session) != known


def test_each_has_its_own_backup_set(here: Repository, two: tuple[ConnectionParams, ConnectionParams]) -> None:
    def written(connection: ConnectionParams) -> Any:
        found = Discovery.from_json(discover(connection=connection, databases=["app"]).as_json())
        found = replace(found, started_at=datetime(2026, 11, 28, 2, tzinfo=timezone.utc))
        backup = verify(reference=dump(connection, here), repository=here)
        return write_set(
            repository=here, server="main", discovery=found, backups=[backup], with_globals=False, context=CONTEXT
        )

    one, other = (written(each) for each in two)
    assert one.id != other.id
    assert written(two[0]).id == one.id
    assert [len(each.names) for each in list_sets(here)] == [1, 1]
