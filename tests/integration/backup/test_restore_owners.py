"""restore, by a user who is not a superuser, of a database that another role owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from builds import BUILDS, Build
from restoring import backup, databases_of, restored

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

ROLES = (
    "create role app",
    "create role full_member login createdb in role app",
    "create role stranger login createdb",
    "create role maker login createdb createrole",
    "create database crm owner app",
)
BEFORE_16 = (
    "create role cannot_use login createdb noinherit in role app",
    "create role cannot_set login createdb",
)
SINCE_16 = (
    "create role cannot_use login createdb",
    "grant app to cannot_use with inherit false, set true",
    "create role cannot_set login createdb",
    "grant app to cannot_set with inherit true, set false",
)
REFUSED = ["stranger", "maker", "cannot_use", "cannot_set"]


@pytest.fixture(scope="module", params=[build for build in BUILDS if build.major in (15, 16, 18)], ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    build: Build = request.param
    with PostgresServer(build.bin_dir) as server:
        with server.params.connect() as session:
            for statement in (*ROLES, *(BEFORE_16 if build.major < 16 else SINCE_16)):
                session.execute(statement.encode())
        with server.params.with_database("crm").connect() as session:
            session.execute("create table film as select 1 as id")
            session.execute("alter table film owner to app")
        yield server


def by(user: str, server: PostgresServer, database: str) -> ConnectionParams:
    return replace(server.params, keywords={**server.params.keywords, "user": user}).with_database(database)


def owner_of(server: PostgresServer, database: str) -> str:
    with server.params.connect() as session:
        row = session.execute("select datdba::regrole::text from pg_database where datname = %s", [database]).fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.every_value
@pytest.mark.parametrize("user", REFUSED)
def test_who_may_not_own_it_is_refused_before_anything_is_created(
    user: str, server: PostgresServer, here: Repository
) -> None:
    reference = backup(server.params.with_database("crm"), here)
    before = databases_of(server)
    with pytest.raises(ConfigurationError, match=f'user {user} may not create a database that role "app"') as error:
        restored(reference, here, by(user, server, "copy"), mode="create")
    assert "Or restore with no_owner=True" in (error.value.hint or "")
    with pytest.raises(ConfigurationError, match=f'user {user} may not (rename database "crm"|create a database)'):
        restored(reference, here, by(user, server, "crm"), mode="replace")
    assert databases_of(server) == before


@pytest.mark.every_value
@pytest.mark.parametrize("user", ["stranger", "maker", "cannot_set"])
def test_without_owners(user: str, server: PostgresServer, here: Repository) -> None:
    reference = backup(server.params.with_database("crm"), here)
    restored(reference, here, by(user, server, "copy"), mode="create", options={"no_owner": True})
    try:
        assert owner_of(server, "copy") == user
    finally:
        with server.params.connect() as session:
            session.execute("drop database copy")


def test_a_member_restores(server: PostgresServer, here: Repository) -> None:
    reference = backup(server.params.with_database("crm"), here)
    restored(reference, here, by("full_member", server, "copy"), mode="create")
    try:
        assert owner_of(server, "copy") == "app"
        target = {"keep_old": False}
        restored(reference, here, by("full_member", server, "copy"), mode="replace", target=target)
        assert owner_of(server, "copy") == "app"
    finally:
        with server.params.connect() as session:
            session.execute("drop database copy")
