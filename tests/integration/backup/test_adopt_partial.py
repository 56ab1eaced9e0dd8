"""Dumps of a part of a database, and files with several dumps: neither becomes the newest backup of the database."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.local.repository import LocalRepository

TABLES = (
    "create table film (id int primary key, title text)",
    "create table empty (a int)",
    "create table sold (day date, amount int) partition by range (day)",
    # What looks like parts of a dump in a row is data.
    r"insert into film values (1, E'-- PostgreSQL database dump complete'), (2, '-- PostgreSQL database dump')",
    "create table lines (line text)",
    "insert into lines values ('--'), ('-- PostgreSQL database dump complete'), ('--')",
    "insert into lines values ('-- PostgreSQL database dump'), ('--')",
)


@pytest.fixture(scope="module")
def crm(server18: PostgresServer) -> ConnectionParams:
    database = server18.params.with_database("crm_of_parts")
    with server18.params.connect() as session:
        session.execute("create database crm_of_parts template template0")
    with database.connect() as session:
        for statement in TABLES:
            session.execute(statement.encode())
    return database


@pytest.fixture
def dump(server18: PostgresServer, crm: ConnectionParams) -> Callable[..., bytes]:
    def dumped(*options: str, tool: str = "pg_dump") -> bytes:
        with client_environment(crm) as env:
            command: list[str | Path] = [server18.bin_dir / tool, "-w", *options]
            return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout

    return dumped


def adopted(repository: LocalRepository, directory: Path, **files: bytes) -> Any:
    directory.mkdir(exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return adopt(repository=repository, sources=[directory], server="s", dry_run=True)


@pytest.mark.parametrize("format", ["plain", "custom"])
def test_a_dump_of_a_part_is_skipped(
    format: str, repository: LocalRepository, tmp_path: Path, dump: Callable[..., bytes]
) -> None:
    in_format = f"--format={format}"
    parts = {
        "schema": ("--schema-only", "it has no data of its 3 tables, as with --schema-only"),
        "pre": ("--section=pre-data", "it has no data of its 3 tables"),
        "data": ("--data-only", "it has data without the definitions of the tables"),
        "statistics": ("--statistics-only", "it has statistics without their tables"),
        "post": ("--section=post-data", "it has indexes or constraints without their tables"),
    }
    files = {name: dump(in_format, option) for name, (option, _) in parts.items()}
    result = adopted(repository, tmp_path / "dumps", crm=dump(in_format, "--create"), **files)
    assert [one["path"] for one in result["found"]] == ["crm"]
    reasons = {one["path"]: one["reason"] for one in result["skipped"]}
    for name, (_, reason) in parts.items():
        assert f"not a complete dump: {reason}" in reasons[name]


def test_what_has_no_rows_is_complete(repository: LocalRepository, tmp_path: Path, dump: Callable[..., bytes]) -> None:
    files = {
        "empty_table": dump("--table=empty"),
        "partitioned": dump("--table=sold"),
        "nothing": dump("--schema=pg_toast", "--create"),
        "inserted": dump("--inserts"),
    }
    result = adopted(repository, tmp_path / "dumps", **files)
    assert sorted(one["path"] for one in result["found"]) == sorted(files)
    archive = dump("--table=sold", "--format=custom")
    assert len(adopted(repository, tmp_path / "archives", sold=archive)["found"]) == 1


def test_a_cluster_of_a_part_is_skipped(
    repository: LocalRepository, tmp_path: Path, dump: Callable[..., bytes]
) -> None:
    files = {
        "schema": dump("--schema-only", tool="pg_dumpall"),
        "globals_crlf": dump("--globals-only", tool="pg_dumpall").replace(b"\n", b"\r\n"),
    }
    result = adopted(repository, tmp_path / "dumps", **files)
    assert {one["path"]: one["series"] for one in result["found"]} == {"globals_crlf": "s/@globals"}
    assert "as with --schema-only" in result["skipped"][0]["reason"]


def test_several_dumps_in_one_file_are_skipped(
    repository: LocalRepository, tmp_path: Path, dump: Callable[..., bytes]
) -> None:
    one, roles = dump("--create"), dump("--globals-only", tool="pg_dumpall")
    result = adopted(
        repository, tmp_path / "dumps", twice=one * 2, roles_first=roles + one, roles_last=one + roles, alone=one
    )
    assert [each["path"] for each in result["found"]] == ["alone"]
    assert {each["path"] for each in result["skipped"]} == {"twice", "roles_first", "roles_last"}
    for each in result["skipped"]:
        assert "several dumps, one after another, in one file" in each["reason"]
        assert "HINT: Split it" in each["reason"]


@pytest.mark.parametrize("level", ["archive", "restore"])
def test_what_follows_the_dump_is_no_fault_of_it(
    level: str, repository: LocalRepository, tmp_path: Path, dump: Callable[..., bytes]
) -> None:
    source = tmp_path / "crm.sql"
    source.write_bytes(dump() + b"ANALYZE;\n")
    done: Any = adopt(repository=repository, sources=[source], server="s")
    (reference,) = done["adopted"]
    with pytest.raises(NotProven, match="the script continues after the trailer of the dump"):
        verify(reference=reference, repository=repository, level=level)


def test_a_script_with_a_byte_order_mark_is_verified_and_restored(
    repository: LocalRepository,
    tmp_path: Path,
    dump: Callable[..., bytes],
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    source = tmp_path / "crm.sql"
    source.write_bytes(b"\xef\xbb\xbf" + dump())
    done: Any = adopt(repository=repository, sources=[source], server="s")
    (reference,) = done["adopted"]
    assert verify(reference=reference, repository=repository, level="archive")["verified"] == "archive"
    target = fresh_database(server18)
    restore(reference=reference, repository=repository, target=RestoreTarget(connection=target))
    with target.connect() as session:
        assert session.execute("select count(*) from film").fetchone() == (2,)
