"""restore: every format, from a directory and from S3, in every mode, on real servers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
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
    databases_of,
    fresh_server,
    in_s3,
    local,
    make_roles,
    restored,
    script_of,
    value,
)

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.databases.sessions import with_option
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import (
    Canceled,
    ConfigurationError,
    ConnectError,
    RestoreError,
    ToolError,
    VerificationFailed,
)
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel

Fresh = Callable[..., ConnectionParams]

FORMATS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"format": "custom"}, {}),
    ({"format": "custom"}, {"jobs": 2}),
    ({"format": "directory"}, {}),
    ({"format": "directory", "jobs": 2}, {"jobs": 2}),
    ({"format": "tar"}, {}),
    ({"format": "plain"}, {}),
    ({"format": "plain", "compress": "zstd"}, {}),
    ({"format": "plain", "compress": "gzip", "create": True, "clean": True, "if_exists": True}, {}),
]


@pytest.mark.every_value
@pytest.mark.parametrize("where", ["folder", "s3"])
@pytest.mark.parametrize(("dumped", "options"), FORMATS, ids=lambda given: "-".join(map(str, given.values())) or "one")
def test_every_format_into_an_empty_database(
    dumped: dict[str, Any],
    options: dict[str, Any],
    where: str,
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Fresh,
    tmp_path: Path,
    assert_no_canary: Callable[[object], None],
) -> None:
    make_roles(server18)
    source, target = fresh_database(server18, None, *SCHEMA), fresh_database(server18)
    repository = local(tmp_path / "repository") if where == "folder" else in_s3(s3)
    reference = backup(source, repository, **dumped)
    before, log = databases_of(server18), []
    result = restored(reference, repository, target, options=options, log=log.append)
    assert script_of(server18, target) == script_of(server18, source)
    assert result["rows"] == ROW_COUNT
    assert result["objects"] == 13
    assert result["replaced"] is None
    assert result["warnings"] == [f"backup {result['backup']} is not verified yet"]
    assert result["database"] == target.dbname
    assert databases_of(server18) == before
    # statistics are there
    assert value(target, "select reltuples from pg_class where relname = 'film'") == 3000
    assert_no_canary(log)
    assert_no_canary(result)


def test_a_target_that_is_not_empty_is_refused_with_its_objects(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server18)
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, *SCHEMA), repository)
    target = fresh_database(server18, None, "create table precious as select 1 as a", "create type mood as enum ('ok')")
    with pytest.raises(
        ConfigurationError, match=r"is not empty: it has table public.precious, type public.mood"
    ) as refused:
        restored(reference, repository, target)
    assert "mode replace" in str(refused.value)
    assert value(target, "select a from precious") == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"mode": "overwrite"}, "invalid mode 'overwrite'"),
        ({"options": {"jobs": 2}, "mode": "into_existing"}, "jobs cannot be combined with mode into_existing"),
        ({"options": {"clean": True}}, "clean cannot be combined with mode into_empty"),
        ({"options": {"create": True}}, "create cannot be used"),
        ({"options": {"schemas": "public"}}, "schemas is the string"),
        ({"options": {"schemas": ["nowhere"]}}, "the options select none of the backup's"),
        ({"options": {"data_only": True, "schema_only": True}}, "data_only and schema_only"),
        ({"mode": "create"}, "already exists"),
    ],
)
def test_an_invalid_request_changes_nothing(
    request_: dict[str, Any], message: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server18)
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, *SCHEMA), repository)
    target = fresh_database(server18)
    before = databases_of(server18)
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        restored(reference, repository, target, **request_)
    assert refused.value.hint
    assert databases_of(server18) == before
    assert value(target, "select count(*) from pg_class where oid >= 16384") == 0


def test_a_database_that_does_not_exist(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    repository = local(tmp_path)
    reference = backup(fresh_database(server18), repository)
    nowhere = server18.params.with_database("nowhere")
    with pytest.raises(ConnectError, match='database "nowhere" does not exist'):
        restored(reference, repository, nowhere)
    with pytest.raises(ConfigurationError, match='database "nowhere" does not exist'):
        restored(reference, repository, nowhere, mode="replace")


PROPERTIES = (
    "alter database {name} set work_mem to '12MB'",
    'alter database {name} set search_path to "$user", public, \'Odd "schema"\'',
    "alter database {name} set default_transaction_read_only to on",
    "alter role \"app_owner\" in database {name} set work_mem to '13MB'",
    "comment on database {name} is 'it''s this one'",
    "revoke temporary on database {name} from public",
    'grant create on database {name} to "the ""reader""" with grant option',
    "alter database {name} connection limit 7",
    'alter database {name} owner to "app_owner"',
)


