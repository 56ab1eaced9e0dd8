"""Dumps of databases whose locale no server here has, such as one of Windows."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from restoring import restored

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.rehearsal.restore_archive import NOT_CREATED
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

DVDRENTAL = Path(__file__).parents[3].parent / "shared" / "data" / "dvdrental.tar"
WINDOWS = "English_United States.1252"
NOTE = f"restored with locale C in place of {WINDOWS}, which the server lacks: text may sort differently"
FILM = (
    "create table film (film_id int primary key, title text unique)",
    "insert into film select n, 'film ' || n from generate_series(1, 100) n",
)
ORDER = (
    "create table word (a text, b text check (a < b))",
    "insert into word values ('a', 'b')",
)


def altered(dump: bytes, old: bytes, new: bytes) -> bytes:
    assert old in dump
    return dump.replace(old, new)


def of_windows(dumped: bytes) -> bytes:
    """Return a dump whose databases have another locale."""

    def replaced(match: re.Match[bytes]) -> bytes:
        size, create = match[1], match[2]
        new = re.sub(rb"LOCALE = '\w+'", b"LC_COLLATE = '%b' LC_CTYPE = '%b'" % ((WINDOWS.encode(),) * 2), create)
        assert new != create
        if dumped.startswith(b"PGDMP"):
            size = (int.from_bytes(size, "little") + len(new) - len(create)).to_bytes(4, "little")
        return size + new

    return re.sub(rb"(.{4})(CREATE DATABASE [^;]*;)", replaced, dumped, flags=re.DOTALL)


def dumped(tool: str, connection: ConnectionParams, *options: str) -> bytes:
    with client_environment(connection) as env:  # into a pipe, so that an archive has no offsets
        argv = [postgres_bin_dir(18) / tool, "--no-password", *options]
        return subprocess.run(argv, env=env, check=True, capture_output=True).stdout


def adopted(dump: bytes, repository: Repository, folder: Path) -> dict[str, object]:
    path = folder / "windows.dump"
    path.write_bytes(dump)
    done: Any = adopt(repository=repository, sources=[path], server="old", database="windows")
    return dict(done["adopted"][0])


def report(repository: Repository) -> dict[str, Any]:
    (key,) = [entry.key for entry in repository.list() if "-restore-" in entry.key]
    return dict(json.loads(repository.read_bytes(key)))


def details(found: dict[str, Any]) -> str:
    return "\n".join(check["detail"] for check in found["checks"])


@pytest.mark.parametrize("options", [("--format=custom",), ("--create",)], ids=["custom", "plain"])
def test_the_copy_of_a_database_has_locale_c(
    options: tuple[str, ...],
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, *FILM)
    with server18.params.connect() as session:
        session.execute(f"alter database {database.dbname} set statement_timeout = '1h'".encode())
    reference = adopted(of_windows(dumped("pg_dump", database, *options)), here, tmp_path)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
    found = report(here)
    assert NOTE in details(found)
    assert (NOT_CREATED in details(found)) == (options == ("--format=custom",))
    assert [table["rows"] for table in found["tables"]] == [100]


def test_the_databases_of_a_cluster(here: Repository, tmp_path: Path) -> None:
    with PostgresServer(postgres_bin_dir(18)) as server:
        with server.params.connect() as session:
            session.execute('create database "Sorted by Windows" template template0 locale "C"')
        with server.params.with_database("Sorted by Windows").connect() as session:
            for statement in FILM:
                session.execute(statement.encode())
        dump = dumped("pg_dumpall", server.params)
    reference = adopted(of_windows(dump), here, tmp_path)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
    assert NOTE in details(report(here))


def test_what_depends_on_the_order_of_text(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    dump = dumped("pg_dump", fresh_database(server18, None, *ORDER), "--create", "--inserts")
    windows = altered(of_windows(dump), b"('a', 'b')", b"('a', 'B')")  # in order there, but not in locale C
    with pytest.raises(NotProven, match=r"lacks the locale .* violates check constraint"):
        verify(reference=adopted(windows, here, tmp_path), repository=here, level="restore")


def test_what_functions_make_of_text(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    """In Turkish, I and i are two letters."""
    index = "create unique index word_lower on word (lower(word))"
    database = fresh_database(server18, None, "create table word (word text)", index)
    dump = of_windows(dumped("pg_dump", database, "--create"))
    rows = altered(dump, b"FROM stdin;\n", b"FROM stdin;\nI\ni\n")
    with pytest.raises(NotProven, match=r"lacks the locale .* could not create unique index"):
        verify(reference=adopted(rows, here, tmp_path), repository=here, level="restore")


def test_money_that_is_read_too_large(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    """As where a comma separates thousands, not cents."""
    table = "create table film (price money check (price < 5::money))"
    dump = dumped("pg_dump", fresh_database(server18, None, table, "insert into film values ('1.23')"), "--create")
    with pytest.raises(NotProven, match="type money differently from the source"):
        verify(reference=adopted(altered(dump, b"$1.23", b"$1,23"), here, tmp_path), repository=here, level="restore")


def test_a_new_database_of_another_locale(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    database = fresh_database(server18, None, *FILM)
    dump = of_windows(dumped("pg_dump", database, "--format=custom"))
    with server18.params.connect() as session:
        session.execute(f"drop database {database.dbname}".encode())
    result = restored(adopted(dump, here, tmp_path), here, database, mode="create", options={"no_owner": True})
    (warning,) = [line for line in result["warnings"] if "locale" in line]
    assert WINDOWS in warning
    assert "create the database with it" in warning


@pytest.mark.parametrize("archive", [path for path in [DVDRENTAL] if path.exists()])
def test_the_real_dvdrental(archive: Path, here: Repository) -> None:
    """pg_dump 9.2 made it on Windows, and named constraints and privileges otherwise."""
    done: Any = adopt(repository=here, sources=[archive], server="old")
    verify(reference=done["adopted"][0], repository=here, level="restore")
    found = report(here)
    assert (found["result"], found["differences"]) == ("pass", [])
    assert NOTE in details(found)
    assert sum(table["rows"] for table in found["tables"]) == 44_820
