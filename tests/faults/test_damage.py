"""Every truncated archive is detected; no damaged archive exceeds the deadline or crashes the reader.

Level ``integrity`` detects flipped bits by the sha256: most formats have no checksums.
"""

from __future__ import annotations

import gzip
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ClientError, DeadlineExceeded, PgBackupError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import run_tool

POINTS = 300
DEADLINE = 120.0  # seconds for an archive of a few kilobytes: a reader that takes longer hangs
SHORT_DEADLINE = 5.0  # where some readers do hang
CLIENT = Client(postgres_bin_dir(18), (18, 4), "embedded wheel")

STATEMENTS = (
    "create table film (film_id serial primary key, title text, note text)",
    "insert into film (title, note) select md5(n::text), case when n % 3 = 0 then 'note' end"
    "  from generate_series(1, 80) n",
    "create table actor (name text)",
    "insert into actor select md5(n::text) from generate_series(100, 140) n",
    "create table empty (a int)",
    "create table no_columns ()",
    "insert into no_columns select from generate_series(1, 3)",
    "create function f() returns text language sql as $$ select 'COPY film FROM stdin;' $$",
    "create index on actor (name)",
    "select lo_from_bytea(4711, 'a large object')",
    "select lo_from_bytea(4712, convert_to(repeat('another', 500), 'UTF8'))",
)


@dataclass(frozen=True)
class Kind:
    """One format of artifact.

    :ivar tool: pg_dump or pg_dumpall.
    """

    tool: str
    format: str
    options: tuple[str, ...] = ()
    compression: str | None = None


KINDS = {
    "custom": Kind("pg_dump", "custom"),
    "custom uncompressed": Kind("pg_dump", "custom", ("--compress=0",)),
    "tar": Kind("pg_dump", "tar"),
    "directory": Kind("pg_dump", "directory"),
    # The length of an uncompressed large object in a directory is not recorded anywhere.
    "directory uncompressed": Kind("pg_dump", "directory", ("--compress=0", "--no-large-objects")),
    "directory of inserts": Kind("pg_dump", "directory", ("--compress=0", "--no-large-objects", "--inserts")),
    "plain": Kind("pg_dump", "plain"),
    "plain gzip": Kind("pg_dump", "plain", (), "gzip"),
    "pg_dumpall": Kind("pg_dumpall", "plain"),
}


@dataclass(frozen=True)
class Artifact:
    """An artifact in memory: its only file, or members by name."""

    kind: Kind
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def at(self, position: int) -> tuple[str, int]:
        """Return the file and the offset in it for a position in the concatenation of all files."""
        for name, content in self.files.items():
            if position < len(content):
                return name, position
            position -= len(content)
        raise AssertionError

    def points(self) -> list[int]:
        """Return positions all over the artifact, with all of the first and last 60 bytes."""
        size = self.size
        assert size > POINTS
        ends = {*range(60), *range(size - 60, size)}
        between = random.Random(size).sample(sorted(set(range(size)) - ends), POINTS - len(ends))
        return sorted([*ends, *between])

    def damaged(self, directory: Path, position: int, damage: Callable[[bytes, int], bytes]) -> Path:
        name, place = self.at(position)
        path = directory / "artifact"
        files = {**self.files, name: damage(self.files[name], place)}
        if path.is_dir():
            shutil.rmtree(path)
        if self.kind.format == "directory":
            path.mkdir()
        for name, content in files.items():
            (path / name if self.kind.format == "directory" else path).write_bytes(content)
        return path


@pytest.fixture(scope="module")
def server(server18: PostgresServer) -> Iterator[PostgresServer]:
    with server18.params.connect() as connection:
        connection.execute("create database damage template template0")
    with server18.params.with_database("damage").connect() as connection:
        for statement in STATEMENTS:
            connection.execute(statement.encode())
    yield server18
    with server18.params.connect() as connection:
        connection.execute("drop database damage with (force)")