def properties_of(server: PostgresServer, connection: ConnectionParams) -> str:
    script = script_of(server, connection, "--create", "--exclude-schema=*", "--no-large-objects")
    script = re.sub(r"(?m)^\\(connect|encoding) .*\n|^-- Name: .*\n", "", script)
    return script.replace(quoted(connection.dbname), "NAME").replace(connection.dbname, "NAME")


def with_properties(server: PostgresServer, connection: ConnectionParams) -> None:
    with server.params.connect() as session:
        for statement in PROPERTIES:
            session.execute(statement.replace("{name}", quoted(connection.dbname)))  # type: ignore[arg-type]


@pytest.mark.every_value
@pytest.mark.parametrize("name", ["restored", "host=evil dbname=x", "-lead 'n \"q\\", "a" * 63])
@pytest.mark.parametrize("dumped", [{"format": "custom"}, {"format": "plain", "create": True}], ids=["custom", "plain"])
def test_create_brings_back_what_belongs_to_the_database_under_another_name(
    dumped: dict[str, Any], name: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    make_roles(server18)
    source, repository = fresh_database(server18, None, *SCHEMA), local(tmp_path)
    with_properties(server18, source)
    reference = backup(source, repository, **dumped)
    target = server18.params.with_database(name)
    try:
        result = restored(reference, repository, target, mode="create")
        assert script_of(server18, target) == script_of(server18, source)
        assert properties_of(server18, target) == properties_of(server18, source)
        assert result["rows"] == ROW_COUNT
        assert not [name for name in databases_of(server18) if name.startswith("pgbackup_tmp_")]
    finally:
        with server18.params.connect() as session:
            session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def test_nulls_in_arrays_whatever_the_database_has_set(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    source = fresh_database(server18, None, "create table t as select array['a', null] as items")
    with server18.params.connect() as session:
        name = sql.Identifier(source.dbname)
        session.execute(sql.SQL("alter database {} set array_nulls = off").format(name))
    repository = local(tmp_path)
    target = server18.params.with_database("nulls_in_arrays")
    try:
        restored(backup(source, repository), repository, target, mode="create")
        assert value(target, "select items[2] is null from t") is True
    finally:
        with server18.params.connect() as session:
            session.execute("drop database if exists nulls_in_arrays with (force)")


@pytest.mark.every_value
@pytest.mark.parametrize("keep_old", [True, False])
@pytest.mark.parametrize(
    ("dumped", "options"), [({"format": "directory"}, {"jobs": 2}), ({"format": "plain", "create": True}, {})]
)
def test_replace_keeps_name_and_properties_of_the_old_database(
    dumped: dict[str, Any],
    options: dict[str, Any],
    keep_old: bool,
    server18: PostgresServer,
    fresh_database: Fresh,
    tmp_path: Path,
) -> None:
    make_roles(server18)
    source, repository = fresh_database(server18, None, *SCHEMA), local(tmp_path)
    reference = backup(source, repository, **dumped)
    target = fresh_database(server18, "ä" * 31, "create table old as select 1 as a")
    with_properties(server18, target)
    before, properties = databases_of(server18), properties_of(server18, target)
    result = restored(reference, repository, target, mode="replace", options=options, target={"keep_old": keep_old})
    assert script_of(server18, target) == script_of(server18, source)
    assert properties_of(server18, target) == properties
    if keep_old:
        old = result["replaced"]
        assert re.fullmatch(r"ä{18}_replaced_\d{8}T\d{6}Z", old)
        assert databases_of(server18) - before == {old}
        assert value(server18.params.with_database(old), "select a from old") == 1
        with server18.params.connect() as session:
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(old)))
    else:
        assert result["replaced"] is None
        assert databases_of(server18) == before


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("alter default privileges grant select on tables to public", "default privileges"),
        ("grant create on schema public to public", "privileges on schema public"),
    ],
)
def test_an_empty_database_with_more_than_objects_is_kept(
    statement: str, why: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, "create table t as select 1 as a"), repository)
    target, before = fresh_database(server18, None, statement), databases_of(server18)
    result = restored(reference, repository, target, options={"jobs": 2})
    (kept,) = databases_of(server18) - before
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(kept)))
    assert result["replaced"] == kept
    assert f"keeping the old database as {kept}, because it has {why}" in result["warnings"]


