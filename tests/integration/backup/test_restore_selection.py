"""restore: parts of a backup, other owners, roles of a cluster backup, and what the server lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from restoring import (
    OWNER,
    ROW_COUNT,
    SCHEMA,
    backup,
    backup_cluster,
    databases_of,
    fresh_server,
    in_s3,
    local,
    make_roles,
    restored,
    script_of,
    value,
)

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.restore import GlobalsBackup
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError, OptionError, ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.repository.base import Repository

Fresh = Callable[..., ConnectionParams]

RELATIONS = (
    "select string_agg(relname, ' ' order by relname) from pg_class where relkind in ('r', 'p', 'v') and oid >= 16384"
)


@pytest.fixture
def dumped(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> tuple[dict[str, object], Repository]:
    make_roles(server18)
    repository = local(tmp_path / "repository")
    return backup(fresh_database(server18, None, *SCHEMA), repository), repository


@pytest.mark.parametrize(
    ("options", "relations"),
    [
        ({"tables": ["film", "actor"]}, "actor film"),
        ({"schemas": ['Odd "schema"']}, None),
        ({"schemas": ['Odd "schema"'], "strict_names": True}, None),
        ({"schema_only": True}, "a table\nof two lines actor film film_actor plan plan_1 titles"),
        ({"sections": ["pre-data"]}, "a table\nof two lines actor film film_actor plan plan_1 titles"),
    ],
)
def test_a_selection(
    options: dict[str, Any],
    relations: str | None,
    dumped: tuple[dict[str, object], Repository],
    server18: PostgresServer,
    fresh_database: Fresh,
) -> None:
    target = fresh_database(server18)
    if relations is None:
        # pg_restore's --schema restores what is in a schema, not the schema itself.
        with pytest.raises(ToolError, match="was not changed"):
            restored(*dumped, target, options=options)
        with target.connect() as session:
            session.execute('create schema "Odd ""schema"""')
        restored(*dumped, target, options=options, mode="into_existing")
        relations = "a table\nof two lines"
    else:
        restored(*dumped, target, options=options)
    assert value(target, RELATIONS) == relations


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_tables_with_names_like_those_of_entries(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """Such as DATABASE app, of the entry of a database's comment."""
    statements = ['create schema "DATABASE app"']
    for table in ('"DATABASE users"', '"LARGE OBJECT 1"', '"LARGE OBJECTS"', '"DATABASE app"."SUBSCRIPTION plans"'):
        statements += [
            f"create table {table} (a int)",
            f"insert into {table} values (1)",
            f"comment on table {table} is 'c'",
            f"grant select on {table} to public",
        ]
    source, target = fresh_database(server18, None, *statements), fresh_database(server18)
    repository = local(tmp_path)
    reference = backup(source, repository, format=format, schemas=["public", '"DATABASE app"'])
    verified = verify(reference=reference, repository=repository, level="restore", context=RunContext())
    assert verified["verified"], verified["error"]
    restored(reference, repository, target)
    assert script_of(server18, target) == script_of(server18, source)


UNMATCHED: dict[str, tuple[dict[str, Any], str]] = {
    "table": ({"tables": ["film", "actro"]}, r'the backup has no table "actro"'),
    "several": (
        {"tables": ["film", "actro"], "functions": ["f()", "f(int)"], "indexes": ["nosuch"], "triggers": ["t"]},
        r'the backup has no table "actro", function "f\(int\)", index "nosuch", trigger "t"',
    ),
    "schema": ({"schemas": ["public", "pubic"]}, r'the backup has no schema "pubic"'),
    "in another schema": (
        {"schemas": ['Odd "schema"'], "tables": ["a table\nof two lines", "film"]},
        r'the backup has no table "film" in the selected schemas',
    ),
    "in a filter": (
        {"filters": "include table film\ninclude table actro\n"},
        "the backup lacks what the filters name: .*actro.*not found",
    ),
}


@pytest.mark.parametrize("what", UNMATCHED)
def test_a_name_that_matches_nothing_replaces_no_database(
    what: str,
    dumped: tuple[dict[str, object], Repository],
    server18: PostgresServer,
    fresh_database: Fresh,
    tmp_path: Path,
) -> None:
    options, message = UNMATCHED[what]
    if "filters" in options:
        (tmp_path / "filters").write_text(options["filters"])
        options = {"filters": [str(tmp_path / "filters")]}
    target = fresh_database(server18, None, "create table kept (a int)")
    before = databases_of(server18)
    for dry_run in (True, False):
        with pytest.raises(OptionError, match=message):
            restored(*dumped, target, options=options, mode="replace", dry_run=dry_run)
    assert value(target, RELATIONS) == "kept"
    assert databases_of(server18) == before


def test_a_name_that_matches_nothing_is_a_warning_where_nothing_is_replaced(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh
) -> None:
    target = fresh_database(server18)
    done = restored(*dumped, target, options={"tables": ["film", "actro"]})
    assert value(target, RELATIONS) == "film"
    assert 'the backup has no table "actro"' in done["warnings"]


def test_names_that_match_replace_a_database(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh
) -> None:
    """Each kind of name, also one whose entries the other options leave out."""
    target = fresh_database(server18, None, "create table kept (a int)")
    options = {"tables": ["film", "titles", "counted"], "functions": ["f()"], "indexes": ["film_title"]}
    restored(*dumped, target, options={**options, "sections": ["pre-data"]}, mode="replace")
    assert value(target, RELATIONS) == "film titles"


def test_a_list_file_says_what_to_restore(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    target = fresh_database(server18)
    (tmp_path / "empty.list").write_text("; nothing\n")
    with pytest.raises(OptionError, match="the options select none"):
        restored(*dumped, target, options={"use_list": tmp_path / "empty.list"})
    log: list[str] = []
    plan = restored(*dumped, target, dry_run=True, log=log.append)["plan"]
    assert plan == [line for line in log if line in plan]
    from airflow_pgbackup.postgres.archive.toc import read_toc

    repository = dumped[1]
    manifest = load_manifest(repository, dumped[0])
    with repository.read(manifest.artifact_key) as stream:
        toc, _ = read_toc(stream, what="the archive")
    wanted = [entry for entry in toc.entries if entry.name == "actor" or entry.name.startswith("actor_actor_id")]
    (tmp_path / "actor.list").write_text("".join(f"{entry.dump_id}; {entry.label}\n" for entry in wanted))
    result = restored(*dumped, target, options={"use_list": tmp_path / "actor.list"})
    assert value(target, RELATIONS) == "actor"
    assert result["rows"] == 500


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_list_file_says_in_which_order(
    where: str, server18: PostgresServer, s3: S3Server, fresh_database: Fresh, tmp_path: Path
) -> None:
    """Out of a stream pg_restore cannot go back for rows that it has passed."""
    make_roles(server18)
    repository = local(tmp_path / "repository") if where == "folder" else in_s3(s3)
    reference = backup(fresh_database(server18, None, *SCHEMA), repository)
    path = download(repository, load_manifest(repository, reference), tmp_path)
    listed = run_tool([server18.bin_dir / "pg_restore", "--list", path], env={}).decode().splitlines()
    data = [line for line in listed if " TABLE DATA " in line]
    before = [line for line in listed[: listed.index(data[0])] if line not in data]
    after = [line for line in listed[listed.index(data[0]) :] if line not in data]
    (tmp_path / "other.list").write_text("\n".join([*before, *reversed(data), *after]))
    target = fresh_database(server18)
    assert restored(reference, repository, target, options={"use_list": tmp_path / "other.list"})["rows"] == ROW_COUNT


def test_rows_into_existing_tables_all_or_none(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh
) -> None:
    target = fresh_database(server18, None, SCHEMA[0], SCHEMA[2], "alter table actor add check (actor_id <= 400)")
    options = {"data_only": True, "tables": ["film", "actor"]}
    with pytest.raises(ToolError, match=r"violates check constraint .* was not changed"):
        restored(*dumped, target, options=options, mode="into_existing")
    assert value(target, "select count(*) from film") == 0
    with target.connect() as session:
        session.execute("alter table actor drop constraint actor_actor_id_check")
    result = restored(*dumped, target, options=options, mode="into_existing")
    assert (result["rows"], result["objects"]) == (3500, 0)


def test_clean_into_existing_replaces_objects(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh
) -> None:
    target = fresh_database(server18, None, "create table actor (other text)", "create table mine as select 1 as a")
    options = {"clean": True, "if_exists": True, "tables": ["actor"]}
    result = restored(*dumped, target, options=options, mode="into_existing")
    assert result["rows"] is None, "nobody knows how many of the rows before were dropped"
    assert result["objects"] > 0
    assert value(target, "select count(name) from actor") == 500
    assert value(target, "select a from mine") == 1


def test_other_owners(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh
) -> None:
    owners = "select string_agg(distinct pg_get_userbyid(relowner), ' ') from pg_class where oid >= 16384"
    options = {"no_owner": True, "no_privileges": True, "role": OWNER}
    target = fresh_database(server18)
    with pytest.raises(ToolError, match=r"permission denied for database .* was not changed.*GRANT CREATE"):
        restored(*dumped, target, options=options)
    target = server18.params.with_database("other_owner")
    restored(*dumped, target, mode="create", options=options)
    assert value(target, owners) == OWNER
    assert value(target, "select pg_get_userbyid(datdba) from pg_database where datname = 'other_owner'") == OWNER
    with server18.params.connect() as session:
        session.execute("drop database other_owner with (force)")


def test_everything_the_server_lacks_is_reported_at_once(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server18)
    repository = local(tmp_path / "repository")
    source = fresh_database(server18, None, *SCHEMA, "create extension vector", "create policy p on actor to app_owner")
    tablespace = tmp_path / "tablespace"
    with server18.params.connect() as session:
        session.execute("set allow_in_place_tablespaces = on")
        session.execute("create tablespace elsewhere location ''")
    try:
        with source.connect() as session:
            session.execute("create table moved (a int) tablespace elsewhere")
        references = [backup(source, repository), backup(source, repository, format="plain")]
        with fresh_server(18) as other:
            for path in (other.bin_dir.parent / "share").rglob("vector.control"):
                assert path.exists()
            for reference in references:
                with other.params.connect() as session:
                    session.execute("drop database if exists empty")
                    session.execute("create database empty")
                empty = other.params.with_database("empty")
                roles = f'roles app_owner, {server18.superuser}, the "reader"'
                lacks = f"lacks what the backup needs: {roles}; tablespace elsewhere"
                with pytest.raises(ConfigurationError, match=lacks) as refused:
                    restored(reference, repository, empty)
                assert "no_owner" in str(refused.value)
                assert value(empty, "select count(*) from pg_class where oid >= 16384") == 0
            options = {"no_owner": True, "no_privileges": True, "no_tablespaces": True, "no_policies": True}
            assert restored(references[0], repository, empty, options=options)["rows"] == ROW_COUNT
    finally:
        with source.connect() as session:
            session.execute("drop table moved")
        with server18.params.connect() as session:
            session.execute("drop tablespace elsewhere")
    assert not tablespace.exists()


def test_roles_from_a_cluster_backup_come_first(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path, canary: str
) -> None:
    make_roles(server18)
    repository = local(tmp_path / "repository")
    with server18.params.connect() as session:
        session.execute("drop role if exists leader, member")
        session.execute("create role leader login password 'secret of the leader' connection limit 3")
        session.execute("create role member login valid until '2030-01-01'")
        session.execute("grant leader to member with admin option")
        session.execute('grant leader to "the ""reader""" granted by member')
        session.execute("alter role member set work_mem to '7MB'")
        session.execute("comment on role member is 'of the club'")
    reference = backup(fresh_database(server18, None, *SCHEMA), repository)
    cluster = backup_cluster(server18.params, repository, globals_only=True)
    with fresh_server(18) as other:
        with other.params.connect() as session:
            session.execute("create role app_owner connection limit 9")
        log: list[str] = []
        target = other.params.with_database("restored")
        result = restored(
            reference,
            repository,
            target,
            mode="create",
            globals_from=GlobalsBackup(cluster, repository),
            log=log.append,
        )
        assert result["rows"] == ROW_COUNT
        # and perhaps others, of tests that share the server
        assert set(result["roles_created"]) >= {server18.superuser, "leader", "member", 'the "reader"'}
        assert result["roles_existing"] == ["app_owner"]
        assert "existing roles were not changed: app_owner" in result["warnings"]
        # left alone; and as they were there
        assert value(other.params, "select rolconnlimit from pg_roles where rolname = 'app_owner'") == 9
        assert value(other.params, "select rolconnlimit from pg_roles where rolname = 'leader'") == 3
        assert value(other.params, "select rolconfig from pg_roles where rolname = 'member'") == ["work_mem=7MB"]
        memberships = (
            "select m.roleid::regrole || ' to ' || m.member::regrole || ' ' || m.admin_option || ' ' || "
            "m.grantor::regrole from pg_auth_members m where m.roleid = 'leader'::regrole"
        )
        with other.params.connect() as session:
            assert {row[0] for row in session.execute(memberships)} == {
                f"leader to member true {other.superuser}",
                'leader to "the ""reader""" false member',
            }
        verifier = "select rolpassword from pg_authid where rolname = 'leader'"
        assert value(other.params, verifier) == value(server18.params, verifier)
        assert "SCRAM" not in "\n".join(log) + str(result)


def test_a_plain_dump_is_restored_completely(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    make_roles(server18)
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, *SCHEMA), repository, format="plain")
    target = fresh_database(server18)
    for options in ({"tables": ["film"]}, {"no_owner": True}):
        with pytest.raises(OptionError, match=f"{next(iter(options))} cannot be used with a plain dump"):
            restored(reference, repository, target, options=options)
    with pytest.raises(OptionError, match="a backup in plain format cannot be restored with 4 jobs"):
        restored(reference, repository, target, options={"jobs": 4})
    reference = backup(fresh_database(server18, None, *SCHEMA), repository, format="tar")
    with pytest.raises(OptionError, match="a backup in tar format cannot be restored with 4 jobs"):
        restored(reference, repository, target, options={"jobs": 4})


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_failed_restore_leaves_nothing_not_even_large_objects(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    # The script of a plain dump has COMMITs of its own, around its large objects; what comes after them fails.
    repository = local(tmp_path)
    source = fresh_database(
        server18,
        None,
        "create table t as select generate_series(1, 100) a",
        "select lo_from_bytea(0, 'a large object')",
        "create schema s",
        "create function s.f(int) returns int immutable language plpgsql as $$ begin return 1 / nullif($1, 50); end $$",
        "create function s.g(int) returns int immutable language sql as $$ select 1 $$",
        "create index i on t (s.g(a))",
    )
    with source.connect() as session:
        session.execute(
            "create or replace function s.g(int) returns int immutable language plpgsql as "
            "$$ begin if $1 = 50 then raise 'not with 50'; end if; return 1; end $$"
        )
    reference = backup(source, repository, format=format)
    target = fresh_database(server18)
    with pytest.raises(ToolError, match=r"not with 50.*was not changed"):
        restored(reference, repository, target)
    assert value(target, "select count(*) from pg_class where oid >= 16384") == 0
    assert value(target, "select count(*) from pg_largeobject_metadata") == 0
    before = databases_of(server18)
    with pytest.raises(ToolError, match=r"not with 50.*database .nowhere. was not created"):
        restored(reference, repository, server18.params.with_database("nowhere"), mode="create")
    assert databases_of(server18) == before


@pytest.mark.parametrize("format", ["custom", "directory", "tar", "plain"])
def test_a_damaged_backup_is_refused_before_a_program_reads_it(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server18)
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, *SCHEMA), repository, format=format)
    artifact = next(tmp_path.rglob(str(reference["artifact"])))
    file = max(artifact.iterdir(), key=lambda path: path.stat().st_size) if artifact.is_dir() else artifact
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    target, log = fresh_database(server18), []
    with pytest.raises(VerificationFailed, match=r"is damaged: .*: checksum mismatch: .*") as refused:
        restored(reference, repository, target, log=log.append)
    assert "Nothing was changed" in str(refused.value)
    assert not [line for line in log if "pg_restore" in line or "psql" in line]
    assert value(target, "select count(*) from pg_class where oid >= 16384") == 0


