"""Every difference is found: a restored copy is altered, and level ``restore`` reports exactly what was altered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal import rehearse
from airflow_pgbackup.backup.rehearsal.comparison import Rehearsal, compare_copy
from airflow_pgbackup.backup.rehearsal.definitions import read_definitions
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.restore_copy import restore_copy
from airflow_pgbackup.backup.rehearsal.restore_steps import RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

DATABASE = "altered"
SCHEMA = """
create role reader;
create type mood as enum ('sad', 'happy');
create table actor (actor_id serial primary key, name text not null);
create table film (film_id int primary key, title text default 'none', actor_id int references actor, score numeric);
create index film_title_idx on film (title);
create table tag (name text, mood mood);
alter table film add constraint scored check (score >= 0) not valid;
insert into actor (name) select 'actor ' || n from generate_series(1, 50) n;
insert into film select n, 'film ' || n, n % 50 + 1, n from generate_series(1, 500) n;
insert into tag select 'tag ' || n, 'sad' from generate_series(1, 20) n;
create function f(int) returns int language sql as 'select 1';
create function noted() returns trigger language plpgsql as 'begin return new; end';
create trigger film_trigger before insert on film for each row execute function noted();
create view films as select title from film;
create materialized view counts as select count(*) from film;
create materialized view not_counted as select count(*) from film with no data;
create policy own on tag using (name <> '');
alter table tag enable row level security;
grant select on film to reader;
comment on table film is 'films';
comment on column film.title is 'its title';
create sequence alone start 5;
create event trigger watching on sql_drop execute function watched();
create publication pub for table tag with (publish = 'insert');
create extension vector;