@pytest.mark.parametrize("statement", ["commit;", "/* c */ COMMIT;", "END;", "ROLLBACK;", "PREPARE TRANSACTION 'a';"])
def test_a_script_that_ends_the_transaction_itself_changes_nothing(
    statement: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps" / "x.sql").write_text(
        "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 18.0\n\n"
        f"DROP TABLE IF EXISTS public.precious;\nCREATE TABLE public.a (x integer);\n{statement}\n"
        "CREATE TABLE public.b (x integer);\n--\n-- PostgreSQL database dump complete\n--\n\n"
    )
    repository = local(tmp_path / "repository")
    adopted: Any = adopt(repository=repository, sources=[tmp_path / "dumps" / "x.sql"], server="old", database="x")
    target = fresh_database(server18, None, "create table precious as select 1 as a")
    for dry_run in (True, False):
        with pytest.raises(VerificationFailed, match="at byte 146 of the script, which pg_dump never writes"):
            restored(adopted["adopted"][0], repository, target, mode="into_existing", dry_run=dry_run)
    assert value(target, "select a from precious") == 1
    assert value(target, "select to_regclass('a')") is None


@pytest.mark.parametrize(
    "hidden",
    [
        "-- text\rEND;\n",
        "SELECT 1 -- text\r; END;\n",
        "SELECT E'a'\n'b\\''; COMMIT; SELECT 1 AS \"'\";\n--\";\n",
        "SELECT E'a'\r'b\\''; COMMIT; --';\n",
        "COPY public.precious (a) FROM stdin;\n\\.\r\nCOMMIT;\n\\.\n",
    ],
    ids=["comment", "comment in a statement", "continued string", "string continued after CR", "COPY data"],
)
def test_a_script_that_hides_the_end_of_the_transaction_changes_nothing(
    hidden: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps" / "x.sql").write_bytes(
        b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 18.0\n\n"
        b"CREATE TABLE public.a (x integer);\n" + hidden.encode() + b"\nSELECT 1/0;\n"
        b"--\n-- PostgreSQL database dump complete\n--\n\n"
    )
    repository = local(tmp_path / "repository")
    adopted: Any = adopt(repository=repository, sources=[tmp_path / "dumps" / "x.sql"], server="old", database="x")
    target = fresh_database(server18, None, "create table precious as select 1 as a")
    with pytest.raises(VerificationFailed, match="which pg_dump never writes"):
        restored(adopted["adopted"][0], repository, target, mode="into_existing")
    assert value(target, "select to_regclass('a')") is None


