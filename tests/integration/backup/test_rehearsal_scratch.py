"""A rehearsal on a scratch server that has other databases, one of the same name too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torture
from psycopg import sql
from rehearsals import rehearse_on

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal.run import Rehearsal
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import Canceled, ConfigurationError, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.source_roles import RecordedMembership, SourceRoles

NAME = "to'rture \"db"
SETTINGS = {"allow_in_place_tablespaces": "on"}


@pytest.fixture(scope="module")
def source() -> Iterator[ConnectionParams]:
    with PostgresServer(postgres_bin_dir(18), settings=SETTINGS) as server:
        torture.roles_and_tablespaces(server.params)
        with server.params.connect() as session:
            session.execute(sql.SQL("create database {} template template0").format(sql.Identifier(NAME)))
        torture.build(server.params.with_database(NAME))
        yield server.params.with_database(NAME)


@pytest.fixture(scope="module")
def scratch_server(canary: str) -> Iterator[PostgresServer]:
    """With a database of the dump's name, in which somebody keeps something, and one of its roles."""
    with PostgresServer(postgres_bin_dir(18), password=canary, tcp=True, settings=SETTINGS) as server:
        with server.params.connect() as session:
            session.execute(sql.SQL("create database {}").format(sql.Identifier(NAME)))
            session.execute("create role plain login password 'plain'")
        with server.params.with_database(NAME).connect() as session:
            session.execute("create table kept as select generate_series(1, 7) as n")
        yield server


@pytest.fixture
def scratch(scratch_server: PostgresServer) -> Iterator[ConnectionParams]:
    before = everything(scratch_server.params)
    yield scratch_server.params
    assert everything(scratch_server.params) == before
    with scratch_server.params.with_database(NAME).connect() as session:
        assert session.execute("select sum(n) from kept").fetchone() == (28,)


def everything(server: ConnectionParams) -> list[Any]:
    """What a server has beside what is in its databases."""
    with server.connect() as session:
        return [
            session.execute(sql.SQL(query)).fetchall()
            for query in (
                "select oid, datname from pg_database order by 1",
                "select oid, rolname from pg_roles order by 1",
                "select spcname from pg_tablespace order by 1",
            )
        ]


def dump(connection: ConnectionParams, repository: Repository, **options: Any) -> dict[str, object]:
    return dump_database(connection=connection, server="test", repository=repository, options=DumpOptions(**options))


def report(repository: Repository) -> tuple[dict[str, Any], bytes]:
    (key,) = [entry.key for entry in repository.list() if "-restore-" in entry.key]
    data = repository.read_bytes(key)
    return json.loads(data), data


@pytest.mark.parametrize("format", ["custom", "tar", "directory", "plain"])
def test_the_restored_rows_are_the_dumped_ones(
    format: str,
    source: ConnectionParams,
    scratch_server: PostgresServer,
    here: Repository,
    assert_no_canary: Callable[[object], None],
) -> None:
    """Its tablespaces must be there, its roles need not."""
    tablespaces = []
    with scratch_server.params.connect() as session, source.connect() as original:
        for (name,) in original.execute("select spcname from pg_tablespace where spcname !~ '^pg_'").fetchall():
            session.execute(sql.SQL("create tablespace {} location ''").format(sql.Identifier(name)))
            tablespaces.append(name)
    before, said = everything(scratch_server.params), list[str]()
    reference = dump(source, here, format=format)
    token = format == "directory"
    done = verify(
        reference=reference,
        repository=here,
        level="restore",
        scratch=replace(scratch_server.params, renew_every=600.0 if token else None),
        context=RunContext(log=said.append),
    )
    assert done["verified"] == "restore"
    found, data = report(here)
    assert {table["result"] for table in found["tables"]} == {"same"}
    assert len(found["tables"]) == 107
    assert found["differences"] == []
    notes = [check["detail"] for check in found["checks"] if check["name"] == "note"]
    assert f"rehearsed on the scratch server {scratch_server.params.label}" in notes
    assert any("one job, because the password is a token" in note for note in notes) is token
    assert any(line.startswith("rehearsing on the scratch server ") for line in said)
    assert everything(scratch_server.params) == before
    with scratch_server.params.with_database(NAME).connect() as session:
        assert session.execute("select sum(n) from kept").fetchone() == (28,)
        for name in tablespaces:
            session.execute(sql.SQL("drop tablespace {}").format(sql.Identifier(name)))
    assert_no_canary(data)
    assert_no_canary("\n".join(said))


def rehearsed(
    reference: dict[str, object], repository: Repository, scratch: ConnectionParams, **more: Any
) -> Rehearsal:
    return rehearse_on(scratch, load_manifest(repository, reference), repository, **more)


SMALL = (
    "create role keeper",
    "create table film as select n as id, 'film ' || n as title from generate_series(1, 3000) n",
    "alter table film owner to keeper",
    "select lo_from_bytea(4711, 'a large object')",
)