def test_a_dry_run_returns_the_plan_and_changes_nothing(
    dumped: tuple[dict[str, object], Repository], server18: PostgresServer, fresh_database: Fresh
) -> None:
    target = fresh_database(server18, None, "create table old as select 1 as a")
    before = databases_of(server18)
    result = restored(*dumped, target, mode="replace", dry_run=True, options={"jobs": 3})
    assert result["dry_run"]
    plan = "\n".join(result["plan"])
    assert re.search(r"34 of 38 entries: .*\nwith pg_restore 18\.\d+ \(.*\), 3 jobs\n", plan)
    assert "the old database is renamed, with the date" in plan
    assert databases_of(server18) == before
    assert value(target, "select a from old") == 1


def test_a_failure_names_the_roles_that_were_created(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path / "repository")
    make_roles(server18)
    reference = backup(fresh_database(server18, None, "create schema app", "create table app.t (a int)"), repository)
    roles = GlobalsBackup(backup_cluster(server18.params, repository, globals_only=True), repository)
    with fresh_server(18) as other:
        target = other.params.with_database("new")
        with pytest.raises(ToolError, match='schema "app" does not exist') as failed:
            restored(reference, repository, target, mode="create", globals_from=roles, options={"schemas": ["app"]})
    assert re.search(rf'"new" was not created; roles and tablespaces were created: .*{OWNER}', failed.value.message)
    assert "A selection of schemas or tables does not create the schema" in str(failed.value.hint)