@pytest.mark.parametrize(
    "forged",
    [
        b"COMMIT; SELECT 1/0;",
        b"CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END; COMMIT; "
        b"SELECT 1/0 AS end;",
        b"SELECT E'a'\n'b\\''; COMMIT; SELECT 1/0 AS \"'\";",
    ],
    ids=["plain", "in a function body for psql only", "in a continued string"],
)
def test_an_archive_that_ends_the_transaction_itself_changes_nothing(
    forged: bytes, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    source = fresh_database(server18, None, "create table a (x int)", f"comment on table a is '{'padding' * 20}'")
    repository = local(tmp_path / "repository")
    reference = backup(source, repository, format="custom")
    (artifact,) = (tmp_path / "repository").rglob("*.dump")
    comment = b"COMMENT ON TABLE public.a IS '" + b"padding" * 20 + b"';"
    assert artifact.read_bytes().count(comment) == 1
    (tmp_path / "forged.dump").write_bytes(artifact.read_bytes().replace(comment, forged.ljust(len(comment))))
    adopted: Any = adopt(repository=repository, sources=[tmp_path / "forged.dump"], server="old", database="x")
    target = fresh_database(server18)
    for dry_run in (True, False):
        with pytest.raises(VerificationFailed, match=r"COMMENT public\.TABLE a \(entry \d+\) contains 'COMMIT'"):
            restored(adopted["adopted"][0], repository, target, mode="into_empty", dry_run=dry_run)
    assert value(target, "select to_regclass('a')") is None
    restored(reference, repository, target, mode="into_empty")
    assert value(target, "select to_regclass('a')") == "a"


@pytest.mark.every_value
@pytest.mark.parametrize("format", ["custom", "tar", "directory"])
@pytest.mark.parametrize("mode", ["into_empty", "into_existing"])
def test_rows_that_end_the_transaction_themselves_change_nothing(
    mode: str, format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    source = fresh_database(server18, None, "create table a (x int)", "insert into a values (1), (12345678)")
    repository = local(tmp_path / "repository")
    intact = backup(source, repository, format=format, inserts=True, compress="none")
    (dump,) = (tmp_path / "repository").rglob(str(intact["artifact"]))
    (tmp_path / "dumps").mkdir()
    forged = tmp_path / "dumps" / dump.name
    shutil.copytree(dump, forged) if dump.is_dir() else shutil.copyfile(dump, forged)
    insert = b"INSERT INTO public.a VALUES"
    (changed,) = [file for file in [forged, *forged.rglob("*")] if file.is_file() and insert in file.read_bytes()]
    first, second = changed.read_bytes().rsplit(insert, 1)
    changed.write_bytes(first + b"COMMIT; SELECT".ljust(len(insert)) + second)
    adopted: Any = adopt(repository=repository, sources=[tmp_path / "dumps"], server="old", database="x")
    target = fresh_database(server18)
    for dry_run in (True, False):
        with pytest.raises(VerificationFailed, match=r"the data of a; Type: TABLE DATA; .* contains something other"):
            restored(adopted["adopted"][0], repository, target, mode=mode, dry_run=dry_run)
    assert value(target, "select to_regclass('a')") is None
    assert restored(intact, repository, target, mode=mode)["rows"] == 2


@pytest.mark.parametrize("mode", ["create", "into_empty"])
def test_a_script_that_drops_objects_first_fails_with_a_hint(
    mode: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    source = fresh_database(server18, None, "create table t (a int)", "insert into t values (1)")
    repository = local(tmp_path / "repository")
    reference = backup(source, repository, format="plain", clean=True)
    target = server18.params.with_database("drops_first") if mode == "create" else fresh_database(server18)
    with pytest.raises(ToolError, match="does not exist") as caught:
        restored(reference, repository, target, mode=mode)
    assert caught.value.hint is not None
    assert "mode into_existing into a database that has them all" in caught.value.hint
    assert "Next time, dump with if_exists=True beside clean=True, or without it." in caught.value.hint
    with source.connect() as session:
        session.execute("delete from t")
    assert restored(reference, repository, source, mode="into_existing")["rows"] is None  # those it dropped counted too
    assert value(source, "select count(*) from t") == 1


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_a_function_body_of_statements_ends_no_transaction(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    body = "begin atomic; select 1; select case when true then 2 end; end"
    source = fresh_database(
        server18,
        None,
        f"create function f() returns int language sql {body}",
        "create procedure commit() language plpgsql as $$ begin commit; rollback; end $$",
        "select lo_from_bytea(4711, 'a large object')",
    )
    repository = local(tmp_path)
    reference = backup(source, repository, format=format)
    target = fresh_database(server18)
    assert "in a single transaction" in restored(reference, repository, target, dry_run=True)["plan"]
    restored(reference, repository, target)
    assert value(target, "select f()") == 2
    assert script_of(server18, target) == script_of(server18, source)


def test_a_token_allows_one_job(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    """With several, pg_restore connects again after the rows, with the token that it has read at its start."""
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, "create table t as select 1 as a"), repository)
    target = replace(fresh_database(server18), renew_every=600.0)
    result = restored(reference, repository, target, options={"jobs": 2}, dry_run=True)
    assert "in a single transaction" in result["plan"]
    assert any("one job instead of 2" in line for line in result["warnings"])


@pytest.mark.parametrize("options", [{"jobs": 2}, {"transaction_size": 1000}], ids=str)
def test_the_database_postgres_is_never_replaced_though_it_is_empty(
    options: dict[str, Any], server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, "create table t as select 1 as a"), repository)
    query = "select oid from pg_database where datname = 'postgres'"
    before = value(server18.params, query)
    target = server18.params.with_database("postgres")
    with pytest.raises(ConfigurationError, match='database "postgres" is never replaced'):
        restored(reference, repository, target, options=options)
    assert value(server18.params, query) == before


def test_more_locks_than_a_transaction_may_take_need_a_new_database(tmp_path: Path) -> None:
    with fresh_server(18, settings={"max_locks_per_transaction": "10", "max_connections": "10"}) as server:
        with server.params.connect() as session:
            session.execute("create database source")
            session.execute("create database target")
        source, target = server.params.with_database("source"), server.params.with_database("target")
        with source.connect() as session:
            for number in range(300):
                session.execute(f"create table t{number} (a int primary key)")  # type: ignore[arg-type]
        properties = properties_of(server, target)
        repository = local(tmp_path)
        reference = backup(source, repository)
        result = restored(reference, repository, target)
        assert (
            "into a new database that replaces the empty one, because a single transaction would take about 1,200"
            in str(result["plan"])
        )
        assert script_of(server, target) == script_of(server, source)
        assert properties_of(server, target) == properties
        assert (result["replaced"], databases_of(server)) == (None, {"source", "target"})


def test_a_tablespace_that_the_server_lacks_costs_no_locale(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path / "repository")
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute("set allow_in_place_tablespaces = on")
            session.execute("create tablespace fast location ''")
            session.execute(
                "create database source template template0 locale_provider builtin builtin_locale 'C.UTF-8' locale 'C' "
                "tablespace fast"
            )
        reference = backup(server.params.with_database("source"), repository)
        copy = server.params.with_database("copy")
        restored(reference, repository, copy, mode="create", options={"no_tablespaces": True})
        assert value(copy, "select datname from pg_database where dattablespace <> 1663 and datistemplate = false") == (
            "source"
        )
    name = fresh_database(server18).dbname
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))
    target = server18.params.with_database(name)
    result = restored(reference, repository, target, mode="create", options={"no_owner": True})
    assert value(target, "select datlocale from pg_database where datname = current_database()") == "C.UTF-8"
    (warning,) = [line for line in result["warnings"] if "lacks" in line]
    assert "lacks the tablespace of the dumped database: using the default one instead of" in warning


