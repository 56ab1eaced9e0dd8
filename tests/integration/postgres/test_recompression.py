"""pg_restore reads the same from a recompressed custom archive as from the original."""

from __future__ import annotations

import io
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup import streams
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.streams import compressed_inside, has_fast_gzip
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import OptionError, ToolError, VerificationFailed
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings
from tests.sampling import sample

Fresh = Callable[..., ConnectionParams]
STATEMENTS = (
    "create table empty (a int)",
    "create table none ()",
    "insert into none select from generate_series(1, 3)",
    "create table one as select ''::text as a from generate_series(1, 3000)",  # rows of one byte
    "create table wide as select repeat(md5(n::text), 9000) as a from generate_series(1, 20) n",  # of 288 kB
    "create table narrow as select n as a, n * 7 as b from generate_series(1, 300000) n",  # more than one frame
    # Bytes that look like the length of a chunk, as far as text can contain them.
    r"create table odd as select e'\n\\.\x01\x0a\x05' || repeat(chr(1 + n % 31), n) from generate_series(1, 600) n",
    "create table bytes as select decode(repeat('00ff', n * 500), 'hex') as a from generate_series(1, 20) n",
    "select lo_from_bytea(0, '')",
    "select lo_from_bytea(0, decode(repeat('00000000000a', 50000), 'hex'))",
    "select lo_from_bytea(0, decode(repeat(md5('x'), 300000), 'hex'))",  # 4.8 MB, more than a frame
    "select lo_from_bytea(4294967295::oid, 'an oid that is negative as an int')",
)


def uncompressed(build: Build, database: ConnectionParams, *options: str) -> bytes:
    argv = [build.bin_dir / "pg_dump", "--format=custom", f"--compress={'0' if build.major < 16 else 'none'}", *options]
    with client_environment(database) as env:
        return subprocess.run(argv, env=env, stdout=subprocess.PIPE, check=True).stdout


def read_back(build: Build, archive: bytes, directory: Path, *options: str) -> bytes:
    """Return the script that pg_restore makes, from a file, in which it can seek, and from a pipe."""
    file = directory / "archive"
    file.write_bytes(archive)
    argv = [build.bin_dir / "pg_restore", "--file=-", *options]
    script = subprocess.run([*argv, file], stdout=subprocess.PIPE, check=True).stdout
    with file.open("rb") as stream:
        piped = subprocess.run(argv, stdin=stream, stdout=subprocess.PIPE, check=True).stdout
    script, piped = (re.sub(rb"(?m)^\\(un)?restrict .*$", b"", text) for text in (script, piped))
    assert script == piped
    return script


