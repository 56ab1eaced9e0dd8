"""Only clients of PostgreSQL 17 or newer, and an older server: pg_restore and psql restore in one transaction."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

SOURCE = (
    "create table restored as select generate_series(1, 3) a",
    "create table other as select 1 a",
    # In a script, pg_restore puts BEGIN and COMMIT around large objects; the index comes after them, and fails.
    "select lo_from_bytea(4711, 'large')",
    "create function checked(int) returns int immutable language plpgsql as $$ begin "
    "if current_setting('test.fails', true) = 'on' then raise 'as asked'; end if; return $1; end $$",
    "create index on other (a)",
    "create index on restored (checked(a))",
)


pytestmark = pytest.mark.usefixtures("only_18")


@pytest.mark.every_value
@pytest.mark.parametrize("mode", ["into_empty", "into_existing"])
@pytest.mark.parametrize("format", ["custom", "directory", "tar", "plain"])
def test_a_failure_after_the_large_objects_changes_nothing_and_a_retry_restores_all(
    server16: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    format: str,
    mode: str,
) -> None:
    reference = dump_database(
        connection=fresh_database(server16, None, *SOURCE),
        server="s",
        repository=here,
        options=DumpOptions(format=format),
    )
    target = fresh_database(server16, None, *(["create table ours as select 1 a"] if mode == "into_existing" else []))
    before = contents(target)

    def attempt() -> dict[str, object]:
        return restore(
            reference=reference,
            repository=here,
            target=RestoreTarget(connection=target, mode=mode),
            context=RunContext(seed="a task"),
        )

    execute(target, f'alter database "{target.dbname}" set test.fails = on')
    with pytest.raises(ToolError, match="as asked") as caught:
        attempt()
    assert f'database "{target.dbname}" was not changed' in str(caught.value)
    assert contents(target) == before
    execute(target, f'alter database "{target.dbname}" reset test.fails')
    attempt()
    assert contents(target) == {*before, "other", "other_a_idx", "restored", "restored_checked_idx", "4711"}


def test_clean_that_fails_leaves_what_it_would_replace(
    server16: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    reference = dump_database(
        connection=fresh_database(server16, None, *SOURCE), server="s", repository=here, options=DumpOptions()
    )
    target = fresh_database(server16, None, "create table restored as select generate_series(1, 1000) a")
    execute(target, f'alter database "{target.dbname}" set test.fails = on')
    with pytest.raises(ToolError, match="as asked"):
        restore(
            reference=reference,
            repository=here,
            target=RestoreTarget(connection=target, mode="into_existing"),
            options=RestoreOptions(clean=True, if_exists=True),
        )
    with target.connect() as session:
        assert session.execute("select count(*) from restored").fetchone() == (1000,)


def test_an_archive_that_ends_the_transaction_itself_changes_nothing(
    server16: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    """As long as the statement that is forged: the lengths in the table of contents stay."""
    source = fresh_database(server16, None, "create table a (x int)", "comment on table a is 'forged'")
    made = tmp_path / "made.dump"
    with client_environment(source) as env:
        argv = [postgres_bin_dir(18) / "pg_dump", "--format=custom", f"--file={made}"]
        subprocess.run(argv, env=env, check=True)
    comment = b"COMMENT ON TABLE public.a IS 'forged';"
    content = made.read_bytes()
    assert content.count(comment) == 1
    made.write_bytes(content.replace(comment, b"ROLLBACK;".ljust(len(comment))))
    adopted: Any = adopt(repository=here, sources=[made], server="old", database="x")
    target = fresh_database(server16, None, "create table ours as select 1 a")
    before = contents(target)
    with pytest.raises(VerificationFailed, match=r"COMMENT public\.TABLE a .* contains 'ROLLBACK'"):
        restore(
            reference=adopted["adopted"][0],
            repository=here,
            target=RestoreTarget(connection=target, mode="into_existing"),
        )
    assert contents(target) == before


def execute(database: ConnectionParams, statement: str) -> None:
    with database.connect() as session:
        session.execute(statement.encode())


def contents(database: ConnectionParams) -> set[str]:
    """Names of tables and indexes, and OIDs of large objects."""
    with database.connect() as session:
        return {
            name
            for (name,) in session.execute(
                "select relname::text from pg_class where relnamespace = 'public'::regnamespace"
                " union all select oid::text from pg_largeobject_metadata"
            )
        }
