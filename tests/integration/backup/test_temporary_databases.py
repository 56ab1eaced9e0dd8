"""Temporary databases are dropped, whatever the restored dump put into them."""

from __future__ import annotations

from airflow_pgbackup.backup.databases.temporary_database import PREFIX, TemporaryDatabases
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
