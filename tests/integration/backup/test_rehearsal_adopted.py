"""Level ``restore`` of adopted dumps, whose options are not in their manifests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

OWNER = "owner_of_adopted"
TABLES = (
    "create schema s",
    "create type s.mood as enum ('ok')",
    "create table s.film (id int primary key, title text, mood s.mood, place regclass default 's.film')",
    "insert into s.film values (1, 'a film', 'ok')",
    'create table "select" ("from" int references s.film, u uuid)',
    "create function s.f(text default 'it''s') returns text language plpgsql as 'begin return $1; end'",
    "comment on table s.film is 'films'",
    "grant select on s.film to public",
    f"alter table s.film owner to {OWNER}",
    "create cast (int as s.mood) with inout",
)


@pytest.fixture(scope="module")
def owner(server18: PostgresServer) -> None:
    with server18.params.connect() as connection:
        if not connection.execute("select from pg_roles where rolname = %s", [OWNER]).fetchone():
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(OWNER)))


Proven = Callable[..., dict[str, Any]]


@pytest.fixture
def proven(
    owner: None,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    tmp_path: Path,
) -> Proven:
    """Dumps some tables with pg_dump alone, adopts the dump, and verifies it at level restore."""

    def prove(*options: str, statements: tuple[str, ...] = TABLES, tool: str = "pg_dump") -> dict[str, Any]:
        database = fresh_database(server18, None, *statements)
        made = tmp_path / "made.dump"
        with client_environment(database) as env:
            subprocess.run([postgres_bin_dir(18) / tool, f"--file={made}", *options], env=env, check=True)
        done: Any = adopt(repository=here, sources=[made], server="old", database="made")
        return dict(verify(reference=done["adopted"][0], repository=here, level="restore"))

    return prove


@pytest.mark.parametrize(
    "options",
    [
        ["--create", "--clean", "--if-exists"],
        ["--clean", "--if-exists"],
        ["--clean", "--if-exists", "--quote-all-identifiers"],
        ["--quote-all-identifiers"],
        ["--quote-all-identifiers", "--format=custom"],
        ["--quote-all-identifiers", "--format=tar", "--inserts"],
        ["--no-owner", "--no-privileges"],
        ["--no-owner", "--clean", "--if-exists"],
        ["--no-comments", "--format=custom"],
        ["--disable-dollar-quoting"],
    ],
    ids=" ".join,
)
def test_the_options_of_an_adopted_dump_are_found_in_it(options: list[str], proven: Proven) -> None:
    assert proven(*options)["verified"] == "restore"


def test_a_dump_in_which_the_owners_create_the_objects(here: Repository, tmp_path: Path) -> None:
    made = tmp_path / "made.sql"
    # Only the role postgres of an adopted dump may create objects anywhere.
    with PostgresServer(postgres_bin_dir(18), superuser="postgres") as server:
        with server.params.connect() as session:
            session.execute("create schema s create table film (id int) create view films as select from film")
        with client_environment(server.params) as env:
            arguments = [f"--file={made}", "--use-set-session-authorization"]
            subprocess.run([postgres_bin_dir(18) / "pg_dump", *arguments], env=env, check=True)
    done: Any = adopt(repository=here, sources=[made], server="old", database="made")
    assert verify(reference=done["adopted"][0], repository=here, level="restore")["verified"] == "restore"


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_dump_with_backslashes_written_twice(format: str, proven: Proven) -> None:
    """A plain dump lacks the setting of its database, but its strings are written by it."""
    off = "execute format('alter database %I set standard_conforming_strings = off', current_database());"
    statements = (f"do $$begin {off} end$$", r"create table film (title text default 'a\b')")
    assert proven(f"--format={format}", statements=statements)["verified"] == "restore"
