"""restore: between versions, from old dumps, by unprivileged roles, and of clusters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from restoring import (
    OWNER,
    ROW_COUNT,
    ROWS,
    SCHEMA,
    backup,
    backup_cluster,
    databases_of,
    fresh_server,
    local,
    make_roles,
    restored,
    script_of,
    value,
)

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.restore.globals import apply_globals, plan_globals
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ClientError, ConfigurationError, RestoreError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.client_choice import choose_psql
from airflow_pgbackup.postgres.tools.clients import Client, find_clients

Fresh = Callable[..., ConnectionParams]


def counts(connection: ConnectionParams) -> dict[str, int]:
    return {name: value(connection, f"select count(*) from {name}") for name in ROWS}


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_into_a_newer_server(
    format: str, server16: PostgresServer, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server16, server18)
    repository = local(tmp_path)
    options = {"no_owner": True} if format == "plain" else {}
    reference = backup(fresh_database(server16, None, *SCHEMA), repository, format=format, **options)
    target = fresh_database(server18)
    result = restored(
        reference, repository, target, options={"no_owner": True, "jobs": 2} if format == "custom" else {}
    )
    assert counts(target) == ROWS
    assert result["rows"] == ROW_COUNT


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_an_older_server_is_refused_unless_allowed(
    format: str, server16: PostgresServer, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server16, server18)
    repository = local(tmp_path)
    reference = backup(
        fresh_database(server18, None, *SCHEMA), repository, format=format, no_owner=True, no_privileges=True
    )
    target = fresh_database(server16)
    options = {"no_owner": True, "no_privileges": True} if format == "custom" else {}
    refusal = (
        r"the backup is of PostgreSQL 18, but the server of .* is version 16, which does not know transaction_timeout"
    )
    with pytest.raises(ConfigurationError, match=refusal) as refused:
        restored(reference, repository, target, options=options)
    assert "Restore into PostgreSQL 18 or newer" in str(refused.value)
    restored(reference, repository, target, options=options, target={"allow_older_server": True})
    assert counts(target) == ROWS


@pytest.mark.every_value
@pytest.mark.parametrize("mode", ["into_empty", "replace"])
@pytest.mark.parametrize("format", ["custom", "directory", "tar", "plain"])
def test_an_old_server_backed_up_and_restored_by_newer_clients(
    format: str, mode: str, only_18: None, server16: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    # pg_restore 17 and newer begins with SET transaction_timeout, and fails on a server before 17.
    make_roles(server16)
    repository = local(tmp_path)
    source, target = fresh_database(server16, None, *SCHEMA), fresh_database(server16)
    reference = backup(source, repository, format=format)
    assert str(reference["client_version"]).startswith("18.")
    result = restored(reference, repository, target, mode=mode, target={"keep_old": False})
    assert script_of(server16, target) == script_of(server16, source)
    assert result["rows"] == ROW_COUNT


def test_an_archive_that_no_client_here_can_read(
    server16: PostgresServer, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    repository = local(tmp_path)
    reference = backup(fresh_database(server18), repository)
    old = [client for client in find_clients([str(postgres_bin_dir(16))]) if client.major == 16]
    monkeypatch.setattr("airflow_pgbackup.backup.restore.archive.find_clients", lambda *_: old)
    with pytest.raises(ClientError, match=r"no pg_restore here can read an archive of pg_dump 18\.\d+.*: found 16"):
        restored(reference, repository, fresh_database(server18))


def test_a_script_wants_a_psql_that_can_be_restricted(tmp_path: Path) -> None:
    for name in ("pg_dump", "psql"):
        shutil.copy(os.fspath(shutil.which("true")), tmp_path / name)
    old = [Client(tmp_path, version, "test") for version in ((18, 0), (17, 5), (16, 9), (15, 13))]
    new = Client(tmp_path, (17, 6), "test")
    found = r"needed 15\.14, 16\.10, 17\.6, 18 or newer, found 17\.5 .*; 16\.9 .*; 15\.13"
    with pytest.raises(ClientError, match=found) as error:
        choose_psql(old[1:], 17)
    assert "postgresql-client-17" in str(error.value.hint)
    assert choose_psql([*old[1:], new], 16) == new
    assert choose_psql([old[0], new], 17) == new
    assert choose_psql([old[0], new], 15) == old[0]
    with pytest.raises(ClientError, match="no psql found"):
        choose_psql([], 17)


@pytest.mark.parametrize("mode", ["into_empty", "create"])
def test_schema_public_of_a_selected_dump_is_no_collision(
    mode: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """``pg_dump --schema=public`` writes CREATE SCHEMA public, which every database has already."""
    make_roles(server18)
    repository = local(tmp_path)
    source = fresh_database(server18, None, *SCHEMA, "comment on schema public is 'ours'")
    for number, format in enumerate(("custom", "plain", "tar")):
        reference = backup(source, repository, format=format, schemas=["public"])
        target = server18.params.with_database(f"public_{mode}_{number}")
        if mode == "into_empty":
            target = fresh_database(server18, target.dbname)
        log: list[str] = []
        try:
            restored(reference, repository, target, mode=mode, log=log.append)
            assert counts(target) == ROWS
            assert value(target, "select obj_description('public'::regnamespace)") == "ours"
            left_out = [line for line in log if line.startswith("skipping ")]
            assert len(left_out) == 1
        finally:
            with server18.params.connect() as session:
                session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(target.dbname)))


PUBLIC = "select nspowner::regrole, nspacl, obj_description(oid) from pg_namespace where nspname = 'public'"


@pytest.mark.parametrize(
    "statements",
    [
        (),
        ("revoke usage on schema public from public", "comment on schema public is null"),
        (f'alter schema public owner to "{OWNER}"', 'grant usage on schema public to "the ""reader"""'),
    ],
    ids=["of initdb", "revoked", "owner"],
)
def test_schema_public_of_a_selected_dump_has_its_privileges(
    statements: tuple[str, ...], server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """pg_dump writes only those that differ from the ones of initdb."""
    make_roles(server18)
    repository = local(tmp_path)
    source = fresh_database(server18, None, "create table t (a int)", *statements)
    with source.connect() as session:
        expected = session.execute(PUBLIC).fetchone()
    for format, options in (("custom", {}), ("plain", {"clean": True, "if_exists": True}), ("plain", {})):
        reference = backup(source, repository, format=format, schemas=["public"], **options)
        target = fresh_database(server18)
        restored(reference, repository, target, mode="replace")
        with target.connect() as session:
            assert session.execute(PUBLIC).fetchone() == expected, (format, options)
        empty = fresh_database(server18)
        restored(reference, repository, empty)
        assert expected is not None
        assert value(empty, PUBLIC) == expected[0], (format, options)


def test_restore_by_an_unprivileged_role(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    make_roles(server18)
    repository = local(tmp_path)
    source = fresh_database(server18, None, *SCHEMA)
    with server18.params.connect() as session:
        session.execute("drop role if exists little")
        session.execute("create role little login password 'little'")
    little = ConnectionParams(keywords={**server18.params.keywords, "user": "little"}, password="little")
    target = fresh_database(server18)
    with server18.params.connect() as session:
        session.execute(f"alter database {target.dbname} owner to little")
    mine = little.with_database(target.dbname)
    try:
        reference = backup(source, repository)
        with pytest.raises(ToolError, match=r"was not changed.*HINT: Connect as a superuser"):
            restored(reference, repository, mine)
        with pytest.raises(ConfigurationError, match=r"little may not create databases.*without jobs"):
            restored(reference, repository, mine, options={"jobs": 2})
        with pytest.raises(ConfigurationError, match="little may not create databases"):
            restored(reference, repository, mine, mode="replace")
        options = {"no_owner": True, "no_privileges": True}
        assert restored(reference, repository, mine, options=options)["rows"] == ROW_COUNT
        with server18.params.connect() as session:
            session.execute("alter role little createdb")
        result = restored(reference, repository, mine, mode="replace", options={**options, "jobs": 2})
        assert result["rows"] == ROW_COUNT
        somebodys = little.with_database(source.dbname)
        refusal = r'user little may not rename database ".*", which .* owns'
        with pytest.raises(ConfigurationError, match=refusal):
            restored(reference, repository, somebodys, mode="replace")
    finally:
        with server18.params.connect() as session:
            for name in databases_of(server18):
                if name.startswith(target.dbname):
                    session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            session.execute("drop role little")


# -- whole clusters


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    """A small cluster with a bit of everything that databases share."""
    with fresh_server(18, superuser="postgres") as server:
        make_roles(server)
        with server.params.connect() as session:
            session.execute("create database films")
            session.execute('create database "odd \'name" owner app_owner')
            session.execute("create role leader superuser login password 'secret'")
            session.execute("grant leader to app_owner")
            session.execute("alter database films set work_mem to '12MB'")
            marker = '{"request": "r", "series": "s", "id": "i", "replaced": "", "oid": 0}'
            session.execute(f"comment on database films is E'of films\\nairflow-pgbackup: {marker}'")
            session.execute("alter role app_owner in database films set work_mem to '13MB'")
            session.execute("create table in_postgres as select 1 as a")
        with server.params.with_database("films").connect() as session:
            for statement in SCHEMA:
                session.execute(statement)
        with server.params.with_database("odd 'name").connect() as session:
            session.execute("create table t as select 1 as a")
        yield server


@pytest.mark.every_value
@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize(
    "dumped",
    [{}, {"compress": "zstd"}, {"clean": True, "if_exists": True}, {"clean": True}, {"quote_all_identifiers": True}],
    ids=lambda options: "-".join(options) or "as-is",
)
def test_a_complete_cluster(dumped: dict[str, Any], major: int, cluster: PostgresServer, tmp_path: Path) -> None:
    if major == 16 and dumped:
        dumped = {}
    repository = local(tmp_path / "repository")
    reference = backup_cluster(cluster.params, repository, **dumped)
    assert value(cluster.params, "select 1") == 1
    with fresh_server(major, superuser=None if dumped else "postgres") as server:
        with server.params.connect() as session:
            session.execute("create role app_owner connection limit 9")
        request = {"target": {"allow_older_server": major < 18}}
        plan = restored(reference, repository, server.params, dry_run=True, **request)
        assert databases_of(server) == set()
        assert value(server.params, "select count(*) from pg_roles where rolname = 'leader'") == 0
        log: list[str] = []
        result = restored(reference, repository, server.params, log=log.append, **request)
        assert result["plan"] == plan["plan"]
        assert databases_of(server) == {"films", "odd 'name"}
        films = server.params.with_database("films")
        if major == 18:
            source = cluster.params.with_database("films")
            assert script_of(server, films).replace(server.superuser, "postgres") == script_of(cluster, source)
        assert counts(films) == ROWS
        assert result["rows"] == ROW_COUNT + 2
        assert set(result["databases"]) == {"films", "odd 'name", "postgres"}
        assert value(server.params, "select a from in_postgres") == 1
        assert value(server.params.with_database("odd 'name"), "select a from t") == 1
        settings = "select array_agg(setconfig order by 1) from pg_db_role_setting where setdatabase <> 0"
        assert value(server.params, settings) == [["work_mem=12MB"], ["work_mem=13MB"]]
        comment = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'films'"
        assert value(server.params, comment) == "of films"
        owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'odd ''name'"
        assert value(server.params, owner) == OWNER
        assert "app_owner" in result["roles_existing"]
        assert "leader" in result["roles_created"]
        assert value(server.params, "select rolconnlimit from pg_roles where rolname = 'app_owner'") == 9
        assert value(server.params, "select pg_has_role('app_owner', 'leader', 'MEMBER')")
        assert "SCRAM" not in "\n".join(log)


PROPERTIES = (
    "select datname, datconnlimit, datistemplate, shobj_description(d.oid, 'pg_database'), "
    "(select array_agg((coalesce(rolname, 'public'), privilege_type)::text order by 1) from aclexplode(datacl) "
    "left join pg_roles r on r.oid = grantee where rolname is distinct from pg_get_userbyid(datdba)), "
    "array(select (coalesce(rolname, '-'), setconfig)::text from pg_db_role_setting left join pg_roles r "
    "on r.oid = setrole where setdatabase = d.oid order by 1) "
    "from pg_database d where datname in ('postgres', 'template1') order by 1"
)


def properties(server: PostgresServer) -> list[Any]:
    with server.params.connect() as session:
        return session.execute(PROPERTIES).fetchall()


def test_the_databases_that_every_server_has_get_their_properties(cluster: PostgresServer, tmp_path: Path) -> None:
    """They are in a dump with clean."""
    with cluster.params.connect() as session:
        for statement in (
            "alter database postgres set work_mem = '11MB'",
            "alter role app_owner in database postgres set work_mem = '12MB'",
            "revoke connect on database postgres from public",
            "grant connect on database postgres to app_owner",
            "comment on database postgres is 'mine'",
            "alter database postgres connection limit 7",
            "alter database template1 set work_mem = '2MB'",
        ):
            session.execute(statement)  # type: ignore[call-overload]
    repository = local(tmp_path / "repository")
    reference = backup_cluster(cluster.params, repository, clean=True, if_exists=True)
    with fresh_server(18) as server:
        result = restored(reference, repository, server.params)
        assert properties(server) == properties(cluster)
        assert not [line for line in result["warnings"] if "differs from" in line]


def test_a_cluster_with_a_database_that_fails_leaves_none_of_them(cluster: PostgresServer, tmp_path: Path) -> None:
    with cluster.params.connect() as session:
        session.execute("create database zz_last")
    with cluster.params.with_database("postgres").connect() as session:
        session.execute("create table kept as select 1 as a")
    with cluster.params.with_database("zz_last").connect() as session:
        session.execute("create function g(int) returns int immutable language sql as $$ select 1 $$")
        session.execute("create table t as select 1 as a")
        session.execute("create index i on t (public.g(a))")
        session.execute(
            "create or replace function g(int) returns int immutable language plpgsql as "
            "$$ begin raise 'never again'; end $$"
        )
    repository = local(tmp_path / "repository")
    reference = backup_cluster(cluster.params, repository)
    with fresh_server(18) as server:
        state = "its roles and tablespaces were created, but no new database; restored: postgres"
        with pytest.raises(ToolError, match=f"never again; {state}"):
            restored(reference, repository, server.params)
        assert value(server.params.with_database("postgres"), "select count(*) from kept") == 1
        assert databases_of(server) == set()


def test_existing_roles_and_databases_are_not_changed(cluster: PostgresServer, tmp_path: Path) -> None:
    repository = local(tmp_path / "repository")
    reference = backup_cluster(cluster.params, repository)
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute("create database films")
        with pytest.raises(ConfigurationError, match="already has database films"):
            restored(reference, repository, server.params)
        with server.params.connect() as session:
            session.execute("drop database films with (force)")
            session.execute("create table precious (a int)")
        with pytest.raises(ConfigurationError, match=r"postgres is not empty: it has table public.precious"):
            restored(reference, repository, server.params)
        with pytest.raises(ConfigurationError, match="mode create cannot be used with the backup of a cluster"):
            restored(reference, repository, server.params, mode="create")
        with pytest.raises(ConfigurationError, match='database "postgres" is never replaced'):
            restored(reference, repository, server.params, mode="replace")
        assert value(server.params, "select count(*) from pg_roles where rolname = 'leader'") == 0
        assert databases_of(server) == set()


def test_globals_alone(cluster: PostgresServer, tmp_path: Path) -> None:
    repository = local(tmp_path / "repository")
    with fresh_server(18) as server:
        for options in ({"roles_only": True}, {"globals_only": True}, {"tablespaces_only": True}):
            reference = backup_cluster(cluster.params, repository, **options)
            result = restored(reference, repository, server.params)
            assert result["databases"] == []
        assert value(server.params, "select rolsuper from pg_roles where rolname = 'leader'")
        assert databases_of(server) == set()


def test_roles_are_restored_all_or_none(cluster: PostgresServer, tmp_path: Path) -> None:
    with cluster.params.connect() as session:
        session.execute("alter role leader set session_preload_libraries to 'no_such_library'")
    repository = local(tmp_path / "repository")
    reference = backup_cluster(cluster.params, repository, globals_only=True)
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute("create role plain login createrole")
        plain = ConnectionParams(keywords={**server.params.keywords, "user": "plain"})
        with pytest.raises(RestoreError, match=r"cannot restore global objects: .*; no roles were created") as failed:
            restored(reference, repository, plain)
        assert "SCRAM" not in str(failed.value)
        assert value(server.params, "select count(*) from pg_roles where rolname in ('leader', 'app_owner')") == 0


def test_a_tablespace_without_its_directory(server18: PostgresServer) -> None:
    statements = ["CREATE TABLESPACE fast LOCATION '/no/such/directory';"]
    with server18.params.connect() as session:
        plan = plan_globals(statements, ServerInfo.read(session, "the server"), bootstrap=server18.superuser)
        with pytest.raises(RestoreError, match='directory "/no/such/directory" does not exist') as failed:
            apply_globals(session, plan, lambda line: None, lambda line: None)
    assert "no_tablespaces=True" in str(failed.value.hint)


def test_a_tablespace_gets_its_name_with_its_grants(server18: PostgresServer) -> None:
    """What CREATE TABLESPACE has made stays, whatever comes after it, and an existing tablespace is not changed."""
    statements = [
        "CREATE TABLESPACE granted OWNER " + server18.superuser + " LOCATION '';",
        "ALTER TABLESPACE granted SET (random_page_cost=1.5);",
        "GRANT CREATE ON TABLESPACE granted TO late;",
    ]
    with server18.params.connect() as session:
        session.execute("set allow_in_place_tablespaces = on")

        def restore() -> None:
            server = ServerInfo.read(session, "the server")
            plan = plan_globals(statements, server, bootstrap=server18.superuser)
            apply_globals(session, plan, lambda line: None, lambda line: None)

        def found() -> list[str]:
            query = "select spcname || spcoptions::text || spcacl::text from pg_tablespace where oid >= 16384"
            return [row[0] for row in session.execute(query)]

        with pytest.raises(RestoreError, match='role "late" does not exist'):
            restore()
        assert found() == []
        session.execute("create role late")
        try:
            restore()
            (line,) = found()
            assert line.startswith("granted{random_page_cost=1.5}")
            assert "late=C/" in line
        finally:
            session.execute("drop tablespace if exists granted")
            session.execute("drop role late")
