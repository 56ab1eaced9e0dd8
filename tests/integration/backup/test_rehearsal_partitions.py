"""A partition tree of which pg_dump loads one branch through the root, and dumps the others as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series

# The OIDs of an enum's values differ after a restore, and with them their hashes.
TREE = (
    "create type mood as enum ('sad', 'ok', 'happy')",
    "create table root (k int, m mood, v text) partition by list (k)",
    "create table p1 partition of root for values in (1)",
    "create table p2 partition of root for values in (2) partition by hash (m)",
    "create table p2a partition of p2 for values with (modulus 2, remainder 0)",
    "create table p2b partition of p2 for values with (modulus 2, remainder 1)",
    "insert into root select 1, 'ok', g::text from generate_series(1, 50) g",
    "insert into root select 2, (array['sad', 'ok', 'happy'])[1 + g % 3]::mood, g::text from generate_series(1, 90) g",
)


@pytest.mark.every_value
@pytest.mark.parametrize("inserts", [False, True])
@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_each_branch_is_compared_with_its_own_rows(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    format: str,
    inserts: bool,
) -> None:
    options: dict[str, Any] = {"format": format, "inserts": inserts}
    reference = dump_database(
        connection=fresh_database(server18, None, *TREE), server="s", repository=here, options=DumpOptions(**options)
    )
    verify(reference=reference, repository=here, level="restore")
    (verification,) = read_evidence(here, Series("s", str(reference["database"])), str(reference["id"])).verifications
    assert verification.result == "pass"
    assert {table.name: table.rows for table in verification.tables} == {"p1": 50, "root": 90}


@pytest.mark.parametrize("inserts", [False, True])
def test_a_foreign_partition_is_not_read_through_the_root(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, inserts: bool
) -> None:
    database = fresh_database(
        server18,
        None,
        "create foreign data wrapper w",
        "create server elsewhere foreign data wrapper w",
        "create table root (k int) partition by list (k)",
        "create foreign table far partition of root for values in (1) server elsewhere",
        "create table near partition of root default",
        "insert into root values (2)",
        "create table other as select 3 as n",
    )
    options: dict[str, Any] = {"load_via_partition_root": True, "inserts": inserts}
    reference = dump_database(connection=database, server="s", repository=here, options=DumpOptions(**options))
    verify(reference=reference, repository=here, level="restore")
    (verification,) = read_evidence(here, Series("s", str(reference["database"])), str(reference["id"])).verifications
    found = {table.name: (table.result, str(table.detail)) for table in verification.tables}
    assert verification.result == "pass"
    assert found["root"][0] == "notcompared"
    assert "foreign data" in found["root"][1]
    assert found["other"][0] == ("notcompared" if inserts else "same")
