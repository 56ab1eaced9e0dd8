"""What a user who is not a superuser may not restore: the error says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from restoring import backup, backup_cluster, databases_of, fresh_server, local, restored

from airflow_pgbackup.backup.restore.run import GlobalsBackup
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.server.throwaway import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with fresh_server(18) as server:
        with server.params.connect() as session:
            for statement in (
                "create role app",
                "create role root superuser",
                "create role maker login createdb createrole",
                "create database source owner maker",
                "alter role app in database source set work_mem = '8MB'",
            ):
                session.execute(statement.encode())
        yield server


def test_settings_of_another_role(server: PostgresServer, tmp_path: Path) -> None:
    repository = local(tmp_path)
    reference = backup(server.params.with_database("source"), repository)
    maker = replace(server.params, keywords={**server.params.keywords, "user": "maker"})
    with pytest.raises(RestoreError, match="applying ALTER ROLE app IN DATABASE to the database") as refused:
        restored(reference, repository, maker.with_database("copy"), mode="create")
    assert "Connect as a superuser" in str(refused.value.hint)
    assert "copy" not in databases_of(server)


def test_roles_that_only_a_superuser_can_create(server: PostgresServer, tmp_path: Path) -> None:
    repository = local(tmp_path)
    reference = backup(server.params.with_database("source"), repository)
    roles = backup_cluster(server.params, repository, globals_only=True)
    with fresh_server(18) as other:
        with other.params.connect() as session:
            session.execute("create role maker login createdb createrole")
        maker = replace(other.params, keywords={**other.params.keywords, "user": "maker"})
        target = maker.with_database("copy")
        with pytest.raises(RestoreError, match="cannot restore global objects: permission denied") as refused:
            restored(reference, repository, target, mode="create", globals_from=GlobalsBackup(roles, repository))
    assert "Connect as a superuser" in str(refused.value.hint)
    assert "no roles were created" in str(refused.value)
