"""Plain dumps with ``--use-set-session-authorization``, in which the owners create their objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from restoring import backup, fresh_server, local, restored

from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import ConfigurationError, NotProven, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

OWNER = "the owner's"
OWNERS = "select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'app'::regnamespace"
WITHOUT = "Dump without that option"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute(f'create role "{OWNER}"'.encode())
            session.execute(f'create database source owner "{OWNER}"'.encode())
        with server.params.with_database("source").connect() as session:
            session.execute(f'set session authorization "{OWNER}"'.encode())
            session.execute("create schema app")
            session.execute("create table app.film (film_id int)")
        yield server


def owners(database: ConnectionParams) -> list[tuple[str, ...]]:
    with database.connect() as session:
        return session.execute(OWNERS.encode()).fetchall()


def test_the_owner_of_the_new_database_is_the_dumped_one(server: PostgresServer, tmp_path: Path) -> None:
    repository = local(tmp_path)
    options = {"format": "plain", "create": True, "use_set_session_authorization": True}
    reference = backup(server.params.with_database("source"), repository, **options)
    restored(reference, repository, server.params.with_database("copy"), mode="create")
    assert owners(server.params.with_database("copy")) == [(OWNER,)]


def test_an_owner_without_privileges(server: PostgresServer, tmp_path: Path) -> None:
    repository = local(tmp_path)
    reference = backup(
        server.params.with_database("source"), repository, format="plain", use_set_session_authorization=True
    )
    with pytest.raises(NotProven) as unproven:
        verify(reference=reference, repository=repository, level="restore")
    assert WITHOUT in str(unproven.value.hint)
    with server.params.connect() as session:
        session.execute("create database copy")
    with pytest.raises(ToolError, match="permission denied for database") as failed:
        restored(reference, repository, server.params.with_database("copy"))
    assert WITHOUT in str(failed.value.hint)
    with fresh_server(18) as other, pytest.raises(ConfigurationError, match=f"lacks .*{OWNER}"):
        restored(reference, repository, other.params.with_database("postgres"))
