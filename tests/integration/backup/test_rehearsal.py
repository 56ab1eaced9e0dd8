"""Level ``restore``: the copy equals the dump, for a small database, one with unusual objects, and a real one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torture
from builds import BUILDS, Build, each
from psycopg import sql

from airflow_pgbackup.backup import verification_run
from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.rehearsal.restore_archive import NOT_CREATED
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools import clients
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

SMALL = (
    "create table film (film_id int primary key, title text not null)",
    "insert into film select n, 'film ' || n from generate_series(1, 3000) n",
    "create table actor (actor_id serial primary key, name text)",
    "insert into actor (name) select 'actor ' || n from generate_series(1, 500) n",
    "create view films as select title from film",
    "select lo_from_bytea(4711, 'a large object')",
)
TORTURE = "to'rture \"db"
FORMATS: dict[str, dict[str, Any]] = {
    "custom": {"format": "custom"},
    "tar": {"format": "tar"},
    "directory": {"format": "directory", "jobs": 2},
    "plain": {"format": "plain"},
    "plain with create": {"format": "plain", "create": True},
}
# Options after which the copy is not simply the same.
VARIANTS: dict[str, dict[str, Any]] = {
    "through the partition root": {"load_via_partition_root": True},
    "through the partition root, plain": {"load_via_partition_root": True, "format": "plain"},
    "quoted": {"quote_all_identifiers": True},
    "without owners and rights": {"no_owner": True, "no_privileges": True, "no_comments": True},
    "without unlogged data": {"no_unlogged_table_data": True},
    "without some data": {"exclude_table_data": ["t.values_*", "t.mat*"]},
    "definitions only": {"schema_only": True},
    "definitions and sequence values": {"schema_only": True, "sequence_data": True},
    "no data": {"no_data": True},
    "no section of data": {"sections": ["pre-data", "post-data"]},
    "clean and create": {"format": "plain", "create": True, "clean": True, "if_exists": True, "compress": "gzip"},
}
DVDRENTAL = Path(__file__).parents[3].parent / "shared" / "data" / "dvdrental.tar"


@pytest.fixture(scope="module")
def tortured() -> Iterator[Callable[[int], PostgresServer]]:
    """A server of a major version with the torture database and the small one, made when first asked for."""
    servers: dict[int, PostgresServer] = {}
    with ExitStack() as stack:

        def get(major: int) -> PostgresServer:
            if major not in servers:
                settings = {"allow_in_place_tablespaces": "on"}
                server = stack.enter_context(PostgresServer(postgres_bin_dir(major), settings=settings))
                torture.roles_and_tablespaces(server.params)
                with server.params.connect() as session:
                    for name in (TORTURE, "small"):
                        create = sql.SQL("create database {} template template0").format(sql.Identifier(name))
                        session.execute(create)
                torture.build(server.params.with_database(TORTURE))
                with server.params.with_database("small").connect() as session:
                    for statement in SMALL:
                        session.execute(statement)
                servers[major] = server
            return servers[major]

        yield get


def dump(connection: ConnectionParams, repository: Repository, **options: Any) -> dict[str, object]:
    return dump_database(connection=connection, server="test", repository=repository, options=DumpOptions(**options))


def result_of(repository: Repository, result: str = "pass") -> dict[str, Any]:
    """The one verification at level restore, from its file."""
    (key,) = [entry.key for entry in repository.list() if "-restore-" in entry.key]
    found: dict[str, Any] = json.loads(repository.read_bytes(key))
    assert found["result"] == result
    return found


def proven(reference: dict[str, object], repository: Repository) -> dict[str, Any]:
    assert verify(reference=reference, repository=repository, level="restore")["verified"] == "restore"
    found = result_of(repository)
    assert found["differences"] == []
    assert found["restore_seconds"] > 0
    return found


def compared(found: dict[str, Any]) -> set[str]:
    return {table["result"] for table in found["tables"]}


@pytest.mark.every_value
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("database", [TORTURE, "small"])
@pytest.mark.parametrize("major", [16, 18])
def test_the_restored_rows_are_the_dumped_ones(
    major: int, database: str, format: str, tortured: Callable[[int], PostgresServer], here: Repository
) -> None:
    connection = tortured(major).params.with_database(database)
    found = proven(dump(connection, here, **FORMATS[format]), here)
    assert compared(found) == {"same"}
    assert f"restored into PostgreSQL {major}." in found["checks"][-1]["detail"]
    assert len(found["tables"]) == (2 if database == "small" else {16: 105, 18: 107}[major])


def test_a_plain_dump_that_creates_its_database_and_schema_public(
    tortured: Callable[[int], PostgresServer], here: Repository
) -> None:
    connection = tortured(18).params.with_database("small")
    found = proven(dump(connection, here, format="plain", create=True, schemas=["public"]), here)
    assert compared(found) == {"same"}


def test_a_worker_with_many_open_files(server18: PostgresServer, here: Repository) -> None:
    """select() takes no descriptor above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
    opened: list[int] = []
    try:
        while not opened or opened[-1] < 1100:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        proven(dump(server18.params, here), here)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_that_change_the_dump(
    variant: str, tortured: Callable[[int], PostgresServer], here: Repository
) -> None:
    connection = tortured(18).params.with_database(TORTURE)
    found = proven(dump(connection, here, **VARIANTS[variant]), here)
    reordered = [table["name"] for table in found["tables"] if table["result"] != "same"]
    # Its blocks come in any order, and each in its partition's order of columns.
    assert reordered == (["measured"] if "root" in variant else [])


