"""Patterns of tables that depend on the search_path of the database, which its copy does not have."""

from __future__ import annotations

from collections.abc import Callable

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series


def test_patterns_without_a_schema(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(
        server18,
        None,
        "do $$ begin execute format('alter database %I set search_path = app', current_database()); end $$",
        "create schema app",
        *(f"create table {name} (a int)" for name in ("app.film", "app.film_actor", "app.tables", "public.film")),
    )
    options = DumpOptions(tables=["film*", "tables", "public.film"], exclude_tables=["film"])
    reference = dump_database(connection=database, server="s", repository=here, options=options)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
    (verification,) = read_evidence(here, Series("s", str(reference["database"])), str(reference["id"])).verifications
    names = {f"{table.schema}.{table.name}" for table in verification.tables}
    assert names == {"app.film_actor", "app.tables", "public.film"}
