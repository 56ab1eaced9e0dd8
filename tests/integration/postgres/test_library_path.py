"""Clients that are unpacked elsewhere, and find their libraries by LD_LIBRARY_PATH."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from restoring import backup, local, restored, value

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.settings import Settings

PROGRAMS = ("pg_config", "pg_dump", "pg_restore", "psql", "initdb", "postgres")


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that do not start without LD_LIBRARY_PATH."""
    libraries, bin_dir = tmp_path / "lib", tmp_path / "unpacked" / "bin"
    bin_dir.mkdir(parents=True)
    for name in PROGRAMS:
        program = bin_dir / name
        real = postgres_bin_dir(18) / name
        program.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" = "{libraries}" ] || exit 127\nexec "{real}" "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    return bin_dir


def test_they_dump_read_and_restore(
    unpacked: Path, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    rows = "insert into t select generate_series(1, 3)"
    source = fresh_database(server18, None, "create table t (a int)", rows)
    repository, settings = local(tmp_path / "repository"), Settings(client_dirs=(str(unpacked),))
    reference = backup(source, repository, client_dirs=settings.client_dirs, format="directory", inserts=True)
    verified = verify(reference=reference, repository=repository, context=RunContext(settings=settings))
    assert verified["verified"] == "archive"
    target = fresh_database(server18)
    restored(reference, repository, target, settings=settings)
    assert value(target, "select count(*) from t") == 3


def test_they_run_a_server(unpacked: Path) -> None:
    with PostgresServer(unpacked) as server:
        assert value(server.params, "select 1") == 1
