"""Dumps through connection poolers: refused where sessions mix, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pooler import Pooler

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18)) as server:
        yield server


@pytest.fixture
def database(server: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server, None, "create table film as select generate_series(1, 100) id")


def through(pooler: Pooler, database: ConnectionParams) -> ConnectionParams:
    return ConnectionParams({**database.keywords, "host": pooler.host, "port": str(pooler.port)})


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_mixes_sessions_is_refused(
    database: ConnectionParams, server: PostgresServer, here: Repository, tmp_path: Path, mode: str
) -> None:
    with Pooler(server.socket_dir, database.user, database.dbname, folder=tmp_path, mode=mode) as pooler:
        connection = through(pooler, database)
        with pytest.raises(ConfigurationError, match=f"is a connection pooler in {mode} mode: session") as error:
            dump_database(connection=connection, server="db", repository=here, options=DumpOptions())
        assert "Connect to PostgreSQL directly" in (error.value.hint or "")
        with pytest.raises(ConfigurationError, match=f"in {mode} mode"):
            dump_cluster(connection=connection, server="db", repository=here, options=DumpAllOptions())
    assert [entry.key for entry in here.list("db")] == []


def test_a_pooler_in_session_mode_is_dumped_through_with_a_warning(
    database: ConnectionParams, server: PostgresServer, here: Repository, tmp_path: Path
) -> None:
    lines: list[str] = []
    context = RunContext(log=lines.append)
    with Pooler(server.socket_dir, database.user, database.dbname, folder=tmp_path, mode="session") as pooler:
        reference = dump_database(
            connection=through(pooler, database), server="db", repository=here, options=DumpOptions(), context=context
        )
    assert [
        line for line in lines if line.startswith("warning: ") and "is a connection pooler: a dump occupies" in line
    ]
    assert verify(reference=reference, repository=here, level="archive")["verified"] == "archive"
