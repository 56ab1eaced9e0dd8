"""What a user who is not a superuser may not restore: the error says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql
from restoring import backup, backup_cluster, databases_of, fresh_server, local, restored, value

from airflow_pgbackup.backup.restore.run import GlobalsBackup
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.server.throwaway import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with fresh_server(18) as server:
        with server.params.connect() as session:
            for statement in (
                "create role app",
                "create role member",
                "create role root superuser",
                "create role maker login createdb createrole",
                "create database source owner maker",
                "alter role app in database source set work_mem = '8MB'",
                "alter role member in database source set role = 'app'",
            ):
                session.execute(statement.encode())
        with server.params.with_database("source").connect() as session:
            session.execute("create table t as select 1 as a")
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


def test_settings_of_a_role_that_does_not_exist(server: PostgresServer, tmp_path: Path) -> None:
    """Without owners and privileges no role has to exist."""
    repository = local(tmp_path)
    reference = backup(server.params.with_database("source"), repository)
    with fresh_server(18) as other:
        options = {"no_owner": True, "no_privileges": True}
        copy = other.params.with_database("copy")
        result = restored(reference, repository, copy, mode="create", options=options)
        for role in ("app", "member"):
            assert [line for line in result["warnings"] if f'settings of role "{role}"' in line]
        restored(
            reference,
            repository,
            copy,
            mode="into_existing",
            options={"tables": ["t"]},
            target={"into_schema": "beside"},
        )
        assert value(copy, "select a from beside.t") == 1


def test_the_comment_of_a_database_names_no_other_to_drop(server: PostgresServer, tmp_path: Path) -> None:
    """Its owner can write any comment."""
    repository = local(tmp_path)
    reference = backup(server.params.with_database("source"), repository)
    victims = ["victim", "own_replaced_20261122T020000Z"]
    with server.params.connect() as session:
        for name in victims:
            session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        session.execute("create database own owner maker")

    def restore_again() -> list[str]:
        own = server.params.with_database("own")
        options = {"mode": "replace", "target": {"keep_old": False}, "seed": "the task"}
        return list(restored(reference, repository, own, **options)["warnings"])

    restore_again()
    comment = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'own'"
    word, _, marker = str(value(server.params, comment)).partition(" ")
    maker = replace(server.params, keywords={**server.params.keywords, "user": "maker"})
    for name in victims:
        oid = value(server.params, f"select oid::int from pg_database where datname = '{name}'")
        forged = json.dumps({**json.loads(marker), "replaced": name, "oid": oid})
        with maker.connect() as session:
            session.execute(sql.SQL("comment on database own is {}").format(sql.Literal(f"{word} {forged}")))
        assert [line for line in restore_again() if f"keeping database {name}" in line]
    assert set(victims) <= databases_of(server)
