"""Read what the real tools write: an archive has the same tables, rows and digests as its database."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard
from psycopg import sql

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import Canceled, ClientError, ConfigurationError, DeadlineExceeded, VerificationFailed
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.archive.row_digests import RowHasher
from airflow_pgbackup.postgres.archive.toc import concerns_data
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.sql.insert_rows import check_inserts
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import Cancel, run_tool

DEADLINE = 600.0
FOOL = "COPY public.film (film_id, title) FROM stdin;\n1\tx\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n"

STATEMENTS = (
    "create table film (film_id int primary key, title text, note text)",
    "insert into film select n, 'film ' || n, case when n % 7 = 0 then E'tab\\there\\nand a line\\\\.' end"
    "  from generate_series(1, 2000) n",
    # Names, texts, comments and function bodies that look like COPY data or a trailer
    'create schema "we.ird ""s"',
    'create table "we.ird ""s"."COPY x FROM stdin;\n\\." ("from stdin" text, "a, b" text, "(é" int default 1)',
    'insert into "we.ird ""s"."COPY x FROM stdin;\n\\." '
    f"values ('{FOOL}', E'\\\\.'), ('', E'\\\\'), (null, E'\\r\\n')",
    f"comment on table film is '{FOOL}'",
    f"create function fool() returns text language sql as $f$ select '{FOOL}' $f$",
    f"create function fool_more() returns text language plpgsql as $$ begin /*\n{FOOL}\n*/ end $$",
    "create function \"Begin\"(x int) returns int language sql as 'select 1; select 2;'",
    f"create function atomic(x int) returns text begin atomic;\n select case when x > 1 then 'a;' else 'b' end;"
    f" select E'{FOOL.encode('unicode_escape').decode()}'; end",
    "create table rules (a int check (a < 10 or a > 20), b text default 'x;\n\\.')",
    "create rule r as on insert to rules do also (notify a; notify b)",
    # Shapes
    "create table no_columns ()",
    "insert into no_columns select from generate_series(1, 3)",
    "create table empty (a int)",
    "create table generated (id int generated always as identity, twice int generated always as (a * 2) stored, a int)",
    "insert into generated (a) select n from generate_series(1, 50) n",
    "create table wide (body text)",
    "insert into wide values (repeat('long row ', 600000)), ('short')",
    "create table part (a int, b text) partition by range (a)",
    "create table part_1 partition of part for values from (0) to (100)",
    "create table part_2 (b text, a int)",
    "alter table part attach partition part_2 for values from (100) to (200)",
    "insert into part select n, 'row ' || n from generate_series(0, 199) n",
    "create materialized view seen as select * from film",
    # Sequences and large objects
    """create sequence "we.ird ""s"."it's" """,
    """select setval('"we.ird ""s"."it''s"', 42)""",
    "create sequence unused start 7",
    "create sequence down increment -1",
    "select nextval('down')",
    "select lo_from_bytea(4711, 'a large object')",
    "select lo_from_bytea(4712, '')",
    "select lo_from_bytea(4713, convert_to(repeat('quote '' and \\ ', 5000), 'UTF8'))",
)

FORMATS: list[tuple[str, tuple[str, ...], str | None]] = [
    ("custom", (), None),
    ("custom", ("--compress=0",), None),
    ("tar", (), None),
    ("directory", ("--jobs=2",), None),
    ("directory", ("--compress=0",), None),
    ("plain", (), None),
    ("plain", ("--create", "--clean", "--if-exists", "--quote-all-identifiers"), None),
    ("plain", (), "gzip"),
    ("plain", (), "zstd"),
]
FORMAT_IDS = ["-".join(filter(None, (name, *(o.strip("-") for o in options), by))) for name, options, by in FORMATS]


@pytest.fixture(scope="module")
def clients(client_dirs: list[str]) -> list[Client]:
    """All clients, newest first."""
    return [client for client in find_clients(client_dirs) if client.has("pg_dump", "pg_dumpall", "pg_restore")]


def client_of(clients: list[Client], server: PostgresServer) -> Client:
    return next(client for client in clients if client.bin_dir == postgres_bin_dir(server.major).resolve())


@pytest.fixture(scope="module", params=["server16", "server18"])
def source(request: pytest.FixtureRequest, clients: list[Client]) -> Iterator[tuple[ConnectionParams, Client]]:
    """A database with objects of many kinds, and the client of the same version."""
    server: PostgresServer = request.getfixturevalue(request.param)
    with server.params.connect() as connection:
        connection.execute("create database archive_source template template0")
    params = server.params.with_database("archive_source")
    with params.connect() as connection:
        for statement in STATEMENTS:
            connection.execute(statement.encode())
    yield params, client_of(clients, server)
    with server.params.connect() as connection:
        connection.execute("drop database archive_source with (force)")


def run(client: Client, tool: str, params: ConnectionParams, *options: str) -> bytes:
    with client_environment(params) as env:
        return run_tool([client.tool(tool), "--no-password", *options], env=env, deadline=DEADLINE, limit=1 << 28)


def dump(
    client: Client, params: ConnectionParams, path: Path, format: str, *options: str, by: str | None = None
) -> Path:
    output = run(client, "pg_dump", params, f"--format={format}", *options, f"--file={path}")
    assert output == b""
    if by == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif by == "zstd":
        path.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    return path


def read(source: Any, format: str, client: Client, **how: Any) -> ArchiveSummary:
    return ArchiveReader(source, format=format, client=client, deadline=DEADLINE, **how).digest()


def connected(params: ConnectionParams) -> psycopg.Connection[tuple[Any, ...]]:
    connection = params.connect()
    connection.execute("set search_path = ''; set bytea_output = hex; set timezone = utc; set extra_float_digits = 3")
    return connection


def copied(connection: psycopg.Connection[tuple[Any, ...]], schema: str, name: str, columns: tuple[str, ...]) -> bytes:
    names = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if columns else sql.SQL("")
    with connection.cursor().copy(sql.SQL("copy {} {} to stdout").format(sql.Identifier(schema, name), names)) as copy:
        return b"".join(map(bytes, copy))


def database_tables(params: ConnectionParams) -> dict[tuple[str, str], tuple[tuple[str, ...], int, str]]:
    """Schema and name to columns, rows and sha256."""
    found = {}
    with connected(params) as connection:
        tables = connection.execute(
            "select n.nspname, c.relname, array(select a.attname::text from pg_catalog.pg_attribute a"
            "  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''"
            "  order by a.attnum)"
            " from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)'"
        ).fetchall()
        for schema, name, columns in tables:
            data = copied(connection, schema, name, tuple(columns))
            found[schema, name] = (tuple(columns), data.count(b"\n"), hashlib.sha256(data).hexdigest())
    return found


def database_sequences(params: ConnectionParams) -> set[tuple[str, str, int, bool]]:
    with connected(params) as connection:
        names = connection.execute("select schemaname, sequencename from pg_catalog.pg_sequences").fetchall()
        query = "select {}, {}, last_value, is_called from {}"
        return {
            connection.execute(sql.SQL(query).format(schema, name, sql.Identifier(schema, name))).fetchone()  # type: ignore[misc]
            for schema, name in names
        }


def database_large_objects(params: ConnectionParams) -> list[tuple[int, int, str]]:
    with connected(params) as connection:
        rows = connection.execute(
            "select oid, lo_get(oid) from pg_catalog.pg_largeobject_metadata order by 1"
        ).fetchall()
    return [(oid, len(data), hashlib.sha256(data).hexdigest()[:32]) for oid, data in rows]


def assert_same(summary: ArchiveSummary, params: ConnectionParams, database: str | None = None) -> None:
    tables = {(t.schema, t.name): (t.columns, t.rows, t.sha256) for t in summary.tables if t.database == database}
    assert tables == database_tables(params)
    sequences = {(s.schema, s.name, s.last_value, s.is_called) for s in summary.sequences if s.database == database}
    assert sequences == database_sequences(params)
    objects = [entry for group in summary.large_objects if group.database == database for entry in group]
    assert objects == database_large_objects(params)


@pytest.mark.parametrize(("format", "options", "by"), FORMATS, ids=FORMAT_IDS)
def test_an_archive_has_what_the_database_has(
    source: tuple[ConnectionParams, Client], tmp_path: Path, format: str, options: tuple[str, ...], by: str | None
) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", format, *options, by=by)
    summary = read(path, format, client, compression=by)
    assert_same(summary, params)
    assert all(table.comparable == "copy" and table.blocks == 1 for table in summary.tables)
    assert (summary.server_version or "").startswith(client.version_text)
    assert not summary.cluster
    if format == "plain":
        assert summary.databases == (["archive_source"] if "--create" in options else [])
    else:
        entries = read_archive_toc(path, format, lambda: None).entries
        assert ('we.ird "s', "COPY x FROM stdin;\n\\.", "TABLE") in {(e.schema, e.name, e.kind) for e in entries}
        kept = read_archive_toc(path, format, lambda: None, keep=concerns_data).entries
        assert {entry.kind for entry in entries} >= {"TABLE", "TABLE DATA", "SEQUENCE SET", "CONSTRAINT"}
        assert {entry.kind for entry in kept}.isdisjoint({"TABLE", "CONSTRAINT"})
        assert [e for e in kept if e.has_data] == [e for e in entries if e.has_data]


def test_a_data_offset_that_pg_restore_refuses_is_refused(
    source: tuple[ConnectionParams, Client], tmp_path: Path
) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", "custom")
    data = path.read_bytes()
    no_more_dependencies, no_data = b"\1\1\0\0\0", b"\3" + bytes(8)
    forged = data.replace(no_more_dependencies + no_data, no_more_dependencies + b"\x3a" + bytes(8), 1)
    assert forged != data
    path.write_bytes(forged)
    with pytest.raises(VerificationFailed, match="unexpected data offset flag 58"):
        read(path, "custom", client)


@pytest.mark.parametrize(("format", "by"), [("custom", None), ("plain", None), ("plain", "gzip"), ("plain", "zstd")])
def test_a_stream_is_read_like_a_file(
    source: tuple[ConnectionParams, Client], tmp_path: Path, format: str, by: str | None
) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", format, by=by)
    with path.open("rb") as stream:
        summary = read(stream, format, client, compression=by)
    assert summary == read(path, format, client, compression=by)
    assert_same(summary, params)


def test_tar_and_directories_cannot_be_streams(source: tuple[ConnectionParams, Client], tmp_path: Path) -> None:
    path = dump(source[1], source[0], tmp_path / "dump", "tar")
    with path.open("rb") as stream, pytest.raises(ConfigurationError, match="tar format cannot be read from a stream"):
        read(stream, "tar", source[1])


def check_script(client: Client, path: Path, *, standard_strings: bool) -> None:
    """Check the rows of an archive with INSERT statements, as a restore does."""
    tool = str(client.tool("pg_restore"))
    listed = run_tool([tool, "--list", str(path)], env={}, limit=1 << 24).splitlines(keepends=True)
    use_list = path.parent / "rows.list"
    use_list.write_bytes(b"".join(line for line in listed if b" TABLE DATA " in line))
    script = run_tool([tool, "--file=-", f"--use-list={use_list}", str(path)], env={}, limit=1 << 28)
    assert b"INSERT INTO" in script
    check_inserts(io.BytesIO(script), standard_strings=standard_strings)


@pytest.mark.every_value
@pytest.mark.parametrize(
    "options",
    [
        ("--inserts",),
        ("--column-inserts",),
        ("--inserts", "--rows-per-insert=7"),
        ("--inserts", "--on-conflict-do-nothing"),
    ],
    ids=lambda options: "-".join(option.strip("-") for option in options),
)
@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_inserts_are_counted_and_reported_as_not_comparable(
    source: tuple[ConnectionParams, Client], tmp_path: Path, format: str, options: tuple[str, ...]
) -> None:
    params, client = source
    summary = read(dump(client, params, tmp_path / "dump", format, *options), format, client)
    rows = {key: rows for key, (_, rows, _) in database_tables(params).items()}
    if format == "plain":  # which has no trace of the data of an empty table
        rows = {key: count for key, count in rows.items() if count}
    assert {(table.schema, table.name): table.rows for table in summary.tables} == rows
    assert {(table.sha256, table.comparable, table.blocks) for table in summary.tables} == {(None, "inserts", 0)}
    if format != "plain":
        check_script(client, tmp_path / "dump", standard_strings=True)


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_partitions_loaded_through_their_root_are_blocks_of_one_table(
    source: tuple[ConnectionParams, Client], tmp_path: Path, format: str
) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", format, "--load-via-partition-root", "--table=part*")
    (table,) = read(path, format, client).tables
    assert (table.schema, table.name, table.rows, table.blocks) == ("public", "part", 200, 2)
    inserts = dump(
        client, params, tmp_path / "inserts", format, "--load-via-partition-root", "--inserts", "--table=part*"
    )
    (table,) = read(inserts, format, client).tables
    assert (table.schema, table.name, table.rows) == ("public", "part", 200)


def test_rows_as_sets_do_not_depend_on_their_order(source: tuple[ConnectionParams, Client], tmp_path: Path) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", "custom")
    keys = [(None, "public", "film"), (None, "public", "wide")]
    found = ArchiveReader(path, format="custom", client=client, deadline=DEADLINE).row_sets(keys)
    with connected(params) as connection:
        for key in keys:
            rows = copied(connection, str(key[1]), str(key[2]), ()).splitlines(keepends=True)
            backwards, doubled = RowHasher(), RowHasher()
            for row in reversed(rows):
                backwards.update(row)
            doubled.update(b"".join([*rows[1:], rows[-1]]))
            assert backwards.finish() == found[key]
            assert doubled.finish() != found[key]
            assert doubled.finish().rows == found[key].rows


def test_blocks_that_are_not_read_are_skipped(source: tuple[ConnectionParams, Client], tmp_path: Path) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", "custom")
    reader = ArchiveReader(path, format="custom", client=client, deadline=DEADLINE)
    names = {(block.schema, block.name) for block in reader.blocks()}
    assert names == set(database_tables(params))
    assert reader.summary.large_objects[0].count == 3


@pytest.mark.parametrize(
    "mode", [(), ("--schema-only",), ("--globals-only",), ("--roles-only",), ("--tablespaces-only",)]
)
def test_every_mode_of_pg_dumpall_is_read_to_its_end(
    source: tuple[ConnectionParams, Client],
    fresh_database: Callable[..., ConnectionParams],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mode: tuple[str, ...],
) -> None:
    params, client = source
    server: PostgresServer = request.getfixturevalue(f"server{client.major}")
    strange = "host=evil dbname=\"x\\y'z"
    other = fresh_database(server, strange, "create table t (a int)", "insert into t values (1), (2)")
    path = tmp_path / "all.sql"
    path.write_bytes(run(client, "pg_dumpall", params, "--no-role-passwords", *mode))
    summary = read(path, "plain", client)
    assert summary.cluster
    if mode and mode != ("--schema-only",):
        assert (summary.databases, summary.tables) == ([], [])
    else:
        assert {"template1", "postgres", "archive_source", strange} <= set(summary.databases)
    if mode:
        assert summary.tables == summary.sequences == summary.large_objects == []
    else:
        assert_same(summary, params, "archive_source")
        assert_same(summary, other, strange)
    complete = path.read_bytes()
    for cut in (0, 1, len(complete) // 2, len(complete) - 1):
        path.write_bytes(complete[:cut])
        with pytest.raises(VerificationFailed):
            read(path, "plain", client)


@pytest.mark.parametrize("format", ["custom", "directory", "tar", "plain"])
@pytest.mark.parametrize("options", [("--schema-only",), ("--section=pre-data",), ("--section=post-data",)])
def test_an_archive_of_definitions_only_is_complete(
    source: tuple[ConnectionParams, Client], tmp_path: Path, format: str, options: tuple[str, ...]
) -> None:
    params, client = source
    summary = read(dump(client, params, tmp_path / "dump", format, *options), format, client)
    assert summary.tables == summary.large_objects == []


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_names_come_back_from_other_encodings_and_string_modes(
    fresh_database: Callable[..., ConnectionParams],
    request: pytest.FixtureRequest,
    clients: list[Client],
    tmp_path: Path,
    format: str,
) -> None:
    for major in (16, 18):
        server: PostgresServer = request.getfixturevalue(f"server{major}")
        params = fresh_database(
            server,
            f"old_{format}",
            f"alter database old_{format} set standard_conforming_strings = off",
            """create table "größe\\" ("naïve\\'" text default E'a\\\\'';b')""",
            """insert into "größe\\" values (E'x\\\\y''z;')""",
            """create sequence "é\\'" """,
            "select lo_from_bytea(1, E'\\\\xdeadbeef')",
        )
        client = client_of(clients, server)
        for encoding in ("LATIN1", "UTF8", "WIN1252"):
            for options in ((), ("--inserts",)):
                path = dump(client, params, tmp_path / "dump", format, f"--encoding={encoding}", *options)
                summary = read(path, format, client)
                (table,) = summary.tables
                assert (table.schema, table.name, table.rows) == ("public", "größe\\", 1)
                assert table.columns == (None if options else ("naïve\\'",))
                assert [(value.schema, value.name) for value in summary.sequences] == [("public", "é\\'")]
                assert list(summary.large_objects[0]) == database_large_objects(params)
                if options and format != "plain":
                    check_script(client, path, standard_strings=False)


def test_archives_of_every_client_are_read_by_every_client_that_supports_them(
    source: tuple[ConnectionParams, Client], clients: list[Client], tmp_path: Path
) -> None:
    params, own = source
    with params.connect() as connection:
        server_major = connection.info.server_version // 10000
    expected = read(dump(own, params, tmp_path / "own", "custom"), "custom", own).tables
    for number, writer in enumerate(client for client in clients if client.major >= server_major):
        methods = {method for method in writer.compression_methods if writer.major >= 16 or method == "gzip"}
        for format in ("custom", "directory"):
            for method in sorted(methods) if writer.major >= 16 else ["6"]:
                path = dump(writer, params, tmp_path / f"{number}-{format}-{method}", format, f"--compress={method}")
                for reader in clients:
                    too_old = reader.major < writer.major and {reader.major, writer.major} != {17, 18}
                    if too_old or (method in ("zstd", "lz4") and method not in reader.compression_methods):
                        with pytest.raises(ClientError):
                            read(path, format, reader)
                    else:
                        assert read(path, format, reader).tables == expected


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (6, 99, "does not know archive version 1.99"),
        (11, 3, "was built without zstd"),
    ],
)
def test_an_archive_that_the_client_does_not_support_is_a_client_error(
    source: tuple[ConnectionParams, Client], tmp_path: Path, position: int, value: int, message: str
) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", "custom")
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(content)
    with pytest.raises(ClientError, match=message):
        read(path, "custom", client)


@pytest.mark.parametrize("options", [(), ("--compress=0",), ("--inserts",)], ids=["gzip", "none", "inserts"])
def test_an_emptied_member_of_a_directory_is_detected(
    source: tuple[ConnectionParams, Client], tmp_path: Path, options: tuple[str, ...]
) -> None:
    params, client = source
    path = dump(client, params, tmp_path / "dump", "directory", *options)
    members = sorted(path.glob("[0-9]*.dat*"))
    assert len(members) == len(database_tables(params))
    for member in members:
        complete = member.read_bytes()
        for emptied in (b"", gzip.compress(b"") if member.suffix == ".gz" else b"\n"):
            member.write_bytes(emptied)
            with pytest.raises(VerificationFailed, match=member.name):
                read(path, "directory", client)
        member.write_bytes(complete)
    read(path, "directory", client)
    for name in ("toc.dat", members[0].name):
        copy = tmp_path / name
        shutil.copytree(path, copy)
        (copy / name).unlink()
        with pytest.raises(VerificationFailed, match="the directory lacks"):
            read(copy, "directory", client)


def test_a_file_that_is_not_an_archive_fails(source: tuple[ConnectionParams, Client], tmp_path: Path) -> None:
    path = tmp_path / "dump"
    for content in (b"", b"P", b"not an archive" * 100):
        path.write_bytes(content)
        for format in ("custom", "tar", "plain"):
            with pytest.raises(VerificationFailed):
                read(path, format, source[1])


def test_deadline_and_cancellation_say_nothing_about_the_archive(
    source: tuple[ConnectionParams, Client], tmp_path: Path
) -> None:
    params, client = source
    canceled = Cancel()
    canceled.set()
    for format in ("custom", "directory", "tar", "plain"):
        path = dump(client, params, tmp_path / format, format)
        with pytest.raises(DeadlineExceeded):
            ArchiveReader(path, format=format, client=client, deadline=1e-6).digest()
        with pytest.raises(Canceled):
            read(path, format, client, cancel=canceled)


def test_progress_ends_at_the_size_of_the_script(source: tuple[ConnectionParams, Client], tmp_path: Path) -> None:
    params, client = source
    for format in ("custom", "plain"):
        steps: list[int] = []
        summary = read(dump(client, params, tmp_path / format, format), format, client, progress=steps.append)
        assert steps == sorted(steps)
        assert steps[-1] == summary.bytes
        assert summary.rows == sum(rows for _, rows, _ in database_tables(params).values())
