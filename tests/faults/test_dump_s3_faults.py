"""A dump directly to S3 is killed: the artifact is complete or not visible, and nothing else stays in the store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import boto3.session
import pyrage
import pytest
from botocore.config import Config
from faulty_s3 import FaultyS3
from test_dump_faults import children_of, pg_dumps, wait_for

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import RepositoryError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.pipes import CHUNK, ToolOutput
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import MIB, S3Options
from airflow_pgbackup.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

TIMES = 50
# 20 MB, not compressed: five parts.
FILL = (
    "create table t (a int primary key, b text)",
    "insert into t select n, repeat(md5(n::text), 20) from generate_series(1, 30000) n",
)
DUMPED = 30_000 * 640
OPTIONS = DumpOptions(compress="none")


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Each fault with encryption, too, which puts a thread between pg_dump and the store."""
    return Settings(recipients=(str(pyrage.x25519.Identity.generate().to_public()),) if request.param else ())


@pytest.fixture
def client(s3: S3Server) -> S3Client:
    return s3.client()


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def there(client: S3Client, bucket: str) -> Repository:
    options = S3Options(client_factory=lambda: client, min_part_size=5 * MIB, memory=10 * MIB)
    repository = open_repository(f"s3://{bucket}/pg", s3=options)
    repository.init()
    return repository


def uploads(client: S3Client, bucket: str) -> list[str]:
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def sweep(repository: Repository) -> None:
    time.sleep(1.1)  # the store's times are in full seconds
    repository.remove_unfinished(repository.unfinished_writes(timedelta(0)))