def test_inserts_are_counted(tortured: Callable[[int], PostgresServer], here: Repository) -> None:
    found = proven(dump(tortured(18).params.with_database(TORTURE), here, inserts=True), here)
    assert compared(found) == {"notcompared"}
    notes = [check["detail"] for check in found["checks"] if check["name"] == "note"]
    assert "t.hen: dumped as INSERT: rows counted, values not compared" in notes


@pytest.mark.every_value
@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize(
    "options", [{}, {"globals_only": True}, {"clean": True, "if_exists": True}], ids=["all", "globals", "clean"]
)
def test_a_cluster(
    major: int, options: dict[str, Any], tortured: Callable[[int], PostgresServer], here: Repository
) -> None:
    reference = dump_cluster(
        connection=tortured(major).params, server="test", repository=here, options=DumpAllOptions(**options)
    )
    found = proven(reference, here)
    databases = {table["database"] for table in found["tables"]}
    assert databases == (set() if options.get("globals_only") else {TORTURE, "small"})


def test_a_cluster_that_drops_its_databases_first(here: Repository) -> None:
    """Between two databases the script drops the next one, which is no part of the last object of the one before: that
    is a table's data in the dump, and the table in the dump of its restore, which has no data."""
    with PostgresServer(postgres_bin_dir(18)) as server:
        with server.params.connect() as session:
            session.execute("create database film")
        with server.params.with_database("film").connect() as session:
            session.execute("create table film as select 1 as film_id")
        options = DumpAllOptions(clean=True, if_exists=True)
        proven(dump_cluster(connection=server.params, server="test", repository=here, options=options), here)


