"""Rows of foreign tables in a dump: only a restore writes them to the foreign server, no rehearsal and no refresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
from builds import BUILDS, Build, each
from contexts import in_context
from restoring import value

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series

BUILD = [build for build in BUILDS if build.tls][-1:]  # the wheel's lack postgres_fdw
NOTE = "skipped the rows of foreign tables, which a restore writes to their servers"


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[Build], PostgresServer]]:
    """The running server of a build, one for this module."""
    with ExitStack() as stack:
        yield cache(lambda build: stack.enter_context(PostgresServer(build.bin_dir)))


@pytest.fixture
def server(started: Callable[[Build], PostgresServer], build: Build) -> PostgresServer:
    return started(build)


@pytest.fixture
def remote(server: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server, None, "create table log (v text)", "insert into log values ('a'), ('b')")


@pytest.fixture
def source(
    server: PostgresServer, remote: ConnectionParams, fresh_database: Callable[..., ConnectionParams]
) -> ConnectionParams:
    return fresh_database(
        server,
        None,
        "create extension postgres_fdw",
        f"create server far foreign data wrapper postgres_fdw options (host '{remote.host}', "
        f"port '{remote.keywords['port']}', dbname '{remote.dbname}')",
        f"create user mapping for public server far options (user '{remote.user}')",
        "create table root (v text) partition by list (v)",
        "create foreign table log partition of root default server far",
        "create table near partition of root for values in ('near')",
        "insert into near values ('near')",
    )


def dumped(source: ConnectionParams, repository: Repository, **options: Any) -> dict[str, Any]:
    return dump_database(
        connection=source,
        server="s",
        repository=repository,
        options=DumpOptions(include_foreign_data=["far"], **options),
    )


@each(BUILD)
@pytest.mark.parametrize(
    "options",
    [
        {"format": "custom", "load_via_partition_root": True},
        {"format": "plain", "load_via_partition_root": True},
        {"format": "plain", "inserts": True},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_rehearsal_writes_nothing_to_a_foreign_server(
    build: Build,
    server: PostgresServer,
    source: ConnectionParams,
    remote: ConnectionParams,
    here: Repository,
    options: dict[str, Any],
) -> None:
    made = dumped(source, here, **options)
    verify(reference=made, repository=here, level="restore", scratch=server.params)
    assert value(remote, "select count(*) from log") == 2
    (found,) = read_evidence(here, Series("s", str(made["database"])), str(made["id"])).verifications
    assert found.result == "pass"
    assert NOTE in [check.detail for check in found.checks]


@each(BUILD)
def test_a_refresh_writes_nothing_to_a_foreign_server(
    build: Build,
    server: PostgresServer,
    source: ConnectionParams,
    remote: ConnectionParams,
    here: Repository,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    made = verify(reference=dumped(source, here), repository=here, level="archive")
    staging = fresh_database(server)
    done = refresh(reference=made, repository=here, target=staging, keep=0, **in_context({}))
    assert value(remote, "select count(*) from log") == 2
    assert value(staging, "select count(*) from near") == 1
    text = "left out the rows of foreign table public.log: they would be written to its foreign server"
    assert text in done["warnings"]