class _Timeout(BaseException):
    """As Airflow's."""


@pytest.mark.parametrize(("mode", "state"), [("replace", "was replaced"), ("create", "was created")])
def test_a_timeout_after_the_rename_does_not_deny_it(
    mode: str, state: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, "create table restored as select 1 as a"), repository)
    target = fresh_database(server18)
    if mode == "create":
        with server18.params.connect() as session:
            session.execute(sql.SQL("drop database {}").format(sql.Identifier(target.dbname)))
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("renamed "):
            raise _Timeout

    with pytest.raises(_Timeout):
        restored(reference, repository, target, mode=mode, log=log)
    assert lines[-1] == f'database "{target.dbname}" {state}'
    assert value(target, "select count(*) from restored") == 1


def test_a_cancel_after_the_commit_does_not_deny_it(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, "create table restored as select 1 as a"), repository)
    target, cancel = fresh_database(server18), Cancel()

    def log(line: str) -> None:
        if line.startswith("restored objects and rows "):
            cancel.set()

    with pytest.raises(Canceled, match=f'; database "{target.dbname}" was restored'):
        restored(reference, repository, target, mode="into_existing", log=log, cancel=cancel)
    assert value(target, "select count(*) from restored") == 1


def test_a_template_that_cannot_be_renamed_is_dropped(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path)
    source, target = fresh_database(server18), fresh_database(server18)
    with server18.params.connect() as session:
        session.execute(sql.SQL("alter database {} is_template true").format(sql.Identifier(source.dbname)))
    try:
        reference = backup(source, repository)
    finally:
        with server18.params.connect() as session:
            session.execute(sql.SQL("alter database {} is_template false").format(sql.Identifier(source.dbname)))

    def make_or_drop(verb: str) -> None:
        with server18.params.connect() as session:
            session.execute(sql.SQL(verb + " database {}").format(sql.Identifier(target.dbname)))

    def log(line: str) -> None:
        if line.startswith("renaming "):
            make_or_drop("create")

    make_or_drop("drop")
    with pytest.raises(RestoreError, match="was not created"):
        restored(reference, repository, target, mode="create", log=log)
    left = "select count(*) from pg_database where datname like 'pgbackup_tmp_%'"
    assert value(server18.params, left) == 0


