"""Custom archives that pg_dump wrote to a standard output that appends: they end with a second table of contents."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builds import BUILDS, each
from restoring import local, restored, script_of

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

Fresh = Callable[..., ConnectionParams]


@pytest.fixture
def source(server18: PostgresServer, fresh_database: Fresh) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table a as select n, repeat('x', n % 100) from generate_series(1, 20000) n",
        "create table b ()",
        "select lo_from_bytea(4711, 'a large object')",
    )


def adopted_from(source: ConnectionParams, directory: Path, more: bytes = b"", mode: str = "wb") -> Any:
    """As after ``pg_dump -Fc >file``: pg_dump since 16 sets the file to append."""
    file, repository = directory / "a.dump", local(directory / "repository")
    with client_environment(source) as env, file.open(mode) as stdout:
        subprocess.run([BUILDS[-1].bin_dir / "pg_dump", "--format=custom"], env=env, stdout=stdout, check=True)
    assert file.read_bytes().count(b"SET client_encoding") == 2
    with file.open("ab") as stdout:
        stdout.write(more)
    result = adopt(repository=repository, sources=[file], server="old", database="a")
    assert not result["skipped"]
    return repository, result["adopted"][0]


@each(BUILDS[-1:])
@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize("how", ["stream", "path"])
def test_they_are_adopted_proven_and_restored(
    build: Any, mode: str, how: str, source: ConnectionParams, server18: PostgresServer, fresh_database: Fresh,
    tmp_path: Path,
) -> None:  # fmt: skip
    repository, reference = adopted_from(source, tmp_path, mode=mode)
    context = RunContext(settings=build.settings)
    verify(reference=reference, repository=repository, level="restore", context=context)
    target = fresh_database(server18)
    options = {"jobs": 2} if how == "path" else {}
    restored(reference, repository, target, mode="into_empty", options=options, settings=build.settings)
    assert script_of(server18, target) == script_of(server18, source)


@each(BUILDS[-1:])
def test_a_block_behind_the_last_one_is_never_restored(
    build: Any, source: ConnectionParams, fresh_database: Fresh, server18: PostgresServer, tmp_path: Path
) -> None:
    """Without offsets in the table of contents, pg_restore goes on from where it is, and would take this one."""
    file = tmp_path / "piped.dump"
    with client_environment(source) as env:
        argv = [build.bin_dir / "pg_dump", "--format=custom", "--compress=0"]
        file.write_bytes(subprocess.run(argv, env=env, capture_output=True, check=True).stdout)
    file.write_bytes(file.read_bytes() + b"\1" + file.read_bytes()[-20:])
    repository: Repository = local(tmp_path / "repository")
    result: Any = adopt(repository=repository, sources=[file], server="old", database="a")
    target = fresh_database(server18)
    for adopted in result["adopted"]:
        with pytest.raises(PgBackupError):
            restored(adopted, repository, target, mode="into_empty", settings=build.settings)
    assert result["adopted"] or result["skipped"]
