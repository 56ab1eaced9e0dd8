"""Temporary databases are dropped, whatever the restored dump put into them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from psycopg import sql

from airflow_pgbackup.backup.databases.temporary_database import PREFIX, TemporaryDatabases
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer


def test_a_login_trigger_does_not_keep_a_database_with_a_subscription(server18: PostgresServer) -> None:
    with TemporaryDatabases(server18.params) as temporary:
        copy, _ = temporary.create([lambda name: f"CREATE DATABASE {name} TEMPLATE template0"])
        with copy.connect() as connection:
            for statement in (
                "CREATE SUBSCRIPTION s CONNECTION 'host=none.invalid' PUBLICATION p WITH (connect = false)",
                "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$",
                "CREATE EVENT TRIGGER e ON login EXECUTE FUNCTION refuse()",
                "ALTER EVENT TRIGGER e ENABLE ALWAYS",
            ):
                connection.execute(statement)
    with server18.params.connect() as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname = %s", [copy.dbname]).fetchall()
        if left:  # for the next tests on this server
            connection.execute(f"ALTER DATABASE {copy.dbname} SET event_triggers = off")
    assert copy.dbname.startswith(PREFIX)
    assert left == []


def test_the_guard_has_the_token_of_the_day(server18: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one expires during a long restore, and then the worker is killed."""
    tokens, asked = ["first"], list[str]()

    def token() -> str:
        asked.append(tokens[0])
        return tokens[0]

    with server18.params.connect() as admin:
        admin.execute("CREATE ROLE rotating LOGIN CREATEDB PASSWORD 'first'")
        try:
            keywords = {**server18.params.keywords, "user": "rotating"}
            params = ConnectionParams(keywords, password=token, renew_every=0.05)
            with TemporaryDatabases(params) as temporary:
                copy, _ = temporary.create([lambda name: f"CREATE DATABASE {name} TEMPLATE template0"])
                admin.execute("ALTER ROLE rotating PASSWORD 'second'")
                tokens[0] = "second"
                wait_until(lambda: asked.count("second") > 1)  # so the guard has it since the first time
                monkeypatch.setattr(temporary, "_drop", lambda: False)
                guard = temporary._guard
            assert guard is not None
            guard.wait(90)
            query = "SELECT FROM pg_database WHERE datname = %s"
            assert admin.execute(query, [copy.dbname]).fetchone() is None
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(copy.dbname)))
            admin.execute("DROP ROLE rotating")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