def test_pg_dump_killed_at_any_point(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    client: S3Client,
    bucket: str,
    there: Repository,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The point is a number of bytes that were read from pg_dump, which has more of them then than its pipe holds."""
    database = fresh_database(server18, None, *FILL)
    rng = random.Random(5)
    committed: list[str] = []

    def dump() -> None:
        reference = dump_database(
            connection=database,
            server="s",
            repository=there,
            options=OPTIONS,
            context=RunContext(seed=str(rng.random()), settings=settings),
        )
        assert reference["size"] == there.stat(str(reference["key"])).size  # type: ignore[union-attr]
        committed.append(f"{reference['series']}/{reference['id']}/")

    read_some = ToolOutput._read_some
    due: list[tuple[int, signal.Signals]] = []
    bytes_read = 0

    def read_and_kill(self: ToolOutput, size: int) -> int:
        nonlocal bytes_read
        count = read_some(self, size)
        bytes_read += count
        if due and count and bytes_read > due[0][0] and (running := pg_dumps()):
            _, number = due.pop()
            for pid in running:
                os.kill(pid, number)
        return count

    monkeypatch.setattr(ToolOutput, "_read_some", read_and_kill)
    dump()
    for _ in range(TIMES // 2):
        number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
        bytes_read = 0
        due.append((rng.randrange(DUMPED - 4 * CHUNK), number))
        with pytest.raises(ToolError) as caught:
            dump()
        assert ("terminated by user" if number == signal.SIGTERM else number.name) in caught.value.message
        # The dump cleans up before it fails, so nothing is left to sweep.
        assert uploads(client, bucket) == []
        seen = {entry.key for entry in there.list()} - {"repository.json"}
        assert {key for key in seen if not key.startswith(tuple(committed))} == set()
        assert len(seen) == 2
    sweep(there)
    assert uploads(client, bucket) == []
    assert {"/".join(entry.key.split("/")[:-1][:3]) + "/" for entry in there.list()} == {"/", *committed}


# Reports that it has written a member completely, and runs on until a file exists.
SLOW = """#!{python}
import os, sys, time
if "--version" in sys.argv:
    print("pg_dump (PostgreSQL) 18.99")
    sys.exit()
folder = next((word.removeprefix("--file=") for word in sys.argv if word.startswith("--file=")), None)
if folder is None:
    sys.exit('pg_dump: error: invalid connection option "no_such_keyword"')  # the probe for compression methods
os.mkdir(folder)
open(folder + "/5.dat", "wb").write(os.urandom(12 << 20))
print("pg_dump: finished item 5 TABLE DATA t", file=sys.stderr, flush=True)
end = time.monotonic() + 120
while not os.path.exists({go!r}) and time.monotonic() < end:
    time.sleep(0.02)
sys.exit({status})
"""


def slow_pg_dump(folder: Path, go: Path, *, status: int) -> tuple[str, ...]:
    (folder / "pg_dump").write_text(SLOW.format(python=sys.executable, go=str(go), status=status))
    (folder / "pg_dump").chmod(0o755)
    return (str(folder),)


DIRECTORY = DumpOptions(format="directory", jobs=2, compress="none")


def test_a_directory_that_was_partly_sent_when_pg_dump_failed(
    server18: PostgresServer,
    client: S3Client,
    bucket: str,
    there: Repository,
    tmp_path: Path,
    settings: Settings,
) -> None:
    go, ended = tmp_path / "go", threading.Event()
    sent: list[str] = []

    def let_it_fail() -> None:
        while not sent and not ended.wait(0.05):
            for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
                key = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                if len(client.list_parts(**key).get("Parts", [])) == 3:
                    sent.append(upload["Key"])
        time.sleep(0.2)
        go.touch()

    watching = threading.Thread(target=let_it_fail)
    watching.start()
    try:
        with pytest.raises(ToolError) as caught:
            dump_database(
                connection=server18.params,
                server="s",
                repository=there,
                options=DIRECTORY,
                context=RunContext(settings=replace(settings, client_dirs=slow_pg_dump(tmp_path, go, status=1))),
            )
    finally:
        ended.set()
        watching.join()
    assert caught.value.exit_code == 1
    assert [key.rpartition("/")[2] for key in sent] == ["5.dat.age" if settings.recipients else "5.dat"]
    assert uploads(client, bucket) == []
    assert [entry.key for entry in there.list()] == ["repository.json"]


def test_a_store_that_refuses_a_member_ends_the_dump_at_once(
    s3: S3Server,
    server18: PostgresServer,
    client: S3Client,
    bucket: str,
    there: Repository,
    tmp_path: Path,
    settings: Settings,
) -> None:
    with FaultyS3(s3.endpoint_url).running() as proxy:
        proxy.fault("UploadPart", "answer", status=403, code="AccessDenied", times=100)
        session = boto3.session.Session(s3.access_key, s3.secret_key, region_name="us-east-1")
        behind = session.client("s3", endpoint_url=proxy.url, config=Config(s3={"addressing_style": "path"}))
        repository = open_repository(there.uri, s3=S3Options(client_factory=lambda: behind, min_part_size=5 * MIB))
        started = time.monotonic()
        with pytest.raises(RepositoryError, match=r"5\.dat") as caught:
            dump_database(
                connection=server18.params,
                server="s",
                repository=repository,
                options=DIRECTORY,
                context=RunContext(
                    settings=replace(settings, client_dirs=slow_pg_dump(tmp_path, tmp_path / "never", status=0))
                ),
            )
    assert "AccessDenied" in str(caught.value)
    assert time.monotonic() - started < 60  # long before pg_dump ends
    assert uploads(client, bucket) == []
    assert [entry.key for entry in there.list()] == ["repository.json"]


WORKER = """
import sys
{prelude}
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
dump_database(
    connection=ConnectionParams(keywords={keywords!r}, password={password!r}),
    server="s", repository=repository, options=DumpOptions(compress="none"),
    context=RunContext(seed="the same task"),
)
"""
PRELUDE = """
import boto3
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import MIB, S3Options
session = boto3.session.Session({access!r}, {secret!r}, region_name="us-east-1")
client = session.client("s3", endpoint_url={endpoint!r})
repository = open_repository(
    {uri!r}, s3=S3Options(client_factory=lambda: client, min_part_size=5 * MIB, memory=10 * MIB)
)
"""


def test_a_worker_that_is_killed_leaves_an_upload_that_is_swept(
    s3: S3Server,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    client: S3Client,
    bucket: str,
    there: Repository,
) -> None:
    """SIGKILL during the upload: pg_dump ends too, a retry makes the backup, and the sweep removes the rest."""
    database = fresh_database(server18, None, *FILL, "create table z (a int)")
    prelude = PRELUDE.format(access=s3.access_key, secret=s3.secret_key, endpoint=s3.endpoint_url, uri=there.uri)
    code = WORKER.format(prelude=prelude, keywords=dict(database.keywords), password=database.password)
    worker = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: uploads(client, bucket) or worker.poll() is not None)
        orphans = children_of(worker.pid)
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in orphans))
    assert [entry.key for entry in there.list()] == ["repository.json"]
    assert len(uploads(client, bucket)) == 1
    assert there.unfinished_writes(timedelta(hours=1)) == []  # another worker cannot know that it is dead
    reference = dump_database(
        connection=database, server="s", repository=there, options=OPTIONS, context=RunContext(seed="the same task")
    )
    sweep(there)
    assert uploads(client, bucket) == []
    folder = f"{reference['series']}/{reference['id']}"
    assert [entry.key for entry in there.list()] == [
        "repository.json",
        str(reference["key"]),
        f"{folder}/manifest.json",
    ]
