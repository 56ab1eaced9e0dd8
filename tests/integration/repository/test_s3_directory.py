"""A directory artifact in S3: its members are read in parallel, a few at a time, and one bad member is named."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup import artifact
from airflow_pgbackup.backup.artifact import check_bytes
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import Canceled, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import MIB, S3Options
from airflow_pgbackup.settings import Settings

TABLES = 12
FILL = [
    statement
    for number in range(TABLES)
    for statement in (
        f"create table t{number} (a int primary key, b text)",
        f"insert into t{number} select n, md5(n::text) from generate_series(1, {500 * number + 1}) n",
    )
]


class Backup:
    """One dump in directory format, and how many of its members were open at a time."""

    def __init__(self, repository: Repository, reference: dict[str, object], manifest: Manifest) -> None:
        self.repository, self.reference, self.manifest = repository, reference, manifest
        self.open = self.most = 0
        self._read = repository.read

    def watch(self, monkeypatch: pytest.MonkeyPatch, at_second: Callable[[], None] = lambda: None) -> None:
        """Count open members. The first in a thread waits until a second one is open.

        :param at_second: called when two are open.
        """
        lock, two = threading.Lock(), threading.Event()

        @contextmanager
        def watched(key: str, *, pin: Entry | None = None) -> Iterator[BinaryIO]:
            with lock:
                self.open += 1
                self.most = max(self.most, self.open)
                if self.open == 2 and not two.is_set():
                    at_second()
                    two.set()
            try:
                if threading.current_thread() is not threading.main_thread():  # which looks at one of them first
                    assert two.wait(120), "members are read one by one"
                with self._read(key, pin=pin) as stream:
                    yield stream
            finally:
                with lock:
                    self.open -= 1

        monkeypatch.setattr(self.repository, "read", watched)


@pytest.fixture
def backup(s3: S3Server, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> Backup:
    client = s3.client()
    repository = open_repository(f"s3://{s3.bucket()}", s3=S3Options(client_factory=lambda: client))
    repository.init()
    reference = dump_database(
        connection=fresh_database(server18, None, *FILL),
        server="s",
        repository=repository,
        options=DumpOptions(format="directory", jobs=2),
    )
    return Backup(repository, reference, load_manifest(repository, reference))


def test_members_are_read_in_parallel_and_arrive_as_they_are(
    backup: Backup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backup.watch(monkeypatch)
    wrong, checked = check_bytes(backup.repository, backup.manifest)
    assert wrong == []
    assert set(checked.marks) == {backup.manifest.key(file) for file in backup.manifest.artifact.files}
    assert 1 < backup.most <= artifact.PARALLEL
    backup.most = 0
    backup.watch(monkeypatch)
    path = download(backup.repository, backup.manifest, tmp_path)
    assert 1 < backup.most <= artifact.PARALLEL
    for file in backup.manifest.artifact.files:
        assert (path / file.path).stat().st_size == file.size
        assert (path / file.path).read_bytes() == backup.repository.read_bytes(backup.manifest.key(file))
        assert (path / file.path).stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o700


def test_verified_straight_from_the_store(backup: Backup) -> None:
    assert verify(reference=backup.reference, repository=backup.repository)["verified"] == "archive"


@pytest.mark.parametrize("how", ["changed", "shorter", "missing", "one too many"])
def test_a_bad_member_is_named(backup: Backup, how: str) -> None:
    file = backup.manifest.artifact.files[3]
    key = backup.manifest.key(file)
    data = backup.repository.read_bytes(key)
    if how != "one too many":
        backup.repository.delete([key])
    if how == "changed":
        backup.repository.write_bytes(key, data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "shorter":
        backup.repository.write_bytes(key, data[:-1])
    elif how == "one too many":
        backup.repository.write_bytes(f"{key}.more", data)
    with pytest.raises(VerificationFailed, match=file.path) as caught:
        verify(reference=backup.reference, repository=backup.repository, level="integrity")
    assert {
        "changed": "checksum mismatch",
        "shorter": "size mismatch",
        "missing": "missing",
        "one too many": "is not a file of this dump",
    }[how] in str(caught.value)


def test_stopped_among_the_members(backup: Backup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cancel = Cancel()
    backup.watch(monkeypatch, at_second=cancel.set)
    with pytest.raises(Canceled):
        download(backup.repository, backup.manifest, tmp_path, cancel=cancel)
    assert backup.open == 0


# Does what pg_dump does, and waits at its end until there is a file. The newest of its major version, so it is chosen.
WAITING = """#!{python}
import os, subprocess, sys, time
if "--version" in sys.argv:
    print("pg_dump (PostgreSQL) {major}.99")
    sys.exit()
done = subprocess.run([{program!r}, *sys.argv[1:]])
while any(word.startswith("--jobs") for word in sys.argv) and not os.path.exists({go!r}):
    time.sleep(0.02)
sys.exit(done.returncode)
"""


@each(BUILDS)
def test_large_members_leave_while_pg_dump_still_runs(build: Build, s3: S3Server, tmp_path: Path) -> None:
    folder, go, client, bucket = tmp_path / "bin", tmp_path / "go", s3.client(), s3.bucket()
    folder.mkdir()
    program = str(build.bin_dir / "pg_dump")
    (folder / "pg_dump").write_text(
        WAITING.format(python=sys.executable, major=build.major, program=program, go=str(go))
    )
    (folder / "pg_dump").chmod(0o755)
    repository = open_repository(f"s3://{bucket}", s3=S3Options(client_factory=lambda: client, min_part_size=5 * MIB))
    repository.init()

    def sent() -> list[str]:
        uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        parts = [client.list_parts(Bucket=bucket, Key=u["Key"], UploadId=u["UploadId"]).get("Parts") for u in uploads]
        return [upload["Key"] for upload, its in zip(uploads, parts, strict=True) if its and len(its) == 2]

    with PostgresServer(build.bin_dir) as server, server.params.connect() as session:
        for name, rows in (("large", 10_000), ("larger", 11_000), ("small", 100)):
            session.execute(f"create table {name} as select repeat(md5(n::text), 20) from generate_series(1, {rows}) n")
        with ThreadPoolExecutor(1) as pool:
            dump = pool.submit(
                dump_database,
                connection=server.params,
                server="s",
                repository=repository,
                options=DumpOptions(format="directory", jobs=2, compress="none"),
                context=RunContext(settings=Settings(client_dirs=(str(folder),))),
            )
            try:
                end = time.monotonic() + 240
                while len(sent()) < 2 and not dump.done():
                    assert time.monotonic() < end, "nothing was sent"
                    time.sleep(0.05)
                assert [entry.key for entry in repository.list()] == ["repository.json"]  # nothing is to be seen of it
            finally:
                go.touch()
            reference = dump.result()
        assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
        assert (
            verify(reference=reference, repository=repository, context=RunContext(settings=build.settings))["verified"]
            == "archive"
        )
