"""What the tests of restore share: a database worth restoring, its backups, and what a database looks like."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contexts import in_context

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

OWNER, READER = "app_owner", 'the "reader"'

SCHEMA = (
    "create table film (film_id int primary key, title text not null, note text)",
    "insert into film select n, 'film ' || n, case when n % 7 = 0 then E'tab\\there\\nand a line' end"
    "  from generate_series(1, 3000) n",
    "create table actor (actor_id serial primary key, name text)",
    "insert into actor (name) select 'actor ' || n from generate_series(1, 500) n",
    "create table film_actor (film_id int references film, actor_id int references actor)",
    "insert into film_actor select n, n from generate_series(1, 400) n",
    "create table plan (id int primary key) partition by range (id)",
    "create table plan_1 partition of plan for values from (0) to (100)",
    "insert into plan select generate_series(1, 50)",
    'create schema "Odd ""schema"""',
    'create table "Odd ""schema""". "a table\nof two lines" (a int)',
    "create view titles as select title from film",
    "create materialized view counted as select count(*) from film",
    "create function f() returns text language sql as $$ select 'COPY film FROM stdin;' $$",
    "create domain positive as int check (value > 0)",
    "create index film_title on film (title)",
    "select lo_from_bytea(4711, 'a large object')",
    "comment on table film is E'of two\\nlines'",
    f'alter table film owner to "{OWNER}"',
    'grant select on film to "the ""reader"""',
)
ROWS = {"film": 3000, "actor": 500, "film_actor": 400, "plan": 50}
ROW_COUNT = sum(ROWS.values())


def make_roles(*servers: PostgresServer) -> None:
    """The owners of the objects: each test server has another superuser, whose name is no other server's."""
    for server in servers:
        with server.params.connect() as session:
            for name in (OWNER, READER):
                quoted = name.replace('"', '""')
                session.execute(
                    "do $$ begin if not exists (select from pg_roles where rolname = "  # type: ignore[arg-type]
                    f"'{name}') then create role \"{quoted}\"; end if; end $$"
                )


@contextmanager
def fresh_server(major: int, **keywords: Any) -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(major), **keywords) as server:
        yield server


def local(path: Path) -> Repository:
    repository = open_repository(f"file://{path}")
    repository.init()
    return repository


def in_s3(s3: S3Server) -> Repository:
    repository = open_repository(f"s3://{s3.bucket()}/backups", s3=S3Options(client_factory=s3.client))
    repository.init()
    return repository


def backup(
    connection: ConnectionParams, repository: Repository, *, client_dirs: tuple[str, ...] = (), **options: Any
) -> dict[str, object]:
    return dump_database(
        connection=connection,
        server="test",
        repository=repository,
        options=DumpOptions(**options),
        context=RunContext(settings=Settings(client_dirs=client_dirs)),
    )


def backup_cluster(
    connection: ConnectionParams, repository: Repository, *, compress: str | None = None, **options: Any
) -> dict[str, object]:
    return dump_cluster(
        connection=connection,
        server="test",
        repository=repository,
        options=DumpAllOptions(**options),
        compress=compress,
    )


def restored(
    reference: dict[str, object],
    repository: Repository,
    connection: ConnectionParams,
    *,
    options: dict[str, Any] | None = None,
    target: dict[str, Any] | None = None,
    mode: str = "into_empty",
    **more: Any,
) -> dict[str, Any]:
    """The verb, with less to write."""
    return restore(
        reference=reference,
        repository=repository,
        target=RestoreTarget(connection=connection, mode=mode, **(target or {})),
        options=RestoreOptions(**(options or {})),
        **in_context(more),
    )


def script_of(server: PostgresServer, connection: ConnectionParams, *arguments: str) -> str:
    """A database as pg_dump writes it: two that are the same have the same script."""
    with client_environment(connection) as env:
        done = subprocess.run(
            [server.bin_dir / "pg_dump", "--no-password", *arguments], env=env, capture_output=True, check=True
        )
    return re.sub(r"\\(un)?restrict \w+", "", done.stdout.decode())


def databases_of(server: PostgresServer) -> set[str]:
    with server.params.connect() as session:
        return {name for (name,) in session.execute("select datname from pg_database")} - {
            "postgres",
            "template0",
            "template1",
        }


def value(connection: ConnectionParams, query: str) -> Any:
    with connection.connect() as session:
        row = session.execute(query).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None
