"""Event triggers that REFRESH MATERIALIZED VIEW fires during a restore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from restoring import fresh_server, restored

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import ConnectError, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

LOGGED = (
    "create table log (tag text)",
    "create function note() returns event_trigger language plpgsql as"
    " $$ begin insert into public.log values (tg_tag); end $$",
    "create materialized view m as select 1 as a",
    "create event trigger noted on ddl_command_end execute function note()",
)
REJECTED = (
    *LOGGED,
    "create function no() returns event_trigger language plpgsql as $$ begin raise exception 'no'; end $$",
    "create event trigger frozen on ddl_command_start execute function no()",
)


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_they_are_off(
    form: Any, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *REJECTED)
    options = DumpOptions(format=form)
    reference = dump_database(connection=database, server="test", repository=here, options=options)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
    with database.connect() as session:
        session.execute("set event_triggers = off")
        session.execute("drop event trigger frozen")
        rows = session.execute("select count(*) from log").fetchone()
    restored(reference, here, database, mode="replace")
    with database.connect() as session:
        assert session.execute("select count(*) from log").fetchone() == rows
        assert session.execute("select count(*) from pg_event_trigger where evtenabled = 'O'").fetchone() == (2,)


@pytest.mark.parametrize("mode", ["create", "into_empty"])
def test_the_restore_does_not_fire_those_on_login(
    mode: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(
        server18,
        None,
        "create table log (at timestamptz default now())",
        "create function closed() returns event_trigger language plpgsql as $$ begin "
        "if current_database() <> (select min(name) from public.open) then raise exception 'closed'; end if; end $$",
        "create table open as select current_database()::text as name",
        "create event trigger closed on login execute function closed()",
    )
    reference = dump_database(connection=database, server="test", repository=here, options=DumpOptions(format="custom"))
    target = fresh_database(server18)
    if mode == "create":
        with server18.params.connect() as session:
            session.execute(f"drop database {target.dbname}")  # type: ignore[arg-type]
    (warning,) = restored(reference, here, target, mode=mode)["warnings"]
    assert warning.endswith("is not verified yet")
    with pytest.raises(ConnectError, match="closed"):
        target.connect()


def test_they_are_off_for_a_cluster(here: Repository) -> None:
    with fresh_server(18) as source, fresh_server(18) as target:
        for name in ("app", "postgres"):
            with source.params.connect() as session:
                session.execute("create database app" if name == "app" else "select 1")
            with source.params.with_database(name).connect() as session:
                for statement in REJECTED:
                    session.execute(statement)
        reference = dump_cluster(connection=source.params, server="prod", repository=here, options=DumpAllOptions())
        assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
        restored(reference, here, target.params)
        for name in ("app", "postgres"):
            with target.params.with_database(name).connect() as session:
                assert session.execute("select tag from log").fetchall() == [("CREATE FUNCTION",)]


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_an_older_server_has_no_such_setting(
    form: Any, server16: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server16, None, *LOGGED)
    options = DumpOptions(format=form)
    reference = dump_database(connection=database, server="test", repository=here, options=options)
    with pytest.raises(NotProven, match=r"public\.log: found .*, perhaps because of an event trigger"):
        verify(reference=reference, repository=here, level="restore")
    result = restored(reference, here, database, mode="replace")
    assert any("fires event triggers of the dump" in line for line in result["warnings"])