@pytest.fixture
def only_18(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has nothing but the programs of PostgreSQL 18."""
    monkeypatch.setattr(clients, "_directories", lambda *_: iter([(postgres_bin_dir(18), clients.EMBEDDED)]))


@pytest.mark.parametrize("format", ["custom", "plain", "pg_dumpall"])
@pytest.mark.usefixtures("only_18")
def test_an_older_server_rehearsed_on_a_newer_one(
    format: str, tortured: Callable[[int], PostgresServer], here: Repository
) -> None:
    params = tortured(16).params
    if format == "pg_dumpall":
        reference = dump_cluster(connection=params, server="test", repository=here, options=DumpAllOptions())
    else:
        reference = dump(params.with_database(TORTURE), here, format=format)
    assert str(reference["client_version"]).startswith("18.")
    found = proven(reference, here)
    assert compared(found) == {"same"}
    notes = [check["detail"] for check in found["checks"] if check["name"] == "note"]
    assert "definitions compared by kind and name: the dumped server has version 16, the rehearsal's 18" in notes


@pytest.mark.every_value
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_database_in_another_encoding(encoding: str, format: str, server18: PostgresServer, here: Repository) -> None:
    with server18.params.connect() as session:
        session.execute(f"create database latin template template0 encoding '{encoding}' locale 'C'")
    try:
        latin = server18.params.with_database("latin")
        with latin.connect() as session:
            session.execute("set client_encoding = 'UTF8'")
            session.execute('create table "täst" ("grün" text)')
            session.execute("insert into \"täst\" values ('äöü'), ('ÿ')")
        found = proven(dump(latin, here, format=format), here)
        assert [(table["name"], table["rows"], table["result"]) for table in found["tables"]] == [("täst", 2, "same")]
    finally:
        with server18.params.connect() as session:
            session.execute("drop database latin with (force)")


@pytest.fixture
def latin(server18: PostgresServer) -> Iterator[ConnectionParams]:
    """A database in LATIN1 with rows whose bytes are others in UTF-8."""
    with server18.params.connect() as session:
        session.execute("create database latin template template0 encoding 'LATIN1' locale 'C'")
    try:
        params = server18.params.with_database("latin")
        with params.connect() as session:
            session.execute("set client_encoding = 'UTF8'")
            session.execute('create table "täst" ("grün" text)')
            session.execute("insert into \"täst\" values ('äöü'), ('ÿ')")
        yield params
    finally:
        with server18.params.connect() as session:
            session.execute("drop database latin with (force)")


@pytest.mark.every_value
@pytest.mark.parametrize("of", ["connection", "database"])
@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_dump_in_the_encoding_of_its_session(of: str, format: str, latin: ConnectionParams, here: Repository) -> None:
    if of == "connection":
        latin = replace(latin, keywords={**latin.keywords, "client_encoding": "UTF8"})
    else:
        with latin.connect() as session:
            session.execute("alter database latin set client_encoding = 'UTF8'")
    found = proven(dump(latin, here, format=format), here)
    assert [(table["name"], table["rows"], table["result"]) for table in found["tables"]] == [("täst", 2, "same")]


def test_a_cluster_of_databases_in_several_encodings(
    server18: PostgresServer,
    latin: ConnectionParams,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
) -> None:
    fresh_database(server18, None, "create table utf as select 'äöü ł' as word")
    found = proven(
        dump_cluster(connection=server18.params, server="test", repository=here, options=DumpAllOptions()), here
    )
    assert {"täst", "utf"} <= {table["name"] for table in found["tables"]}  # the server may have other databases
    assert compared(found) == {"same"}


def test_settings_of_the_database_that_a_restore_must_not_use(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *SMALL, "create table list as select array['a', null] as items")
    with server18.params.connect() as session:
        for setting in ("default_transaction_read_only = on", "array_nulls = off"):
            session.execute(
                sql.SQL("alter database {} set {}").format(sql.Identifier(database.dbname), sql.SQL(setting))
            )
    proven(dump(database, here), here)


@pytest.mark.parametrize("archive", [path for path in [DVDRENTAL] if path.exists()])
@pytest.mark.parametrize("format", ["tar", "custom"])
def test_the_real_dvdrental(
    archive: Path,
    format: str,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
) -> None:
    database = fresh_database(server18)
    with client_environment(database) as env:
        restore = [postgres_bin_dir(18) / "pg_restore", "--no-owner", "--no-password", "--dbname=", archive]
        subprocess.run(restore, env=env, check=False, capture_output=True)  # it ends with 1: schema public exists
    found = proven(dump(database, here, format=format), here)
    assert compared(found) == {"same"}
    assert len(found["tables"]) == 15
    assert sum(table["rows"] for table in found["tables"]) == 44_820


@pytest.mark.parametrize("column", ["money", "price", "money[]", "priced"])
def test_money_that_another_server_reads_wrongly(
    column: str,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a server with another lc_monetary would, without an error."""
    value = {"money[]": "array[1.23::money]", "priced": "row(1.23::money)::priced"}.get(column, "1.23::money")
    database = fresh_database(
        server18,
        None,
        "create domain price as money",
        "create type priced as (price price)",
        f"create table film (price {column})",
        f"insert into film values ({value})",
        "create table other (price numeric)",
        "insert into other values (1.23)",
    )
    reference = dump(database, here)

    def misread(server: ConnectionParams) -> None:
        with server.with_database(database.dbname).connect() as session:
            session.execute(f"update film set price = {value.replace('1.23', '123')}")  # type: ignore[arg-type]

    monkeypatch.setattr(verification_run, "rehearse", partial(verification_run.rehearse, on_restored=misread))
    said = not_proven(reference, here)
    assert "public.film: 1 row, some of which differ, perhaps because of another lc_monetary" in said


def test_money_in_a_definition_that_another_server_reads_wrongly(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = fresh_database(server18, None, "create table film (price money default '1.23', other int default 5)")
    reference = dump(database, here)

    def rehearse_after(statement: str) -> None:
        def misread(server: ConnectionParams) -> None:
            with server.with_database(database.dbname).connect() as session:
                session.execute(statement)  # type: ignore[arg-type]

        monkeypatch.setattr(verification_run, "rehearse", partial(rehearse, on_restored=misread))

    rehearse = verification_run.rehearse
    rehearse_after("alter table film alter price set default '123'")
    assert "table public.film differs, perhaps because of another lc_monetary (type money)" in not_proven(
        reference, here
    )
    rehearse_after("alter table film alter price set default '123', alter other set default 6")
    with pytest.raises(VerificationFailed, match=r"table public\.film its definition differs"):
        verify(reference=reference, repository=here, level="restore")


@pytest.mark.every_value
@each([BUILDS[0], BUILDS[-1]])
@pytest.mark.parametrize("format", ["custom", "plain"])
def test_money_in_bounds_that_another_server_reads_wrongly(
    format: str, build: Build, here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = (
        "create table film (price money, kind text) partition by range (price)",
        "create table cheap partition of film for values from ('1.23') to ('2.34')",
        "create table other (kind text) partition by list (kind)",
        "create table first partition of other for values in ('1')",
    )
    detach = "alter table {0} detach partition {1}; alter table {0} attach partition {1} for values {2}"
    context = RunContext(settings=build.settings)
    with PostgresServer(build.bin_dir) as server, server.params.connect() as session:
        session.execute("create database shop")
        database = server.params.with_database("shop")
        with database.connect() as shop:
            for statement in statements:
                shop.execute(statement.encode())
        options = DumpOptions(format=format)  # type: ignore[arg-type]
        reference = dump_database(connection=database, server="test", repository=here, options=options, context=context)
    rehearse = verification_run.rehearse

    def rehearse_after(*changes: str) -> None:
        def misread(server: ConnectionParams) -> None:
            with server.with_database("shop").connect() as session:
                for statement in changes:
                    session.execute(statement.encode())

        monkeypatch.setattr(verification_run, "rehearse", partial(rehearse, on_restored=misread))

    rehearse_after(detach.format("film", "cheap", "from ('123') to ('234')"))
    with pytest.raises(NotProven, match=r"table attach public\.cheap differs, perhaps because of another lc_monetary"):
        verify(reference=reference, repository=here, level="restore", context=context)
    rehearse_after(detach.format("other", "first", "in ('2')"))
    with pytest.raises(VerificationFailed, match=r"table attach public\.first its definition differs"):
        verify(reference=reference, repository=here, level="restore", context=context)


@each(BUILDS)
def test_sequences_whose_values_options_leave_out(build: Build, here: Repository) -> None:
    """pg_dump writes the values of sequences of a table without its rows, so none is missed, and none is expected that
    it does not write."""
    statements = (
        "create table t (a serial, b int generated always as identity, c text)",
        "insert into t (c) values ('x')",
        "create table other (a serial)",
        "create sequence alone",
        "create schema apart",
        "create sequence apart.alone",
    )
    given = [
        {"exclude_table_data": ["t"]},
        {"exclude_table_data": ["public.alone", "OTHER"]},
        {"exclude_table_data": ["apart.*", "t_b*"]},
        {"exclude_table_data": ["(t|u)_[ab]_seq", '"other"']},
        {"exclude_table_data": ["*"], "format": "plain"},
        {"exclude_tables": ["t"]},
        {"tables": ["t"]},
        {"schemas": ["apart"]},
    ]
    if build.major >= 16:
        given.append({"exclude_table_data_and_children": ["*.alone", "t"]})
    if build.major >= 18:
        given.append({"no_data": True, "sequence_data": True, "exclude_table_data": ["alone"]})
    if build not in (BUILDS[0], BUILDS[-1]):  # each takes seconds: the versions in between only have the plain dump
        given = [options for options in given if options.get("format") == "plain"]
    context = RunContext(settings=build.settings)
    with PostgresServer(build.bin_dir) as server, server.params.connect() as session:
        for statement in statements:
            session.execute(statement.encode())
        for options in given:
            reference = dump_database(
                connection=server.params,
                server="test",
                repository=here,
                options=DumpOptions(**options),  # type: ignore[arg-type]
                context=context,
            )
            found = verify(reference=reference, repository=here, level="restore", context=context)
            assert found["verified"] == "restore"


def test_rounded_values_are_not_called_those_of_the_source(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, "create table part (size float8)", "insert into part values (1.0 / 3)")
    lines: list[str] = []
    reference = dump_database(
        connection=database,
        server="test",
        repository=here,
        options=DumpOptions(extra_float_digits=0),
        context=RunContext(log=lines.append),
    )
    warning = "warning: extra_float_digits=0 rounds floating-point values; a restore does not bring back the exact ones"
    assert warning in lines
    detail = proven(reference, here)["checks"][-1]["detail"]
    assert detail.endswith("as dumped; the dump rounded floating-point values (extra_float_digits 0)")


def verified_level(reference: dict[str, object], repository: Repository) -> object:
    return next(backup.level for backup in read_catalogue(repository).backups if backup.id == reference["id"])


def not_proven(reference: dict[str, object], repository: Repository, settings: Settings | None = None) -> str:
    """Nothing is learned about the backup: what it was worth before it is worth now."""
    verify(reference=reference, repository=repository)
    with pytest.raises(NotProven) as caught:
        verify(
            reference=reference,
            repository=repository,
            level="restore",
            context=RunContext(settings=settings or Settings()),
        )
    found = result_of(repository, "notproven")
    assert found["checks"][-1] == {"name": "restore", "result": "notproven", "detail": str(caught.value)}
    assert verified_level(reference, repository) == "archive"
    return str(caught.value)


def test_a_missing_extension(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = dump(fresh_database(server18, None, "create extension vector"), here)
    from airflow_pgbackup.backup.rehearsal import provisioning

    def as_on_a_bare_server(connection: ConnectionParams, extensions: Any, **_: Any) -> None:
        return check(connection, {f"no_{name}" for name in extensions})

    check = provisioning.check_extensions
    monkeypatch.setattr(provisioning, "check_extensions", as_on_a_bare_server)
    said = not_proven(reference, here)
    assert "lacks extension no_vector. HINT: Install their packages" in said


@pytest.mark.usefixtures("only_18")
def test_no_server_programs(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    bare = tmp_path / "client only"
    bare.mkdir()
    for tool in ("pg_dump", "pg_restore", "psql"):
        (bare / tool).write_text(f'#!/bin/sh\nexec "{postgres_bin_dir(18) / tool}" "$@"\n')
        (bare / tool).chmod(0o755)
    reference = dump(fresh_database(server18, None, *SMALL), here)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "_directories", lambda *_: iter([(bare, "PATH")]))
        said = not_proven(reference, here)
    assert "no server programs of PostgreSQL 18 or newer on this machine to rehearse with; found: none" in said
    assert "HINT: Install postgresql-18" in said


def test_too_little_disk_space(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import shutil

    reference = dump(fresh_database(server18, None, *SMALL), here)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 * 1024**2))
    said = not_proven(reference, here)
    assert "must stay free for other tasks, but only 100.0 MiB is free" in said
    assert "HINT: Set [pgbackup] temp_dir (PGBACKUP_TEMP_DIR) to a directory on a larger disk" in said


@pytest.mark.parametrize("options", [{"data_only": True}, {"sections": ["data"]}, {"statistics_only": True}])
def test_a_dump_without_definitions(
    options: dict[str, Any],
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
) -> None:
    said = not_proven(dump(fresh_database(server18, None, *SMALL), here, **options), here)
    assert "has no definitions, so there is nothing to restore it into" in said


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_dump_that_cannot_be_restored_fails(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *torture.UNRESTORABLE)
    reference = dump(database, here, format=format)
    verify(reference=reference, repository=here)
    with pytest.raises(VerificationFailed, match=r'it cannot be restored: .* relation "rate" does not exist'):
        verify(reference=reference, repository=here, level="restore")
    result_of(here, "fail")
    assert verified_level(reference, here) is None


@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_schema_public_by_its_name(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    """pg_dump then writes CREATE SCHEMA public, although every new database has it."""
    database = fresh_database(server18, None, "create table film (id int)", "insert into film values (1)")
    found = proven(dump(database, here, format=format, schemas=["public"]), here)
    assert compared(found) == {"same"}


@pytest.mark.every_value
@pytest.mark.parametrize("comment", ["standard public schema", "ours"])
@pytest.mark.parametrize(
    "grant", ["", "grant create on schema public to public", "revoke all on schema public from public"]
)
@pytest.mark.parametrize(
    "options",
    [{"format": "custom"}, {"format": "plain"}, {"format": "plain", "clean": True, "if_exists": True}],
    ids=str,
)
def test_schema_public_by_a_filter_file(
    options: dict[str, Any],
    grant: str,
    comment: str,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    tmp_path: Path,
) -> None:
    filters = tmp_path / "filter"
    filters.write_text("include schema public\n")
    about_public = [grant, f"comment on schema public is '{comment}'"]
    database = fresh_database(server18, None, "create table film as select 1 as id", *filter(None, about_public))
    found = proven(dump(database, here, filters=[filters], **options), here)
    assert compared(found) == {"same"}


@pytest.mark.every_value
@pytest.mark.parametrize(
    "options", [["--schema=public"], ["--table=x.y"], ["--create", "--table=x.y", "--schema=public"]], ids=str
)
@pytest.mark.parametrize("format", ["custom", "plain"])
def test_an_adopted_dump_of_a_part(
    format: str,
    options: list[str],
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    tmp_path: Path,
) -> None:
    """Its manifest has no options of pg_dump."""
    statements = ["create table film as select 1 as id", "create schema x", "create table x.y as select 1 as n"]
    database = fresh_database(server18, None, *statements)
    made = tmp_path / "part.dump"
    with client_environment(database) as env:
        argv = [postgres_bin_dir(18) / "pg_dump", f"--format={format}", f"--file={made}", *options]
        subprocess.run(argv, env=env, check=True)
    adopted: Any = adopt(repository=here, sources=[made], server="old", database="part")
    found = proven(adopted["adopted"][0], here)
    assert compared(found) == {"same"}


@pytest.mark.every_value
@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_table_without_its_schema_in_another_name(
    format: str,
    create: bool,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
) -> None:
    """The comments of a plain dump have a space for a line break."""
    schema = '"a\n""b"'
    database = fresh_database(
        server18, None, f"create schema {schema}", f"create table {schema}.y (n int primary key default 1)"
    )
    proven(dump(database, here, format=format, create=create, tables=["*.y"]), here)


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_whole_dump_without_a_schema_cannot_be_restored(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    repository = open_repository(f"file://{tmp_path}")
    repository.init()
    database = fresh_database(server18, None, "create schema x", "create table x.y as select 1 as n")
    made = dump(database, repository, format=format, tables=["x.y"])
    (manifest,) = tmp_path.rglob("manifest.json")
    written = json.loads(manifest.read_text())
    del written["options"]["tables"]  # as if pg_dump had lost the schema
    manifest.write_text(json.dumps(written))
    with pytest.raises(VerificationFailed, match=r'it cannot be restored: .* schema "x" does not exist'):
        verify(reference=made, repository=repository, level="restore", context=RunContext())


@pytest.mark.parametrize(
    "options",
    [
        {"tables": ["typed"]},
        {"tables": ["indexed"], "format": "plain"},
        {"tables": ["films"]},
        {"tables": ["part"], "format": "plain"},
        {"exclude_tables": ["film"]},
        {"exclude_extensions": ["*"]},
        {"filters": True},
    ],
    ids=str,
)
def test_a_part_without_what_it_uses_is_not_proven(
    options: dict[str, Any],
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    tmp_path: Path,
) -> None:
    database = fresh_database(
        server18,
        None,
        "create extension vector",
        "create domain year as int",
        "create function key(int) returns int immutable language sql as 'select $1'",
        "create table film (id int)",
        "create view films as select * from film",
        "create table typed (a year)",
        "create table indexed (a int)",
        "create index on indexed (key(a))",
        "create table whole (a int) partition by list (a)",
        "create table part partition of whole default",
        "create table vectors (v vector)",
    )
    if "filters" in options:
        (tmp_path / "filter").write_text("include table typed\n")
        options = {"filters": [tmp_path / "filter"]}
    made = dump(database, here, **options)
    with pytest.raises(
        NotProven, match=r'is a part of a database and lacks .* "public\..*" does not exist|public\.key'
    ):
        verify(reference=made, repository=here, level="restore", context=RunContext())


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_schema_public_without_a_comment(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    """With quote_all_identifiers pg_dump does not write that the comment was removed."""
    database = fresh_database(server18, None, "comment on schema public is null", "create table film as select 1 as id")
    proven(dump(database, here, format=format, quote_all_identifiers=True), here)


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_an_extension_without_its_schema(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(
        server18, None, "create schema ext", "create extension vector schema ext", "create table y (v ext.vector)"
    )
    proven(dump(database, here, format=format, tables=["y"], extensions=["vector"]), here)


@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_a_table_without_its_schema(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    """The rehearsal creates the schema, so it creates the database, too."""
    database = fresh_database(server18, None, "create schema x", "create table x.y as select 1 as n")
    with server18.params.connect() as session:
        name = sql.Identifier(database.dbname)
        session.execute(sql.SQL("alter database {} set work_mem = '5MB'").format(name))
        session.execute(sql.SQL("comment on database {} is 'ours'").format(name))
    found = proven(dump(database, here, format=format, tables=["x.y"]), here)
    assert compared(found) == {"same"}
    notes = [check["detail"] for check in found["checks"] if check["name"] == "note"]
    assert (NOT_CREATED in notes) == (format != "plain")
    assert "schemas that the dump uses but does not contain were created empty: x" in notes


@pytest.mark.parametrize("options", [{}, {"format": "plain"}, {"format": "plain", "create": True}])
def test_template1(options: dict[str, Any], server18: PostgresServer, here: Repository) -> None:
    """The throwaway server has it as a template, which must not be dropped."""
    proven(dump(server18.params.with_database("template1"), here, **options), here)