def test_a_setting_that_only_the_source_has(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    source = fresh_database(server18)
    with server18.params.connect() as session:
        name = sql.Identifier(source.dbname)
        session.execute(sql.SQL("alter database {} set app.most = '10'").format(name))
    with source.connect() as session:
        session.execute("create table t as select 1 as a")
        session.execute("alter table t add check (a < current_setting('app.most')::int)")
    repository = local(tmp_path)
    reference = backup(source, repository, format="plain")
    with pytest.raises(ToolError, match="unrecognized configuration parameter") as failed:
        restored(reference, repository, fresh_database(server18))
    assert "ALTER ROLE ... SET" in str(failed.value.hint)


def test_materialized_views_that_use_the_name_of_the_database(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    database = fresh_database(
        server18,
        None,
        "create function here() returns text language sql stable as 'select current_database()'",
        "create view named as select current_catalog::text as name",
        "create materialized view first as select here() as name",
        "create materialized view second as select count(*) from named join first using (name)",
    )
    repository = local(tmp_path / "repository")
    reference = backup(database, repository)

    def warned(target: ConnectionParams, how: dict[str, Any]) -> list[str]:
        warnings = restored(reference, repository, target, seed="the task", **how)["warnings"]
        return [line for line in warnings if "REFRESH MATERIALIZED VIEW" in line]

    ways: list[dict[str, Any]] = [{"mode": "replace"}, {"options": {"jobs": 2}}]
    for target, how in zip((database, fresh_database(server18)), ways, strict=True):
        assert not warned(target, how)
        assert value(target, "select name from first") == target.dbname
        assert value(target, "select count from second") == 1
        assert not warned(target, how)
        with target.connect() as session:  # as if the first attempt had been killed after the rename
            session.execute("refresh materialized view second with no data")
        assert "REFRESH MATERIALIZED VIEW for public.second" in warned(target, how)[0]


def test_a_trigger_that_uses_the_name_of_the_database_refills_no_view(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """No view can call its function."""
    database = fresh_database(
        server18,
        None,
        "create function audit() returns trigger language plpgsql as "
        "'begin new.place := current_database(); return new; end'",
        "create sequence fillings",
        "create materialized view filled as select nextval('fillings') as times",
    )
    repository = local(tmp_path / "repository")
    restored(backup(database, repository), repository, database, mode="replace")
    assert value(database, "select times from filled") == 2


def test_a_canceled_refill_of_a_view_is_a_warning(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """The database has its name and is in use by then."""
    source = fresh_database(
        server18,
        None,
        "create function cancels() returns bool language sql as "
        "$$ select current_database() <> 'canceled' or pg_cancel_backend(pg_backend_pid()) $$",
        "create materialized view m as select cancels() from generate_series(1, 1000)",
    )
    repository = local(tmp_path / "repository")
    try:
        result = restored(
            backup(source, repository), repository, server18.params.with_database("canceled"), mode="create"
        )
        assert [line for line in result["warnings"] if "failed here: canceling statement due to user request" in line]
    finally:
        with server18.params.connect() as session:
            session.execute("drop database if exists canceled with (force)")


def test_a_text_search_configuration_of_the_database(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    source = fresh_database(server18, None, "create text search configuration de (copy = german)")
    with server18.params.connect() as session:
        name = sql.Identifier(source.dbname)
        session.execute(sql.SQL("alter database {} set default_text_search_config = 'public.de'").format(name))
    with source.connect() as session:
        session.execute("create materialized view m as select to_tsvector('die Häuser') as words")
    repository = local(tmp_path)
    target = server18.params.with_database("searching")
    try:
        result = restored(backup(source, repository), repository, target, mode="create")
        (warning,) = [line for line in result["warnings"] if "REFRESH MATERIALIZED VIEW" in line]
        assert "names a configuration that did not exist when the restore began" in warning
    finally:
        with server18.params.connect() as session:
            session.execute("drop database if exists searching with (force)")


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_database_that_sets_the_role_of_its_sessions(
    form: Any, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """The restore is not to run as that role, which may create nothing."""
    make_roles(server18)
    database = fresh_database(server18, None, *SCHEMA[:2])
    sets_role = "select setconfig from pg_db_role_setting where setdatabase = (select oid from pg_database where "
    with server18.params.connect() as session:
        session.execute(f"alter database {database.dbname} set role = '{OWNER}'")  # type: ignore[arg-type]
    with with_option(database, "role=none").connect() as session:
        session.execute(f"grant select on film to {OWNER}")  # type: ignore[arg-type]
        session.execute(f"grant create on database {database.dbname} to {OWNER}")  # type: ignore[arg-type]
        session.execute("create materialized view named as select current_database()::text as name")
        session.execute(f"grant select on named to {OWNER}")  # type: ignore[arg-type]
    repository = local(tmp_path / "repository")
    reference = backup(database, repository, format=form, create=form == "plain")
    assert verify(reference=reference, repository=repository, level="restore")["verified"] == "restore"
    for mode in ("replace", "create"):
        if mode == "create":
            with server18.params.connect() as session:
                session.execute(f"drop database {database.dbname}")  # type: ignore[arg-type]
        restored(reference, repository, database, mode=mode)
        found = value(server18.params, f"{sets_role} datname = '{database.dbname}')")
        assert found == [f"role={OWNER}"]
        assert value(database, "select count(*) from film") == ROWS["film"]
        assert value(database, "select name from named") == database.dbname
    existing = fresh_database(server18)
    result = restored(reference, repository, existing, target={"with_properties": True}, seed="the task")
    assert [line for line in result["warnings"] if "is not verified" not in line] == []
    existing = with_option(existing, "role=none")
    assert value(existing, f"select has_database_privilege('{OWNER}', current_database(), 'create')")
    assert value(existing, "select count(*) from pg_stats where tablename = 'film'") > 0


def test_what_a_restore_cannot_know_is_a_warning(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository = local(tmp_path / "repository")
    reference = backup(fresh_database(server18, None, *SCHEMA[:1]), repository, format="plain")
    target = fresh_database(server18, None, "alter default privileges grant select on tables to public")
    warnings, again = (restored(reference, repository, target, seed="the task")["warnings"] for _ in range(2))
    assert any("has default privileges, which restored objects get" in line for line in warnings)
    assert not any("default privileges" in line for line in again), "the retry restores nothing"
    new = fresh_database(server18)
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop database {}").format(sql.Identifier(new.dbname)))
    warnings = restored(reference, repository, new, mode="create")["warnings"]
    assert any("everybody may connect: dump with create=True next time" in line for line in warnings)


def test_an_old_database_with_a_replication_slot_is_kept(tmp_path: Path) -> None:
    """DROP DATABASE would drop the slot, and with it the position of its consumer."""
    with fresh_server(18, settings={"wal_level": "logical"}) as server:
        with server.params.connect() as session:
            session.execute("create database app")
        app, repository = server.params.with_database("app"), local(tmp_path)
        with app.connect() as session:
            session.execute("create table t (a int)")
            session.execute("create subscription s connection 'dbname=x' publication p with (connect = false)")
            session.execute("select pg_create_logical_replication_slot('consumer', 'pgoutput')")
        result = restored(backup(app, repository), repository, app, mode="replace", target={"keep_old": False})
        assert value(app, "select database from pg_replication_slots") == result["replaced"]
        assert "replication slot consumer stays with the old database, which is therefore kept" in result["warnings"]
        assert any("has the replication slot of the original" in line for line in result["warnings"])
