"""Rows dumped as INSERT, of tables whose columns come in another order after a restore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from restoring import backup_cluster, restored

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

FreshDatabase = Callable[..., ConnectionParams]

REORDERED = (
    "CREATE TABLE parent (a int)",
    "CREATE TABLE child (b int, a int)",
    "ALTER TABLE child INHERIT parent",  # restored as a, b
    "INSERT INTO child VALUES (1, 2)",
    "CREATE TABLE grandchild (c int) INHERITS (child)",
    "ALTER TABLE parent ADD z int",  # restored as a, z, b, c
    "INSERT INTO grandchild (a, b, c, z) VALUES (3, 4, 5, 6)",
    "CREATE TABLE part_of (a int, b int) PARTITION BY LIST (a)",
    "CREATE TABLE part (b int, a int)",
    "ALTER TABLE part_of ATTACH PARTITION part FOR VALUES IN (1)",  # restored as b, a
)


def dump(connection: ConnectionParams, repository: Repository, **options: Any) -> tuple[dict[str, object], list[str]]:
    log: list[str] = []
    reference = dump_database(
        connection=connection,
        server="test",
        repository=repository,
        options=DumpOptions(**options),
        context=RunContext(log=log.append),
    )
    return reference, [line for line in log if "in another order" in line]


@pytest.mark.parametrize("options", [{"inserts": True}, {"rows_per_insert": 10, "format": "plain"}])
def test_values_return_to_their_columns(
    options: dict[str, Any], server18: PostgresServer, fresh_database: FreshDatabase, here: Repository
) -> None:
    reference, said = dump(fresh_database(server18, None, *REORDERED), here, **options)
    assert said == [
        "warning: dumping with column_inserts=True, as a restore creates the columns of public.child, "
        "public.grandchild in another order"
    ]
    assert load_manifest(here, reference).options["column_inserts"] is True
    copy = fresh_database(server18)
    restored(reference, here, copy)
    with copy.connect() as session:
        assert session.execute("SELECT a, b FROM ONLY child").fetchall() == [(2, 1)]
        assert session.execute("SELECT a, b, c, z FROM grandchild").fetchall() == [(3, 4, 5, 6)]


def test_other_dumps_keep_their_options(
    server18: PostgresServer, fresh_database: FreshDatabase, here: Repository
) -> None:
    ordered = fresh_database(server18, None, *REORDERED[:2], *REORDERED[7:])
    reordered = fresh_database(server18, None, *REORDERED)
    for database, options in [
        (ordered, {"inserts": True}),
        (reordered, {}),
        (reordered, {"inserts": True, "data_only": True}),
        (reordered, {"inserts": True, "column_inserts": True}),
    ]:
        reference, said = dump(database, here, **options)
        assert not said
        assert load_manifest(here, reference).options == options


def test_a_cluster_with_such_a_database(
    server18: PostgresServer, fresh_database: FreshDatabase, here: Repository
) -> None:
    fresh_database(server18, None, *REORDERED)
    reference = backup_cluster(server18.params, here, inserts=True)
    assert load_manifest(here, reference).options["column_inserts"] is True
