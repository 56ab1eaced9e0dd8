"""The custom decoder finds the same tables, rows and sequences as pg_restore does."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup.streams import compressed_inside
from airflow_pgbackup.errors import PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from tests.sampling import sample

STATEMENTS = (
    "create table plain as select n as a, md5(n::text) as b from generate_series(1, 40000) n",
    "create table empty (a int)",
    "create table none ()",
    "insert into none select from generate_series(1, 3)",
    r"create table odd as select e'\\.\n\\.\nCOPY x FROM stdin;\n\\.' as a from generate_series(1, 5)",
    "create table wide as select repeat(md5(n::text), 50000) as a from generate_series(1, 4) n",
    """create schema "o.d'd \\ ""n" """,
    """create table "o.d'd \\ ""n"."t\nable" ("c,ol)" int, "ä" text)""",
    """insert into "o.d'd \\ ""n"."t\nable" values (1, 'é'), (2, null)""",
    """create sequence "o.d'd \\ ""n"."s'e\\q" """,
    """select setval('"o.d''d \\ ""n"."s''e\\q"', 42, false)""",
    "create sequence down increment -1",
    "select nextval('down')",
    "create table part (a int, b text) partition by range (a)",
    "create table part1 partition of part for values from (0) to (10)",
    "create table part2 (b text, a int)",
    "alter table part attach partition part2 for values from (10) to (20)",
    "insert into part select n, n::text from generate_series(0, 19) n",
    "create materialized view view as select * from plain",
    "select lo_from_bytea(4711 + n, decode(repeat(md5(n::text), n * n), 'hex')) from generate_series(0, 60) n",
    "select lo_from_bytea(4000000000, 'an OID that is negative as an int of C')",
    "select lo_from_bytea(100, convert_to(repeat('large', 1 << 18), 'UTF8'))",
)


def client_of(build: Build) -> Client:
    return next(client for client in find_clients([str(build.bin_dir)]) if client.bin_dir == build.bin_dir)


def dump(build: Build, database: ConnectionParams, *options: str) -> bytes:
    argv = [build.bin_dir / "pg_dump", "--format=custom", *options]
    with client_environment(database) as env:
        return subprocess.run(argv, env=env, stdout=subprocess.PIPE, check=True).stdout


def read(client: Client, file: Path, *, in_process: bool) -> ArchiveSummary:
    return ArchiveReader(file, format="custom", client=client, deadline=600, in_process=in_process).digest()


@pytest.fixture
def no_pg_restore(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: object) -> None:
        raise AssertionError("pg_restore was called")

    return lambda: monkeypatch.setattr(ArchiveReader, "_pg_restore", refuse)


@pytest.mark.every_value
@each(BUILDS)
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
def test_both_readers_agree(build: Build, encoding: str, tmp_path: Path, no_pg_restore: Callable[[], None]) -> None:
    client = client_of(build)
    with PostgresServer(build.bin_dir) as server:
        with server.params.connect() as session:
            session.execute(f"create database d template template0 encoding '{encoding}'")
        database = server.params.with_database("d")
        with database.connect() as session:
            for statement in STATEMENTS:
                session.execute(statement)
        zstd = "zstd" in client.compression_methods
        methods = ["0", "6", *(["zstd:3"] if zstd else [])]
        archives = {f"pg_dump {method}": dump(build, database, f"--compress={method}") for method in methods}
        archives["through the root"] = dump(build, database, "--load-via-partition-root")
        archives["other encoding"] = dump(build, database, "--encoding=LATIN1", "--schema=public", "--compress=0")
    for method in ("gzip", *(["zstd"] if zstd else [])):
        plain = io.BytesIO(archives["pg_dump 0"])
        archives[f"recompressed {method}"] = compressed_inside(plain, method, None).read()
    expected = {}
    for name, archive in archives.items():
        (tmp_path / name).write_bytes(archive)
        expected[name] = read(client, tmp_path / name, in_process=False)
    assert [objects.count for objects in expected["pg_dump 6"].large_objects] == [63]
    assert expected["pg_dump 6"].rows == 40000 + 3 + 5 + 4 + 2 + 20
    no_pg_restore()
    for name, there in expected.items():
        found = read(client, tmp_path / name, in_process=True)
        assert found.tables == there.tables, name
        assert found.sequences == there.sequences, name
        assert [list(objects) for objects in found.large_objects] == [list(objects) for objects in there.large_objects]
        assert found.refreshed == there.refreshed, name
        assert (found.server_version, found.dump_version) == (there.server_version, there.dump_version), name


@pytest.fixture
def small(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    statements = ("create table a as select n as a from generate_series(1, 300) n", "create table b (a text)")
    return fresh_database(server18, None, *statements)


@pytest.mark.parametrize("compress", ["none", "gzip:1"])
def test_every_truncated_archive_fails(
    compress: str, small: ConnectionParams, tmp_path: Path, no_pg_restore: Callable[[], None]
) -> None:
    build = BUILDS[-1]
    archive = dump(build, small, f"--compress={compress}")
    no_pg_restore()
    file = tmp_path / "archive"
    for cut in sample(range(len(archive)), 16):
        file.write_bytes(archive[:cut])
        with pytest.raises(VerificationFailed):
            read(client_of(build), file, in_process=True)


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_a_flipped_bit_in_compressed_data_fails(
    method: str, small: ConnectionParams, tmp_path: Path, no_pg_restore: Callable[[], None]
) -> None:
    """In streams that recompression writes: without a checksum of the zstd frame, most flips would pass."""
    build = BUILDS[-1]
    archive = dump(build, small, "--compress=none")
    archive = compressed_inside(io.BytesIO(archive), method, None).read()
    complete = tmp_path / "complete"
    complete.write_bytes(archive)
    tables = read(client_of(build), complete, in_process=True).tables
    toc, _ = read_toc(io.BytesIO(archive), what="the archive")
    no_pg_restore()
    file = tmp_path / "archive"
    for place in sample(range(toc.size, len(archive)), 8):
        file.write_bytes(archive[:place] + bytes([archive[place] ^ 1 << place % 8]) + archive[place + 1 :])
        try:
            found = read(client_of(build), file, in_process=True).tables
        except PgBackupError:
            continue
        assert found == tables, place  # a bit without a meaning, such as the sign of a zero


def test_pg_restore_decodes_what_the_custom_decoder_does_not(small: ConnectionParams, tmp_path: Path) -> None:
    """INSERTs."""
    build = BUILDS[-1]
    (tmp_path / "archive").write_bytes(dump(build, small, "--inserts"))
    found = read(client_of(build), tmp_path / "archive", in_process=True)
    assert found.rows == 300
    assert found.large_objects == []


@pytest.mark.parametrize(("old", "new"), [(b"COPY public.", b"COPZ public."), (b" FROM stdin;", b" FROM stdim;")])
def test_a_statement_that_is_no_copy_is_refused(
    old: bytes, new: bytes, small: ConnectionParams, tmp_path: Path, no_pg_restore: Callable[[], None]
) -> None:
    archive = dump(BUILDS[-1], small)
    no_pg_restore()
    (tmp_path / "archive").write_bytes(archive.replace(old, new))
    with pytest.raises(VerificationFailed, match=r"TABLE DATA public\.\w+ .* has an invalid COPY statement: "):
        read(client_of(BUILDS[-1]), tmp_path / "archive", in_process=True)


def test_large_objects_that_are_missing_are_noticed(
    small: ConnectionParams, tmp_path: Path, no_pg_restore: Callable[[], None]
) -> None:
    build = BUILDS[-1]
    with small.connect() as session:
        session.execute("select lo_from_bytea(4711, 'abc'), lo_from_bytea(4712, 'def')")
    archive = dump(build, small, "--compress=none")
    data = b"abc" + bytes(5)  # and the end of its chunks
    start = archive.index(data) - 10  # before it, the OID and the length of the chunk
    no_pg_restore()
    file = tmp_path / "archive"
    file.write_bytes(archive[:start] + archive[start + 10 + len(data) :])
    with pytest.raises(VerificationFailed, match="large objects with data: found 1, expected 2"):
        read(client_of(build), file, in_process=True)
    for cut in range(start, len(archive)):
        file.write_bytes(archive[:cut])
        with pytest.raises(VerificationFailed):
            read(client_of(build), file, in_process=True)
