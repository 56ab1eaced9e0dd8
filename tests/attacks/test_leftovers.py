"""Nothing of a killed worker stays: no password file, no server, no copy; and nobody else's is ever touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.faulty_s3 import FaultyS3
from leftovers import environment, family, kill_together, named, run, wait_for, with_secret, worker

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server import PostgresServer

FILL = (
    "create table t (a int primary key, b text)",
    "insert into t select n, md5(n::text) || md5((n + 1)::text) from generate_series(1, 3000) n",
)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The workers' directory for temporary files."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


@pytest.fixture
def stalled(s3: S3Server) -> Iterator[FaultyS3]:
    """A store that takes what a dump writes, and answers no more."""
    with FaultyS3(s3.endpoint_url).running() as proxy:
        yield proxy


def test_no_password_file_while_an_upload_goes_on_after_the_dump(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    s3: S3Server,
    stalled: FaultyS3,
    temporary: Path,
    canary: str,
) -> None:
    database = fresh_database(server18, None, *FILL)
    env = environment(server18, temporary, s3, stalled.url)
    repository = f"s3://{s3.bucket()}/pg"
    run("init", repository, env=env)
    stalled.fault("PutObject", "stall", seconds=60, when=lambda call: call.size > 10_000, times=100)
    with worker("dump", repository, "-d", database.dbname, "--server", "s", env=env) as process:
        wait_for(lambda: with_secret(temporary, canary))
        wait_for(lambda: stalled.count("PutObject") > 1 and not named(family(process.pid), "pg_dump"))
        wait_for(lambda: len(family(process.pid)) == 1)
        assert process.poll() is None
        assert with_secret(temporary, canary) == []
        assert list(temporary.iterdir()) == []