@pytest.fixture(params=KINDS.values(), ids=[name.replace(" ", "-") for name in KINDS])
def intact(request: pytest.FixtureRequest, server: PostgresServer, tmp_path: Path) -> Artifact:
    kind: Kind = request.param
    path = tmp_path / "intact"
    options = [f"--format={kind.format}"] if kind.tool == "pg_dump" else ["--no-role-passwords"]
    with client_environment(server.params.with_database("damage")) as env:
        run_tool([CLIENT.tool(kind.tool), "--no-password", *options, *kind.options, f"--file={path}"], env=env)
    if path.is_dir():
        artifact = Artifact(kind, {file.name: file.read_bytes() for file in sorted(path.iterdir())})
    else:
        content = path.read_bytes()
        artifact = Artifact(kind, {"": gzip.compress(content) if kind.compression else content})
    (tmp_path / "check").mkdir()
    assert read(artifact.damaged(tmp_path / "check", 0, lambda content, place: content), kind) is None
    return artifact


def read(path: Path, kind: Kind, deadline: float = DEADLINE) -> PgBackupError | None:
    """Read an artifact, and return the error if there was one."""
    try:
        ArchiveReader(path, format=kind.format, client=CLIENT, deadline=deadline, compression=kind.compression).digest()
    except PgBackupError as error:
        return error
    return None


def outcomes(
    intact: Artifact, directory: Path, damage: Callable[[bytes, int], bytes], deadline: float = DEADLINE
) -> Iterator[tuple[int, PgBackupError | None]]:
    """Yield each position, and the error from reading the artifact with damage at that position."""
    own = threading.local()

    def try_at(position: int) -> tuple[int, PgBackupError | None]:
        if not hasattr(own, "directory"):
            own.directory = directory / str(threading.get_ident())
            own.directory.mkdir()
        return position, read(intact.damaged(own.directory, position, damage), intact.kind, deadline)

    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(try_at, intact.points())


def test_every_truncated_artifact_is_detected(intact: Artifact, tmp_path: Path) -> None:
    results = list(outcomes(intact, tmp_path, lambda content, place: content[:place]))
    assert len(results) == POINTS
    passed = [(*intact.at(position), error) for position, error in results if not isinstance(error, VerificationFailed)]
    assert passed == []


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def test_a_flipped_bit_never_exceeds_the_deadline(intact: Artifact, tmp_path: Path) -> None:
    # ClientError: bits of the version or the compression. DeadlineExceeded: pg_restore loops endlessly on a block of a
    # custom archive whose gzip data ends before the block does.
    allowed: tuple[type[PgBackupError], ...] = (VerificationFailed, ClientError)
    deadline = DEADLINE
    if intact.kind.format == "custom":
        allowed += (DeadlineExceeded,)
        deadline = SHORT_DEADLINE
    results = list(outcomes(intact, tmp_path, flip, deadline))
    assert len(results) == POINTS
    assert [(position, error) for position, error in results if error and not isinstance(error, allowed)] == []
    if intact.kind.compression == "gzip":  # the only format with a checksum of everything
        (content,) = intact.files.values()
        passed = [position for position, error in results if not error]
        assert {gzip.decompress(flip(content, position)) for position in passed} == {gzip.decompress(content)}


@pytest.mark.parametrize(
    ("signal", "expected"), [("SEGV", VerificationFailed), ("ABRT", VerificationFailed), ("KILL", ToolKilled)]
)
def test_a_crash_of_pg_restore_fails_the_archive_and_a_kill_does_not(
    server: PostgresServer, tmp_path: Path, signal: str, expected: type[PgBackupError]
) -> None:
    path = tmp_path / "dump"
    with client_environment(server.params.with_database("damage")) as env:
        run_tool([CLIENT.tool("pg_dump"), "--format=custom", f"--file={path}"], env=env)
    tool = tmp_path / "pg_restore"
    tool.write_text(f"#!/bin/sh\nkill -{signal} $$\n")
    tool.chmod(0o755)
    (tmp_path / "pg_dump").symlink_to(CLIENT.tool("pg_dump"))
    with pytest.raises(expected, match=f"SIG{signal}"):
        ArchiveReader(path, format="custom", client=Client(tmp_path, (18, 4), "test"), deadline=DEADLINE).digest()