class ShortReads(io.BytesIO):
    """A file whose reads return any number of bytes, like those of a pipe."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(random.Random(self.tell()).randrange(1, size or 2) if size and size > 1 else size)


def methods(build: Build) -> list[str]:
    has = choose_client(build.major * 10000, client_dirs=(str(build.bin_dir),)).compression_methods
    return [method for method in ("gzip", "zstd") if method in has and (method == "gzip" or build.major >= 16)]


@pytest.mark.every_value
@each(BUILDS)
@pytest.mark.parametrize("options", [(), ("--inserts",)], ids=["copy", "inserts"])
def test_pg_restore_reads_the_same_as_from_the_original(
    build: Build, options: tuple[str, ...], fresh_database: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PostgresServer(build.bin_dir) as server:
        database = server.params.with_database("postgres")
        with database.connect() as session:
            for statement in STATEMENTS:
                session.execute(statement)
        plain = uncompressed(build, database, *options)
    expected = read_back(build, plain, tmp_path)
    assert expected.count(b"\n") > 300_000
    monkeypatch.setattr(streams, "_FRAME", 1 << 20)
    for method in methods(build):
        for source in (io.BytesIO(plain), ShortReads(plain)):
            archive = compressed_inside(source, method, 1).read()
            assert len(archive) < len(plain) / 2
            toc, _ = read_toc(io.BytesIO(archive), what="the archive")
            assert (toc.compression, toc.version) == (
                method,
                read_toc(io.BytesIO(plain), what="the archive")[0].version,
            )
            assert read_back(build, archive, tmp_path) == expected
        assert b"300000\t2100000\n" in read_back(build, archive, tmp_path, "--table=narrow") or options


@pytest.fixture
def small(server18: PostgresServer, fresh_database: Fresh) -> bytes:
    statements = (
        "create table a as select n as a from generate_series(1, 200) n",
        "create table b as select repeat('x', n) as a from generate_series(1, 60) n",
        "select lo_from_bytea(0, '\\x00010200')",
        "select lo_from_bytea(0, 'second')",
    )
    return uncompressed(BUILDS[-1], fresh_database(server18, None, *statements))


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_every_truncated_archive_is_refused(method: str, small: bytes) -> None:
    complete = compressed_inside(io.BytesIO(small), method, None).read()
    assert complete.startswith(b"PGDMP")
    for cut in sample(range(len(small)), 8):
        with pytest.raises(VerificationFailed):
            compressed_inside(io.BytesIO(small[:cut]), method, None).read()


def test_wrong_chunk_lengths_are_refused(small: bytes) -> None:
    row = small.index(b"\x00\x03\x00\x00\x0042\n")
    for damaged in (b"\x00\x04\x00\x00\x0042\n", b"\x00\x03\x00\x00\x004\x00\n", b"\x00\x03\x00\x00\x00422\n"):
        with pytest.raises(VerificationFailed) as caught:
            compressed_inside(io.BytesIO(small[:row] + damaged + small[row + 8 :]), "gzip", None).read()
        assert "near byte" in caught.value.message


def test_bytes_after_the_data_are_refused(small: bytes) -> None:
    for more in (b"\x01", b"\x01\x00\x01\x00\x00\x00", b"x" * 100):
        with pytest.raises(VerificationFailed):
            compressed_inside(io.BytesIO(small + more), "gzip", None).read()


# -- in a dump


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    repository = open_repository((tmp_path / "repository").as_uri())
    repository.init()
    return repository


@each(BUILDS)
def test_the_manifest_records_who_compressed_the_dump(
    build: Build, server16: PostgresServer, fresh_database: Fresh, here: Repository
) -> None:
    with PostgresServer(build.bin_dir) as server:
        with server.params.connect() as session:
            session.execute("create table t as select md5(n::text) as a from generate_series(1, 5000) n")
        best = methods(build)[-1]
        cases = [
            (None, {}, (best, 3 if best == "zstd" else 1, "airflow-pgbackup")),
            (None, {"compress_by": "pg_dump"}, (best, 3 if best == "zstd" else 1, "pg_dump")),
            ("9" if build.major < 16 else "gzip:9", {}, ("gzip", 9, "pg_dump")),  # not faster here
            (0, {}, ("none", None, None)),
        ]
        for compress, settings, expected in cases:
            reference = dump_database(
                connection=server.params.with_database("postgres"),
                server="s",
                repository=here,
                options=DumpOptions(compress=compress),
                context=RunContext(settings=Settings(client_dirs=(str(build.bin_dir),), **settings)),  # type: ignore[arg-type]
            )
            assert (
                verify(reference=reference, repository=here, context=RunContext(settings=build.settings))["verified"]
                == "archive"
            )
            compression = load_manifest(here, reference).artifact.compression
            assert (compression.method, compression.level, compression.by) == expected


def test_a_method_that_the_client_lacks_is_refused(
    server16: PostgresServer, fresh_database: Fresh, here: Repository
) -> None:
    gzip_only = Settings(client_dirs=(str(server16.bin_dir),))
    with pytest.raises(OptionError) as caught:
        dump_database(
            connection=fresh_database(server16),
            server="s",
            repository=here,
            options=DumpOptions(compress="zstd"),
            context=RunContext(settings=gzip_only),
        )
    assert "needs a pg_dump built with zstd" in caught.value.message


LIAR = """#!/bin/sh
case "$*" in
*--version*) echo 'pg_dump (PostgreSQL) 18.99' ;;
*--verbose*) '{real}' "$@" | head -c -100 ;;
*) exec "{real}" "$@" ;;
esac
"""


def test_exit_0_without_the_end_of_the_data_is_no_backup(
    server18: PostgresServer, fresh_database: Fresh, here: Repository, tmp_path: Path
) -> None:
    """As pg_dump -Fc ends if the disk fills up in the last page: the archive does not show it."""
    database = fresh_database(server18, None, "create table t as select n from generate_series(1, 5000) n")
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "pg_dump").write_text(LIAR.format(real=server18.bin_dir / "pg_dump"))
    (directory / "pg_dump").chmod(0o755)
    with pytest.raises(ToolError) as caught:
        dump_database(
            connection=database,
            server="s",
            repository=here,
            options=DumpOptions(),
            context=RunContext(settings=Settings(client_dirs=(str(directory),))),
        )
    assert "pg_dump ended with exit status 0, but its output of" in caught.value.message
    assert "the file ends inside the data of a table" in caught.value.message
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_gzip_that_is_faster_here_needs_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [level for level in (None, -1, 1, 2, 3, 4, 6, 9) if has_fast_gzip(level)] == [1, 2, 3]
    monkeypatch.setattr(streams, "_isal", lambda: None)
    assert not has_fast_gzip(1)