select lo_from_bytea(4711, 'a large object');
select lo_from_bytea(4712, 'another one');
grant select on large object 4712 to reader;
comment on large object 4711 is 'large';
"""
BEFORE = """
create function watched() returns event_trigger language plpgsql as 'begin end';
create table settings (name text, value text);
insert into settings values ('of the extension', '1');
"""

FILM = ("table data", "public.film")
ALTERATIONS: dict[str, tuple[str, set[tuple[str, str]]]] = {
    "nothing": ("select 1", set()),
    "row changed": ("update film set title = 'x' where film_id = 7", {FILM}),
    "row changed by a blank": ("update film set title = title || ' ' where film_id = 7", {FILM}),
    "null for empty": ("update film set title = null where film_id = 7", {FILM}),
    "row dropped": ("delete from film where film_id = 500", {FILM}),
    "row doubled": ("insert into tag select * from tag limit 1", {("table data", "public.tag")}),
    "row for another": (
        "delete from tag where name = 'tag 1'; insert into tag select * from tag where name = 'tag 2'",
        {("table data", "public.tag")},
    ),
    "table emptied": ("truncate tag", {("table data", "public.tag")}),
    "table dropped": (
        "alter publication pub drop table tag; drop table tag",
        {
            ("table data", "public.tag"),
            ("table", "public.tag"),
            ("policy", "public.tag own"),
            ("row security", "public.tag"),
            ("publication table", "public.pub tag"),
        },
    ),
    "column added": ("alter table tag add x int", {("table", "public.tag")}),
    "column dropped": (
        "alter table tag drop mood",
        {("table data", "public.tag"), ("table", "public.tag")},
    ),
    "column's type": ("alter table actor alter name type varchar(99)", {("table", "public.actor")}),
    "default": ("alter table film alter title set default 'x'", {("table", "public.film")}),
    "default of a serial": (  # an entry of its own, which another default is not
        "alter table actor alter actor_id set default 1",
        {("default", "public.actor actor_id"), ("table", "public.actor")},
    ),
    "not null": ("alter table actor alter name drop not null", {("table", "public.actor")}),
    "check dropped": ("alter table film drop constraint scored", {("check constraint", "public.film scored")}),
    "index dropped": ("drop index film_title_idx", {("index", "public.film_title_idx")}),
    "index added": ("create index extra on tag (name)", {("index", "public.extra")}),
    "index of another column": (
        "drop index film_title_idx; create index film_title_idx on film (score)",
        {("index", "public.film_title_idx")},
    ),
    "foreign key dropped": (
        "alter table film drop constraint film_actor_id_fkey",
        {("fk constraint", "public.film film_actor_id_fkey")},
    ),
    "function body": (
        "create or replace function f(int) returns int language sql as 'select 2'",
        {("function", "public.f(integer)")},
    ),
    "function dropped": ("drop function f(int)", {("function", "public.f(integer)")}),
    "grant revoked": ("revoke select on film from reader", {("acl", "public.TABLE film")}),
    "grant added": ("grant insert on film to reader", {("acl", "public.TABLE film")}),
    "owner": ("alter table tag owner to reader", {("table", "public.tag")}),
    "trigger dropped": ("drop trigger film_trigger on film", {("trigger", "public.film film_trigger")}),
    "trigger disabled": ("alter table film disable trigger film_trigger", {("trigger", "public.film film_trigger")}),
    "event trigger disabled": ("alter event trigger watching disable", {("event trigger", "watching")}),
    "policy": ("alter policy own on tag using (true)", {("policy", "public.tag own")}),
    "row security off": ("alter table tag disable row level security", {("row security", "public.tag")}),
    "enum label": ("alter type mood add value 'new'", {("type", "public.mood")}),
    "view": ("create or replace view films as select title || '' as title from film", {("view", "public.films")}),
    "sequence value": (
        "select nextval('actor_actor_id_seq')",
        {("sequence value", "public.actor_actor_id_seq")},
    ),
    "sequence called": ("select nextval('alone')", {("sequence value", "public.alone")}),
    "sequence step": ("alter sequence alone increment 2", {("sequence", "public.alone")}),
    "comment changed": ("comment on table film is 'x'", {("comment", "public.TABLE film")}),
    "comment dropped": ("comment on column film.title is null", {("comment", "public.COLUMN film.title")}),
    "publication": ("alter publication pub set (publish = 'insert, truncate')", {("publication", "pub")}),
    "large object changed": ("select lo_put(4711, 0, 'A')", {("large object", "4711")}),
    "large object longer": ("select lo_put(4711, 100, 'A')", {("large object", "4711")}),
    "large object dropped": (
        "select lo_unlink(4711)",
        {("large object", "4711"), ("comment", "LARGE OBJECT 4711")},
    ),
    "large object added": ("select lo_create(4999)", {("large object", "4999")}),
    "large object's owner": ("alter large object 4711 owner to reader", {("large object", "4711")}),
    "large object's grant": ("revoke select on large object 4712 from reader", {("acl", "LARGE OBJECT 4712")}),
    "large object's comment": ("comment on large object 4711 is 'x'", {("comment", "LARGE OBJECT 4711")}),
    "view emptied": (
        "refresh materialized view counts with no data",
        {("materialized view data", "public.counts")},
    ),
    "view filled": (
        "refresh materialized view not_counted",
        {("materialized view data", "public.not_counted")},
    ),
}


@dataclass
class Restored:
    """A copy as a rehearsal has it between restore and comparison; ``original`` is its template."""

    copy: RestoredCopy
    archive: ArchiveSummary
    client: Client

    def altered(self, statements: str) -> Rehearsal:
        """Return what the comparison finds after statements have run in a copy of the restored database."""
        name = sql.Identifier(DATABASE)
        with self.copy.connection.connect() as session:
            session.execute(sql.SQL("create database {} template original owner {}").format(name, self._owner(session)))
        try:
            with self.copy.connection.with_database(DATABASE).connect() as session:
                session.execute(statements.encode())
            return compare_copy(self.copy, self.archive, lambda: reader(self.copy.dump, self.client))
        finally:
            with self.copy.connection.connect() as session:
                session.execute(sql.SQL("drop database {} with (force)").format(name))

    def _owner(self, session: Any) -> sql.Identifier:
        query = "select datdba::regrole::text from pg_database where datname = 'original'"
        return sql.Identifier(session.execute(query).fetchone()[0])


def reader(dump: RehearsedDump, client: Client) -> ArchiveReader:
    artifact = dump.manifest.artifact
    ours = artifact.compression.by == "airflow-pgbackup"
    compression = artifact.compression.method if ours else None
    return ArchiveReader(dump.artifact, format=artifact.format, client=client, deadline=600, compression=compression)


@pytest.fixture(scope="module")
def source() -> Iterator[ConnectionParams]:
    with PostgresServer(postgres_bin_dir(18)) as server:
        with server.params.connect() as session:
            session.execute(sql.SQL("create database {} template template0").format(sql.Identifier(DATABASE)))
        database = server.params.with_database(DATABASE)
        with database.connect() as session:
            session.execute((BEFORE + SCHEMA).encode())
        yield database


@pytest.fixture(scope="module", params=["custom", "plain"])
def restored(
    request: pytest.FixtureRequest, source: ConnectionParams, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restored]:
    repository = open_repository(f"file://{tmp_path_factory.mktemp('repository')}")
    repository.init()
    options = DumpOptions(format=request.param)
    reference = dump_database(connection=source, server="test", repository=repository, options=options)
    manifest = load_manifest(repository, reference)
    artifact = repository.local_path(manifest.artifact_key)
    assert artifact is not None
    client = Client(postgres_bin_dir(18), (18, 4), "test")
    with PostgresServer(postgres_bin_dir(18)) as server:
        private = server.private_directory
        assert private is not None
        dump = RehearsedDump(artifact=artifact, manifest=manifest, deadline=600)
        target = RehearsalServer(params=server.params, directory=private, programs=client, loader=client)
        copy = restore_copy(dump, read_definitions(dump), target)
        with server.params.connect() as session:
            session.execute(sql.SQL("alter database {} rename to original").format(sql.Identifier(DATABASE)))
        yield Restored(copy, reader(dump, client).digest(), client)


def named(found: Rehearsal) -> set[tuple[str, str]]:
    names = [(difference.kind, difference.name) for difference in found.differences]
    assert len(names) == len(set(names)), "nothing is said twice"
    return set(names)


@pytest.mark.every_value
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_exactly_the_altered_object_is_reported(alteration: str, restored: Restored) -> None:
    """In plain dumps another reader finds the definitions; rows are the same to both."""
    statements, expected = ALTERATIONS[alteration]
    assert named(restored.altered(statements)) == expected


@pytest.mark.every_value
@pytest.mark.parametrize(
    ("options", "origin", "reported"),
    [
        ({}, {}, True),
        ({"sections": ["pre-data", "data"]}, {}, True),
        ({"no_data": True, "sequence_data": True}, {}, True),
        ({"no_data": True}, {}, False),
        ({"schema_only": True}, {}, False),
        ({"sections": ["pre-data", "post-data"]}, {}, False),
        ({"exclude_table_data": ["t", "actor", "public.film*", "other.*"]}, {}, True),
        ({"exclude_table_data": ["public.*"]}, {}, False),
        ({"filters": ["f"]}, {}, False),
        ({}, {"adopted_from": "old.dump"}, False),
    ],
    ids=str,
)
def test_sequences_without_a_value_in_the_dump(
    options: dict[str, object], origin: dict[str, object], reported: bool, restored: Restored
) -> None:
    dump = restored.copy.dump
    manifest = replace(dump.manifest, options={**dump.manifest.options, **options}, origin=origin)
    without = replace(
        restored, copy=replace(restored.copy, dump=replace(dump, manifest=manifest)), archive=replace(restored.archive)
    )
    without.archive.sequences = []
    missing = {("sequence value", "public.actor_actor_id_seq"), ("sequence value", "public.alone")}
    found = {each for each in named(without.altered("select 1")) if each[0] == "sequence value"}
    assert found == (missing if reported else set())


@pytest.mark.parametrize(
    "statements",
    [
        "create table t as select * from film; truncate film; insert into film select * from t order by film_id desc; "
        "drop table t",
        "update film set title = title where film_id % 3 = 0; vacuum full film",
    ],
)
def test_rows_in_another_order_pass_with_a_note(statements: str, restored: Restored) -> None:
    found = restored.altered(statements.replace("vacuum full film", "cluster film using film_title_idx"))
    assert [difference for difference in found.differences if difference.kind == "table data"] == []
    assert {table.name: table.result for table in found.tables}["film"] == "reordered"
    assert "public.film: the same rows in another order" in found.notes


def test_an_extension_brings_rows_of_its_own(restored: Restored) -> None:
    """CREATE EXTENSION fills its tables before the dump does: what was dumped must be among what is there."""
    found = restored.altered(
        "alter extension vector add table settings; insert into settings values ('of a newer version', '1')"
    )
    assert {table.name: table.result for table in found.tables}["settings"] == "contained"
    note = "public.settings: table of an extension contains all dumped rows: found 2 rows, dumped 1"
    assert note in found.notes
    assert ("table data", "public.settings") not in named(found)
    for wrong in ("update settings set value = '2'", "delete from settings"):
        found = restored.altered(
            f"alter extension vector add table settings; {wrong}; insert into settings values ('more', '1')"
        )
        assert ("table data", "public.settings") in named(found)


@pytest.mark.parametrize(
    ("format", "statement", "expected"),
    [
        ("tar", "update film set score = score + 1 where film_id = 1", [("table data", "public.film")]),
        ("directory", "drop index film_title_idx", [("index", "public.film_title_idx")]),
        ("pg_dumpall", "delete from actor where actor_id > 49", [("table data", "altered: public.actor")]),
        ("pg_dumpall", "alter role reader createdb", [("global", "ALTER ROLE reader")]),
        ("pg_dumpall", "alter function f(int) cost 7", [("function", "altered: public.f(integer)")]),
    ],
)
def test_a_complete_rehearsal(
    format: str, statement: str, expected: list[tuple[str, str]], source: ConnectionParams, tmp_path: Path
) -> None:
    repository = open_repository(f"file://{tmp_path}")
    repository.init()
    if format == "pg_dumpall":
        reference = dump_cluster(connection=source, server="test", repository=repository, options=DumpAllOptions())
    else:
        options = DumpOptions(format=format)
        reference = dump_database(connection=source, server="test", repository=repository, options=options)
    manifest = load_manifest(repository, reference)
    artifact = repository.local_path(manifest.artifact_key)
    assert artifact is not None

    def alter(server: ConnectionParams) -> None:
        with server.with_database(DATABASE).connect() as session:
            session.execute("set session_replication_role = replica")
            session.execute(statement.encode())

    found = rehearse(
        artifact,
        manifest,
        reader=Client(postgres_bin_dir(18), (18, 4), "test"),
        context=RunContext(settings=Settings(), deadline=600, cancel=Cancel(), log=lambda _: None),
        on_restored=alter,
    )
    assert [(difference.kind, difference.name) for difference in found.differences] == expected
