"""Roles whose names are not ASCII, in a database that is not in UTF8."""

from __future__ import annotations

import psycopg
import pytest
from restoring import restored

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository


@pytest.mark.parametrize("made_in", ["latin", "postgres"])
def test_they_are_found(made_in: str, server18: PostgresServer, here: Repository) -> None:
    databases = ("latin", "latin copy")
    try:
        with server18.params.connect() as session:
            session.execute("create database latin template template0 encoding 'LATIN1' locale 'C'")
        with server18.params.with_database(made_in).connect() as session:
            session.execute('create role "jörg"')
        source = server18.params.with_database("latin")
        with source.connect() as session:
            session.execute("create table t (a int)")
            session.execute(
                "do $$ begin execute format('alter table t owner to %I',"
                " (select rolname from pg_roles where rolname like 'j%rg')); end $$"
            )
        reference = dump_database(connection=source, server="test", repository=here, options=DumpOptions())
        assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
        restored(reference, here, server18.params.with_database("latin copy"), mode="create")
        owner = "select relowner from pg_class where relname = 't'"
        with source.connect() as one, server18.params.with_database("latin copy").connect() as other:
            assert one.execute(owner).fetchone() == other.execute(owner).fetchone()
    finally:
        with server18.params.connect() as session:
            for name in databases:
                session.execute(psycopg.sql.SQL("drop database if exists {}").format(psycopg.sql.Identifier(name)))
            session.execute(
                "do $$ begin execute (select 'drop role ' || oid::regrole from pg_roles where rolname like 'j%rg');"
                " end $$"
            )
