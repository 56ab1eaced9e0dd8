"""A task that is interrupted while S3 has stopped answering ends in seconds, although botocore waits for minutes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from botocore.config import Config
from faulty_s3 import FaultyS3
from test_dump_faults import pg_dumps, wait_for

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import MIB, S3Options

# 20 MB, not compressed: five parts.
FILL = (
    "create table t (a int primary key, b text)",
    "insert into t select n, repeat(md5(n::text), 20) from generate_series(1, 30000) n",
)


LIMIT = 120.0
"""Seconds; botocore gives up after more than three minutes."""


class TimedOut(BaseException):
    """As AirflowTaskTimeout."""


class Silent:
    """A repository behind a proxy that stops answering."""

    def __init__(self, s3: S3Server, proxy: FaultyS3, name: str) -> None:
        session = boto3.session.Session(s3.access_key, s3.secret_key, region_name="us-east-1")
        client = session.client("s3", endpoint_url=proxy.url, config=Config(s3={"addressing_style": "path"}))
        options = S3Options(client_factory=lambda: client, min_part_size=5 * MIB, memory=10 * MIB)
        self.proxy = proxy
        self.repository = open_repository(f"s3://{name}/pg", s3=options)
        self.repository.init()

    def silent_from(self, operation: str) -> threading.Event:
        """Let the store stop answering with the next request of an operation; the event is set then."""
        stalled = threading.Event()

        def begins(call: Any) -> bool:
            if call.operation == operation:
                stalled.set()
            return stalled.is_set()

        self.proxy.fault("*", "stall", times=10**6, seconds=600.0, when=begins)
        return stalled

    @contextmanager
    def interrupted(self, operation: str) -> Iterator[None]:
        """Let the store stop answering with the next request of an operation, and interrupt the block while it waits.

        Its exit takes seconds, not minutes.
        """
        stalled = self.silent_from(operation)

        def interrupt() -> None:
            if stalled.wait(LIMIT):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        def raise_it(number: int, frame: object) -> None:
            at.append(time.monotonic())
            raise TimedOut

        at: list[float] = []
        before = signal.signal(signal.SIGUSR1, raise_it)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(TimedOut):
                yield
            assert time.monotonic() - at[0] < LIMIT
        finally:
            thread.join()
            signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def silent(s3: S3Server) -> Iterator[Silent]:
    with FaultyS3(s3.endpoint_url).running() as proxy:
        yield Silent(s3, proxy, s3.bucket())
        proxy.settle()


def dump(database: ConnectionParams, repository: Repository, format: str = "custom") -> dict[str, Any]:
    options = DumpOptions(format=format, compress="none")
    return dict(dump_database(connection=database, server="s", repository=repository, options=options))


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_a_dump(
    format: str,
    silent: Silent,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, *FILL)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with silent.interrupted("UploadPart"):
        dump(database, silent.repository, format)
    wait_for(lambda: not pg_dumps())


@pytest.mark.parametrize("operation", ["ListObjectsV2", "GetObject"])
@pytest.mark.parametrize("verb", ["freshness", "prune"])
def test_reading(
    verb: str,
    operation: str,
    silent: Silent,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    database = fresh_database(server18, None, FILL[0])
    for _ in range(3):
        verify(reference=dump(database, silent.repository), repository=silent.repository, level="archive")
    with silent.interrupted(operation):
        if verb == "prune":
            prune(repository=silent.repository, policy=Policy(keep_last=1), dry_run=False)
        else:
            freshness(repository=silent.repository, rules=FreshnessRules(max_age=timedelta(days=1)))


def test_an_upload(
    silent: Silent,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    tmp_path: Path,
) -> None:
    here = LocalRepository(tmp_path / "here")
    here.init()
    reference = dump(fresh_database(server18, None, *FILL), here)
    with silent.interrupted("UploadPart"):
        upload(reference=reference, source=here, destination=silent.repository, minimum_level=None)


def test_a_command_ends_after_ctrl_c(
    silent: Silent, s3: S3Server, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    """Its threads still wait for the store, and Python would wait for them."""
    database = fresh_database(server18, None, FILL[0])
    for _ in range(3):
        verify(reference=dump(database, silent.repository), repository=silent.repository, level="archive")
    stalled = silent.silent_from("GetObject")
    program = "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    region = {"AWS_ENDPOINT_URL_S3": silent.proxy.url, "AWS_DEFAULT_REGION": "us-east-1"}
    with subprocess.Popen(
        [sys.executable, "-c", program, "freshness", silent.repository.uri],
        env={**os.environ, **keys, **region},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as command:
        try:
            assert stalled.wait(LIMIT)
            command.send_signal(signal.SIGINT)
            assert command.wait(LIMIT) == 130
            assert command.stderr and "interrupted" in command.stderr.read()
        finally:
            command.kill()