@pytest.fixture
def small(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> Iterator[ConnectionParams]:
    database = fresh_database(server18, None, *SMALL)
    yield database
    with database.connect() as session:
        session.execute("drop owned by keeper")
        session.execute("drop role keeper")


def temporary(server: ConnectionParams) -> ConnectionParams:
    with server.connect() as session:
        (name,) = session.execute("select datname from pg_database where datname ~ '^pgbackup_tmp_'").fetchone() or (
            "",
        )
    return server.with_database(str(name))


def test_a_wrong_copy_is_found(small: ConnectionParams, scratch: ConnectionParams, here: Repository) -> None:
    def alter(server: ConnectionParams) -> None:
        with temporary(server).connect() as session:
            session.execute("update film set title = 'film 12' where id = 11")
            session.execute("create index on film (id)")

    found = rehearsed(dump(small, here), here, scratch, on_restored=alter)
    assert {(each.kind, each.name) for each in found.differences} == {
        ("table data", "public.film"),
        ("index", "public.film_id_idx"),
    }


def test_stopped_it_leaves_nothing(small: ConnectionParams, scratch: ConnectionParams, here: Repository) -> None:
    cancel = Cancel()
    with pytest.raises(Canceled):
        rehearsed(dump(small, here), here, scratch, cancel=cancel, on_restored=lambda _: cancel.set())


KILLED = """
import json, os, signal, sys
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal.run import rehearse
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.open import open_repository

given = json.load(sys.stdin)
repository = open_repository(given["uri"])
manifest = load_manifest(repository, given["reference"])
rehearse(
    repository.local_path(manifest.artifact_key), manifest,
    reader=find_clients()[0], context=RunContext(deadline=600, log=print),
    scratch=ConnectionParams(keywords=given["keywords"], password=given["password"]),
    on_restored=lambda _: os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_killed_it_leaves_no_database(
    small: ConnectionParams, scratch: ConnectionParams, here: Repository, tmp_path: Path
) -> None:
    """And a stand-in role for the next rehearsal to drop."""
    before, reference = everything(scratch), dump(small, here)
    (folder := tmp_path / "temporary").mkdir()
    given = {"uri": here.uri, "reference": reference, "keywords": dict(scratch.keywords)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        input=json.dumps({**given, "password": scratch.get_password()}),
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 240
    while everything(scratch)[0] != before[0] or list(folder.iterdir()):  # two processes remove them
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert rehearsed(reference, here, scratch).differences == []


def not_proven(reference: dict[str, object], repository: Repository, scratch: ConnectionParams) -> str:
    with pytest.raises(NotProven) as caught:
        verify(reference=reference, repository=repository, level="restore", scratch=scratch)
    found, _ = report(repository)
    assert found["result"] == "notproven"
    return str(caught.value)


def test_a_plain_dump_that_creates_its_database(
    small: ConnectionParams, scratch: ConnectionParams, here: Repository
) -> None:
    said = not_proven(dump(small, here, format="plain", create=True), here, scratch)
    assert (
        "contains the name of its database cannot be rehearsed on a scratch server. HINT: Dump without create=True"
        in said
    )


def test_a_check_of_the_name_of_the_database(
    small: ConnectionParams, scratch: ConnectionParams, here: Repository
) -> None:
    with small.connect() as session:
        session.execute("create table own (name text default current_database() check (name = current_database()))")
        session.execute("insert into own default values")
    said = not_proven(dump(small, here), here, scratch)
    assert "uses the name of its database" in said
    assert "violates check constraint" in said


def test_the_comment_of_a_database_that_old_dumps_have_is_not_set(
    small: ConnectionParams, scratch: ConnectionParams, here: Repository
) -> None:
    """pg_dump before 11 writes it without --create, too."""
    manifest = load_manifest(here, dump(small, here, format="plain", compress="none"))
    artifact = here.local_path(manifest.artifact_key)
    assert artifact is not None
    end = b"--\n-- PostgreSQL database dump complete"
    whole = artifact.read_bytes()
    assert end in whole
    comments = b"".join(b"COMMENT ON DATABASE %s IS 'x';\n\n\n" % name for name in (b"postgres", b"of_nobody"))
    artifact.write_bytes(whole.replace(end, comments + end))
    assert rehearse_on(scratch, manifest, here).differences == []
    with scratch.connect() as session:
        query = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'postgres'"
        assert session.execute(query).fetchone() == ("default administrative connection database",)


def test_a_cluster(server18: PostgresServer, scratch: ConnectionParams, here: Repository) -> None:
    options = DumpAllOptions(globals_only=True)
    reference = dump_cluster(connection=server18.params, server="test", repository=here, options=options)
    assert "creates databases under their own names" in not_proven(reference, here, scratch)


def test_a_user_who_is_not_a_superuser(small: ConnectionParams, scratch: ConnectionParams, here: Repository) -> None:
    plain = replace(scratch, keywords={**scratch.keywords, "user": "plain"}, password="plain")
    assert "user plain is not a superuser of the scratch server" in not_proven(dump(small, here), here, plain)


def test_an_older_server(
    small: ConnectionParams, server16: PostgresServer, here: Repository, assert_no_canary: Callable[[object], None]
) -> None:
    said = not_proven(dump(small, here), here, server16.params)
    assert "is PostgreSQL 16, but the dump by pg_dump 18" in said
    assert "HINT: Use a scratch server of version 18" in said
    assert_no_canary(said)


def test_no_server(small: ConnectionParams, scratch: ConnectionParams, here: Repository) -> None:
    nobody = replace(scratch, keywords={**scratch.keywords, "port": "1"})
    assert "refused" in not_proven(dump(small, here), here, nobody)


def test_a_missing_tablespace(
    small: ConnectionParams, scratch: ConnectionParams, here: Repository, server18: PostgresServer
) -> None:
    """An extension is told as on a server here; a tablespace only here."""
    with server18.params.connect() as session:
        session.execute("set allow_in_place_tablespaces = on")
        session.execute("create tablespace roomy location ''")
    with small.connect() as session:
        session.execute("create table big () tablespace roomy")
    try:
        said = not_proven(dump(small, here), here, scratch)
    finally:
        with small.connect() as session:
            session.execute("drop table big")
            session.execute("drop tablespace roomy")
    assert "lacks tablespace roomy. HINT: Create them on the scratch server" in said


def test_a_role_with_fewer_privileges_on_the_scratch_server(
    scratch: ConnectionParams,
    here: Repository,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    """It says something of that server, and nothing of the backup."""
    database = fresh_database(
        server18,
        None,
        "create role plain superuser",
        "create function noticed() returns event_trigger language plpgsql as 'begin end'",
        "create event trigger noticed on ddl_command_end execute function noticed()",
        "alter event trigger noticed owner to plain",
    )
    try:
        said = not_proven(dump(database, here), here, scratch)
    finally:
        with database.connect() as session:
            session.execute("drop owned by plain")
            session.execute("drop role plain")
    assert "lacks the privileges to own its objects" in said
    assert "Give the role there the attributes and memberships that it has on the source" in said


@pytest.mark.parametrize("claimed", ["member", "role"])
def test_a_forged_manifest_gives_no_rights_to_roles_of_the_scratch_server(
    claimed: str, small: ConnectionParams, scratch: ConnectionParams, here: Repository
) -> None:
    """Role plain exists there already."""
    with small.connect() as session:
        session.execute("create role plain")
        session.execute("create table other ()")
        session.execute("alter table other owner to plain")
    try:
        reference = dump(small, here)
    finally:
        with small.connect() as session:
            session.execute("drop table other")
            session.execute("drop role plain")
    manifest = load_manifest(here, reference)
    pair = ("keeper", "plain") if claimed == "member" else ("plain", "keeper")
    roles = SourceRoles(
        superusers=("plain",),
        bypass_rls=("plain",),
        memberships=(RecordedMembership(*pair), RecordedMembership("pg_execute_server_program", "plain")),
    )
    manifest = replace(manifest, source=replace(manifest.source, roles=roles))
    rights = (
        "select rolsuper, rolbypassrls, (select count(*) from pg_auth_members where member = r.oid or roleid = r.oid)"
    )
    seen = []

    def look(copy: ConnectionParams) -> None:
        with copy.connect() as session:
            seen.append(session.execute(f"{rights} from pg_roles r where rolname = 'plain'".encode()).fetchone())

    found = rehearse_on(scratch, manifest, here, on_restored=look)
    assert found.differences == []
    assert seen == [(False, False, 0)]


def test_stand_ins_have_the_rights_of_the_source(
    scratch: ConnectionParams,
    here: Repository,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    """They are dropped at the end, see the fixture."""
    database = fresh_database(
        server18,
        None,
        "create role readers",
        "create role reader in role readers",
        "create table t as select 1 as x",
        "grant select on t to readers",
        "create materialized view m as select * from t",
        "alter materialized view m owner to reader",
    )
    try:
        reference = dump(database, here)
    finally:
        with database.connect() as session:
            session.execute("drop owned by readers, reader")
            session.execute("drop role readers, reader")
    assert verify(reference=reference, repository=here, level="restore", scratch=scratch)["verified"] == "restore"


def test_only_for_level_restore(small: ConnectionParams, scratch: ConnectionParams, here: Repository) -> None:
    with pytest.raises(ConfigurationError, match="a scratch server cannot be combined with level archive"):
        verify(reference=dump(small, here), repository=here, scratch=scratch)
