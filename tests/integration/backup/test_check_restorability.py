"""check predicts a restore: each problem is created, found, restored as predicted, fixed, and found no longer.

The examples are those of the documentation.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import torture
from builds import BUILDS, Build, each
from contexts import in_context

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.check import rows as check_rows
from airflow_pgbackup.backup.check.extensions import version_key
from airflow_pgbackup.backup.check.restorability_problems import PROBLEMS
from airflow_pgbackup.backup.check.transport import check_keepalives
from airflow_pgbackup.backup.findings import Finding, Findings
from airflow_pgbackup.demo.database import load_sample
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import Canceled
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings

# What pg_restore says of the example; None where it only restores less, or as another user.
AT_RESTORE = {
    "function_search_path": r"function cents\(numeric\) does not exist",
    "check_reads_tables": r'violates check constraint "known"',
    "generated_reads_tables": None,
    "check_changes": r'violates check constraint "fresh"',
    "not_valid": None,
    "not_null_not_valid": None,
    "violated_check": r'violates check constraint "counted"',
    "violated_foreign_key": r'violates foreign key constraint "of_parent"',
    "violated_unique": r'could not create unique index "account_name"',
    "invalid_index": None,
    "reg_columns": r'relation "public.seen_what" does not exist',
    "role_columns": None,
    "foreign_views": r"foreign-data wrapper \"nothing\" has no handler",
    "collation_version": None,
    "template_collation": None,
    "event_triggers": None,
    "publications": None,
    "superuser_only": None,
    "tablespaces": None,
    "subscriptions_disabled": None,
    "libraries": None,
    "dictionary_files": None,
    "outside_selection": r'schema "shared" does not exist|type "shared.mood" does not exist',
    "encoding": None,
}
# Findings that are there without it, and stay.
BESIDE = {"foreign_views": {"foreign_tables", "superuser_only"}}
OPTIONS: dict[str, Any] = {"outside_selection": DumpOptions(schemas=["app"])}
# Whose example is of the whole server, or of another database.
APART = ("template_collation", "encoding")
TRIED = [code for code in AT_RESTORE if code not in APART]


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[Build], PostgresServer]]:
    running: dict[Build, PostgresServer] = {}

    def of(build: Build) -> PostgresServer:
        if build not in running:
            settings = {"wal_level": "logical", "fsync": "off"}
            running[build] = PostgresServer(build.bin_dir, settings=settings).__enter__()
        return running[build]

    yield of
    for server in running.values():
        server.__exit__(None, None, None)


Servers = Callable[[Build], PostgresServer]
NEWEST = max(BUILDS, key=lambda build: build.version)


def run(database: ConnectionParams, *statements: str) -> None:
    with database.connect() as session:
        for statement in statements:
            with suppress(psycopg.errors.UniqueViolation):
                session.execute(statement)


@pytest.fixture
def made(servers: Servers) -> Iterator[Callable[..., ConnectionParams]]:
    """``made(build, *statements)``: a new database in which they have run."""
    dropped: list[ConnectionParams] = []

    def make(build: Build, *statements: str) -> ConnectionParams:
        server, name = servers(build), f"db_{secrets.token_hex(6)}"
        run(server.params, f"CREATE DATABASE {name} TEMPLATE template0")
        database = server.params.with_database(name)
        dropped.append(database)
        run(database, *statements)
        return database

    yield make
    for database in dropped:
        with database.with_database("postgres").connect() as session:
            for (subscription,) in session.execute(
                "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = %s",
                [database.dbname],
            ).fetchall():
                alter = f"ALTER SUBSCRIPTION {subscription}"
                run(
                    database, f"{alter} DISABLE", f"{alter} SET (slot_name = NONE)", f"DROP SUBSCRIPTION {subscription}"
                )
            session.execute(f"DROP DATABASE {database.dbname} WITH (FORCE)".encode())


Made = Callable[..., ConnectionParams]


def found(connection: ConnectionParams, **more: Any) -> dict[str, Finding]:
    findings = check(connection=connection, server="main", **in_context(more))
    by_code = {finding.code: finding for finding in findings}
    assert len(by_code) == len(findings), findings
    for finding in findings:
        assert finding.message == " ".join(finding.message.split())
        assert "{}" not in finding.message + finding.hint
        if finding.code in PROBLEMS:
            assert finding.severity == PROBLEMS[finding.code].severity
            assert finding.message.endswith(PROBLEMS[finding.code].consequence)
    return by_code


def restored(
    build: Build, source: ConnectionParams, target: ConnectionParams, tmp_path: Path, *options: str, owners: bool = True
) -> str:
    """What pg_restore says, '' where it has no complaint."""
    archive = tmp_path / "dump"
    with client_environment(source) as env:
        dump = [build.bin_dir / "pg_dump", "-Fc", "-f", archive, "--no-subscriptions", *options]
        subprocess.run(dump, env=env, check=True, capture_output=True)
    with client_environment(target) as env:
        restore = [build.bin_dir / "pg_restore", "--dbname=", *([] if owners else ["--no-owner"]), archive]
        done = subprocess.run(restore, env=env, capture_output=True, text=True)
    assert bool(done.returncode) == ("error:" in done.stderr)
    return done.stderr


@pytest.mark.every_value
@each(BUILDS)
@pytest.mark.parametrize("code", TRIED)
def test_an_example_is_found_restores_as_stated_and_can_be_fixed(
    build: Build, code: str, made: Made, tmp_path: Path
) -> None:
    problem = PROBLEMS[code]
    if code == "not_null_not_valid" and build.major < 18:
        with pytest.raises(psycopg.errors.Error):
            made(build, *problem.example)
        return
    database = made(build, *problem.example)
    options = OPTIONS.get(code)
    scan = problem.condition == "found with scan_rows"
    codes = found(database, options=options, scan_rows=scan)
    beside = BESIDE.get(code, set())
    if code == "subscriptions_disabled" and build.major < 16:  # which has no pg_create_subscription
        beside = {"superuser_only"}
    assert codes.keys() == {code} | beside, codes
    assert codes[code].objects == problem.objects
    assert codes[code].database == database.dbname
    said = AT_RESTORE[code]
    time.sleep(0.2 if code == "check_changes" else 0)  # until the coupon is over
    schemas = [f"--schema={name}" for name in getattr(options, "schemas", ())]
    complaint = restored(build, database, made(build), tmp_path, *schemas)
    assert re.search(said, complaint) if said else not complaint, complaint
    run(database, *problem.fix)
    codes = found(database, options=options, scan_rows=scan)
    assert codes.keys() == beside
    assert not restored(build, database, made(build), tmp_path)


def test_every_kind_is_tried_here() -> None:
    apart = {"large_rows", "unreadable_rows", "preload", "extension_database", "extension_version", "dump_locks"}
    assert set(PROBLEMS) == set(AT_RESTORE) | apart | {"restore_locks", "keepalives"}


# -- functions


MOOD = "CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('good'); CREATE TABLE app.word (w text); "
MOOD += "CREATE FUNCTION app.inner(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; "
MOOD += "CREATE OPERATOR app.%% (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq); SET search_path = public, app;"
BODIES = {
    "a function": ("sql", "SELECT inner($1)", "SELECT app.inner($1)"),
    "a table": ("sql", "SELECT coalesce((SELECT w FROM word LIMIT 1), $1)", "SELECT (SELECT w FROM app.word) || $1"),
    "an operator": ("sql", "SELECT ($1 %% 'x')::text", "SELECT ($1 OPERATOR(app.%%) 'x')::text"),
    "a type": ("plpgsql", "BEGIN RETURN 'good'::mood; END", "BEGIN RETURN 'good'::app.mood; END"),
    "a row type": (
        "plpgsql",
        "DECLARE r word%rowtype; BEGIN RETURN $1; END",
        "DECLARE r app.word%rowtype; BEGIN RETURN $1; END",
    ),
    "a list": ("sql", "SELECT a.relname FROM pg_class a, word b", "SELECT a.relname FROM pg_class a, app.word b"),
    "quoted": ("sql", 'SELECT "inner"($1) /* app */', 'SELECT app."inner"($1)'),
    "in a call": ("sql", "SELECT public.outermost($1)", "SELECT app.inner(pg_catalog.upper($1))"),
}
# What looks like a name of somebody's and is none.
HARMLESS = {
    "a string": "SELECT 'inner($1) FROM word' || $1",
    "a comment": "SELECT $1 -- FROM word\n /* inner($1) /* nested */ FROM word */",
    "a dollar quote": "SELECT $q$ FROM word $q$ || $1",
    "its own": "WITH word AS (SELECT $1 AS w) SELECT w FROM word",
    "a column": "SELECT word FROM (SELECT $1 AS word) AS x WHERE word IS NOT NULL",
    "extract": "SELECT extract(year FROM word)::text FROM (SELECT date '2026-01-01') AS x(word)",
    "distinct": "SELECT ($1 IS DISTINCT FROM word)::text FROM (SELECT '') AS x(word)",
    "built in": "SELECT lower(upper($1)) FROM pg_class WHERE relname = $1",
}


@pytest.mark.parametrize("what", BODIES)
def test_what_a_function_names(what: str, made: Made) -> None:
    language, leaning, qualified = BODIES[what]
    outer = "CREATE FUNCTION public.outermost(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT inner($1)'; "
    create = "SET search_path = public, app; "
    create += "CREATE OR REPLACE FUNCTION app.f(text) RETURNS text LANGUAGE {} IMMUTABLE AS $body$ {} $body$"
    table = "CREATE TABLE app.t (a text, b text GENERATED ALWAYS AS (app.f(a)) STORED)"
    database = made(NEWEST, MOOD + outer + create.format(language, leaning), table)
    beside = {"generated_reads_tables"} if what in ("a table", "a list") else set()
    codes = found(database)
    assert codes.keys() == {"function_search_path"} | beside
    finding = codes["function_search_path"]
    assert finding.objects == (("public.outermost(text)",) if what == "in a call" else ("app.f(text)",))
    assert f"ALTER FUNCTION {finding.objects[0]} SET search_path = pg_catalog, app" in finding.hint
    assert "generated column app.t.b" in finding.message
    run(database, create.format(language, qualified))
    assert found(database).keys() == beside
    run(database, create.format(language, leaning))
    assert "function_search_path" in found(database)
    run(database, f"ALTER FUNCTION {finding.objects[0]} SET search_path = pg_catalog, app")
    assert found(database).keys() == beside


@pytest.mark.parametrize("what", HARMLESS)
def test_what_a_function_only_seems_to_name(what: str, made: Made) -> None:
    create = f"CREATE FUNCTION app.f(text) RETURNS text LANGUAGE sql IMMUTABLE AS $body$ {HARMLESS[what]} $body$"
    table = "CREATE TABLE app.t (a text, b text GENERATED ALWAYS AS (app.f(a)) STORED)"
    assert found(made(NEWEST, MOOD + create, table)) == {}


LEANING = "CREATE TABLE tax (rate int); INSERT INTO tax VALUES (2); "
LEANING += (
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT rate * $1 FROM tax); END'"
)
USERS = {
    "index public.t_f": ("CREATE TABLE t (a int)", "CREATE INDEX t_f ON t (f(a))", "INSERT INTO t VALUES (1)"),
    "index public.t_p": (
        "CREATE TABLE t (a int)",
        "CREATE INDEX t_p ON t (a) WHERE f(a) > 0",
        "INSERT INTO t VALUES (1)",
    ),
    "constraint c on public.t": ("CREATE TABLE t (a int CONSTRAINT c CHECK (f(a) > 0))", "INSERT INTO t VALUES (1)"),
    "constraint c on public.d": (
        "CREATE DOMAIN d AS int CONSTRAINT c CHECK (f(value) > 0)",
        "CREATE TABLE t (a d)",
        "INSERT INTO t VALUES (1)",
    ),
    "materialized view public.m": (
        "CREATE VIEW v AS SELECT f(1) AS a",
        "CREATE MATERIALIZED VIEW m AS SELECT a FROM v WITH NO DATA",
        "UPDATE pg_class SET relispopulated = true WHERE relname = 'm'",
    ),
    "partition key of public.t": (
        "CREATE TABLE t (a int) PARTITION BY LIST (f(a))",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)",
        "INSERT INTO t VALUES (1)",
    ),
}


@pytest.mark.parametrize("user", USERS)
def test_who_uses_a_function(user: str, made: Made, tmp_path: Path) -> None:
    database = made(NEWEST, LEANING, *USERS[user])
    finding = found(database)["function_search_path"]
    assert user in finding.message
    assert finding.objects == ("public.f(integer)",)
    assert 'relation "tax" does not exist' in restored(NEWEST, database, made(NEWEST), tmp_path)
    run(database, "ALTER FUNCTION f SET search_path = pg_catalog, public")
    assert "function_search_path" not in found(database)


def test_the_statement_in_the_hint_quotes_names(made: Made) -> None:
    body = 'CREATE FUNCTION "A b"."F f"(int) RETURNS int LANGUAGE sql IMMUTABLE AS \'SELECT $1 FROM "T t"\''
    database = made(
        NEWEST,
        'CREATE SCHEMA "A b"; CREATE TABLE "A b"."T t" (); SET search_path = "A b", public; ' + body,
        'CREATE TABLE t (a int CHECK ("A b"."F f"(a) > 0))',
    )
    mend = found(database)["function_search_path"].hint.removeprefix("Run ").removesuffix("; then dump again.")
    run(database, mend)
    assert list(found(database)) == ["check_reads_tables"]


def test_a_function_in_standard_sql_has_no_names_to_look_up(made: Made, tmp_path: Path) -> None:
    function = "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT rate * $1 FROM tax; END"
    table = "CREATE TABLE t (a int CONSTRAINT c CHECK (f(a) > 0))"
    database = made(NEWEST, "CREATE TABLE tax (rate int)", function, table)
    assert list(found(database)) == ["check_reads_tables"]


@pytest.mark.parametrize("column", ["timestamptz DEFAULT f()", "timestamptz"])
def test_functions_that_a_restore_does_not_run_are_not_reported(made: Made, tmp_path: Path, column: str) -> None:
    function = "CREATE FUNCTION f() RETURNS timestamptz LANGUAGE sql AS 'SELECT at FROM clock'"
    trigger = "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a = f(); RETURN NEW; END'"
    statements = [
        "CREATE TABLE clock (at timestamptz)",
        function,
        trigger,
        f"CREATE TABLE t (a {column})",
        "CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.a > now()) EXECUTE FUNCTION g()",
        "INSERT INTO t DEFAULT VALUES",
    ]
    database = made(NEWEST, *statements)
    assert found(database) == {}
    assert restored(NEWEST, database, made(NEWEST), tmp_path) == ""


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("at <= now()", False),
        ("at < current_date AND a > 0", False),
        ("now() >= at", False),
        ("(at < clock_timestamp()) OR a = 1", False),
        ("at < now() + interval '1 day'", False),
        ("at::date <= now()::date", False),
        ("now()::date >= at::date", False),
        ("at > '2020-01-01'", False),
        ("at > now()", True),
        ("at > now() - interval '1 day'", True),
        ("now() - at < interval '1 day'", True),
        ("at = current_date", True),
        ("at BETWEEN '2020-01-01' AND now()", False),
        ("name = current_user", True),
        ("a < random()", True),
    ],
)
def test_conditions_that_depend_on_the_time(made: Made, condition: str, changes: bool) -> None:
    database = made(NEWEST, f"CREATE TABLE t (at timestamptz, a int, name text, CONSTRAINT c CHECK ({condition}))")
    codes = found(database)
    assert list(codes) == ["check_changes"] * changes
    assert not changes or codes["check_changes"].objects == ("c on public.t",)


# -- other kinds


def test_databases_of_a_server(servers: Servers) -> None:
    server = servers(NEWEST)
    for code in APART:
        problem = PROBLEMS[code]
        run(server.params, *problem.example)
    finding = found(server.params)["template_collation"]
    assert (finding.objects, finding.database) == (("template1",), None)
    assert found(server.params.with_database("old"))["encoding"].objects == ("old",)
    with pytest.raises(psycopg.errors.Error, match="collation version"):
        run(server.params, "CREATE DATABASE copy TEMPLATE template1")
    run(server.params, *PROBLEMS["template_collation"].fix, "DROP DATABASE old")
    assert found(server.params) == {}


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """That a server of another user may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_extensions(shared_folder: Path) -> None:
    """Fakes by name: what counts is who refuses which."""
    folder = shared_folder / "extension"
    folder.mkdir()
    for name, version in (("pg_cron", "1.6"), ("timescaledb", "2.10"), ("pg_stat_statements", "1.0")):
        (folder / f"{name}.control").write_text(f"default_version = '{version}'\n")
        (folder / f"{name}--{version}.sql").write_text("SELECT 1;\n")
    settings = {"extension_control_path": str(shared_folder)}
    with PostgresServer(postgres_bin_dir(18), settings=settings) as server:
        run(server.params, *(f"CREATE EXTENSION {name}" for name in ("pg_cron", "timescaledb", "pg_stat_statements")))
        codes = found(server.params)
        assert set(codes) == {"preload", "extension_database", "extensions", "superuser_only"}
        assert codes["preload"].objects == ("pg_cron", "timescaledb")
        assert codes["extension_database"].objects == ("pg_cron",)
        (folder / "leaning.control").write_text("default_version = '1'\n")
        function = "CREATE FUNCTION {}(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN {}; END';\n"
        script = function.format("plus", "$1 + 1") + function.format("leaning", "plus($1)")
        (folder / "leaning--1.sql").write_text(script)
        run(server.params, "CREATE EXTENSION leaning; CREATE TABLE t (a int CHECK (leaning(a) > 0))")
        finding = found(server.params)["function_search_path"]
        assert finding.objects == ("public.leaning(integer)",)
        assert "ALTER EXTENSION leaning UPDATE" in finding.hint
        (folder / "timescaledb.control").write_text("default_version = '2.9'\n")
        assert found(server.params)["extension_version"].objects == ("timescaledb 2.10 (2.9 on this server)",)


def test_versions_sort_as_numbers() -> None:
    assert sorted(["1.10", "1.9", "2.0.1", "2.0-dev", "2.0"], key=version_key)[:2] == ["1.9", "1.10"]


def test_locks(tmp_path: Path) -> None:
    settings = {"max_locks_per_transaction": "10", "max_connections": "5", "max_wal_senders": "0"}
    with PostgresServer(NEWEST.bin_dir, settings=settings) as server:
        assert found(server.params) == {}
        run(server.params, *(f"CREATE TABLE t{n} (a int)" for n in range(30)))
        assert list(found(server.params)) == ["restore_locks"]
        for n in range(30, 60):
            run(server.params, f"CREATE TABLE t{n} (a int)")
        codes = found(server.params)
        assert set(codes) == {"dump_locks", "restore_locks"}
        assert "takes about 60 locks" in codes["dump_locks"].message
        assert "max_locks_per_transaction = 12 there" in codes["dump_locks"].hint
        assert found(server.params, options=DumpOptions(tables=["t1"])) == {}


@pytest.mark.parametrize(
    ("keywords", "objects"),
    [
        ({"host": "db.example.org", "keepalives": "0"}, ("keepalives = 0",)),
        ({"host": "db.example.org", "keepalives_idle": "7200"}, ("keepalives_idle = 7200",)),
        ({"hostaddr": "10.0.0.1", "host": "localhost", "keepalives": "0"}, ("keepalives = 0",)),
        ({"host": "/tmp,db.example.org", "keepalives": "0"}, ("keepalives = 0",)),
        ({"host": "db.example.org"}, ()),
        ({"host": "db.example.org", "keepalives_idle": "60"}, ()),
        ({"host": "127.0.0.1", "keepalives": "0"}, ()),
        ({"host": "::1", "keepalives": "0"}, ()),
        ({"host": "/var/run/postgresql", "keepalives": "0"}, ()),
        ({"keepalives": "0"}, ()),
    ],
)
def test_keepalives(keywords: dict[str, str], objects: tuple[str, ...]) -> None:
    findings = Findings()
    check_keepalives(ConnectionParams(keywords), findings)
    assert [(finding.code, finding.objects) for finding in findings.all] == [("keepalives", objects)] * bool(objects)


def test_a_selection_without_its_dependencies(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE SCHEMA shared; CREATE SCHEMA app; CREATE TYPE shared.mood AS ENUM ('good')",
        "CREATE FUNCTION shared.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
        "CREATE SEQUENCE shared.numbers; CREATE TABLE shared.parent (id int PRIMARY KEY)",
        "CREATE TABLE app.whole (a int); CREATE TYPE app.own AS ENUM ('x')",
        "CREATE TABLE app.own_table (a app.own[], id serial)",
        "CREATE TABLE app.t (m shared.mood[], n int DEFAULT nextval('shared.numbers'), p int REFERENCES shared.parent)",
        "CREATE INDEX ON app.t (shared.f(n)); CREATE TABLE app.child () INHERITS (shared.parent)",
        "CREATE VIEW app.v AS SELECT id FROM shared.parent; CREATE EXTENSION IF NOT EXISTS plpgsql",
    )
    needed = ("function shared.f(integer)", "sequence shared.numbers", "table shared.parent", "type shared.mood")
    assert found(database) == {}
    assert found(database, options=DumpOptions(schemas=["app", "shared"])) == {}
    assert found(database, options=DumpOptions(schemas=["app"]))["outside_selection"].objects == needed
    excluding = found(database, options=DumpOptions(exclude_schemas=["shared"]))
    assert excluding["outside_selection"].objects == needed
    assert found(database, options=DumpOptions(tables=["app.whole"])) == {}
    assert found(database, options=DumpOptions(tables=["app.own_table"]))["outside_selection"].objects == (
        "type app.own",
    )
    excluding = found(database, options=DumpOptions(exclude_tables=["shared.parent"]))
    assert excluding["outside_selection"].objects == ("table shared.parent",)
    assert found(database, options=DumpOptions(exclude_table_data=["shared.parent"])) == {}


# -- what only a superuser can restore, and tablespaces

INTERNAL = "LANGUAGE internal IMMUTABLE STRICT AS"
# By kind: how to create it in source, and what the server says to the owner of the target.
SUPERUSER_ONLY = {
    "LEAKPROOF function public.leak()": (
        "CREATE FUNCTION leak() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'",
        "only superuser can define a leakproof function",
    ),
    "function with SUPPORT public.support()": (
        "CREATE FUNCTION support() RETURNS int LANGUAGE sql SUPPORT textlike_support AS 'SELECT 1'",
        "must be superuser to specify a support function",
    ),
    "function with SET of a superuser's parameter public.silent()": (
        "CREATE FUNCTION silent() RETURNS int LANGUAGE sql SET log_min_messages = error AS 'SELECT 1'",
        'denied to set parameter "log_min_messages"',
    ),
    "function with SET of a superuser's parameter public.custom()": (
        "CREATE FUNCTION custom() RETURNS int LANGUAGE sql SET app.x = 'y' AS 'SELECT 1'",
        'denied to set parameter "app.x"',
    ),
    "function in language internal public.root(double precision)": (
        f"CREATE FUNCTION root(float8) RETURNS float8 {INTERNAL} 'dsqrt'",
        "denied for language internal",
    ),
    "aggregate with state type internal public.mean(bigint)": (
        "CREATE AGGREGATE mean(int8) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_avg)",
        "transition data type cannot be internal",
    ),
    "base type public.shell": ("CREATE TYPE shell", "must be superuser to create a base type"),
    "operator class public.ops": (
        "CREATE OPERATOR CLASS ops FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int)",
        "must be superuser to create an operator class",
    ),
    "operator family public.family": (
        "CREATE OPERATOR FAMILY family USING btree",
        "must be superuser to create an operator family",
    ),
    "text search parser public.parser": (
        "CREATE TEXT SEARCH PARSER parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end,"
        " LEXTYPES = prsd_lextype)",
        "must be superuser to create text search parsers",
    ),
    "text search template public.template": (
        "CREATE TEXT SEARCH TEMPLATE template (LEXIZE = dsimple_lexize)",
        "must be superuser to create text search templates",
    ),
    "cast bigint AS jsonb": ("CREATE CAST (int8 AS jsonb) WITH INOUT", "must be owner of type bigint or type jsonb"),
    "cast public.mood AS public.temper": (
        "CREATE TYPE mood AS ENUM ('good'); CREATE TYPE temper AS ENUM ('bad'); CREATE CAST (mood AS temper) WITH INOUT"
        "; UPDATE pg_cast SET castmethod = 'b' WHERE castsource = 'mood'::regtype",
        "must be superuser to create a cast WITHOUT FUNCTION",
    ),
    "foreign-data wrapper wrapper": ("CREATE FOREIGN DATA WRAPPER wrapper", "denied to create foreign-data wrapper"),
    "language lang": (
        "CREATE FUNCTION handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';"
        " CREATE TRUSTED LANGUAGE lang HANDLER handler",
        "must be superuser to create custom procedural language",
    ),
    "access method am": (
        "CREATE ACCESS METHOD am TYPE TABLE HANDLER heap_tableam_handler",
        "denied to create access method",
    ),
    "untrusted extension pageinspect": (
        "DO $$ BEGIN CREATE EXTENSION pageinspect; EXCEPTION WHEN feature_not_supported THEN END $$",
        "denied to create extension",
    ),
}
# What everybody who owns a database can restore.
FOR_OWNERS = (
    "CREATE TYPE hue AS ENUM ('red'); CREATE TYPE span AS RANGE (subtype = int4); CREATE TYPE pair AS (a int)",
    "CREATE CAST (text AS hue) WITH INOUT; CREATE TYPE hues AS (a hue[])",
    "CREATE FUNCTION plain(int) RETURNS int LANGUAGE sql SET search_path = x SET \"TimeZone\" = 'UTC' AS 'SELECT 1'",
    "CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE FUNCTION near(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = near, RESTRICT = eqsel)",
    "CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION c (COPY = english)",
    "DO $$ BEGIN CREATE EXTENSION citext; EXCEPTION WHEN feature_not_supported THEN END $$",
    "CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
)


@each(BUILDS)
def test_what_only_a_superuser_can_restore(build: Build, made: Made, tmp_path: Path) -> None:
    role = f"owner_{secrets.token_hex(4)}"
    own, source = made(build, *FOR_OWNERS), made(build, *(create for create, _ in SUPERUSER_ONLY.values()))
    run(source, f"CREATE ROLE {role} LOGIN")
    with source.connect() as session:
        names = {f"untrusted extension {name}" for (name,) in session.execute("SELECT extname FROM pg_extension")}
    expected = {what: said for what, (_, said) in SUPERUSER_ONLY.items() if "untrusted" not in what or what in names}
    finding = found(source, settings=build.settings)["superuser_only"]
    assert set(finding.objects) == set(expected)
    assert "function with SET of a superuser's parameter public.custom(), public.silent()" in finding.message
    assert found(own, settings=build.settings).keys() <= {"extensions"}
    for database, complaints in ((own, []), (source, list(expected.values()))):
        target = made(build)
        run(target, f"ALTER DATABASE {target.dbname} OWNER TO {role}")
        owner = ConnectionParams({**target.keywords, "user": role})
        said = restored(build, database, owner, tmp_path, owners=False)
        assert bool(complaints) == bool(said), said
        assert [one for one in complaints if one not in said] == []
        run(target, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
    run(source, f"DROP ROLE {role}")


def test_settings_of_a_database_that_only_a_superuser_can_restore(made: Made) -> None:
    database = made(NEWEST)
    set_ = f"ALTER DATABASE {database.dbname} SET"
    run(database, f"{set_} work_mem = '1MB'", f"{set_} \"TimeZone\" = 'UTC'", f"{set_} role = none")
    assert found(database) == {}
    run(database, f"{set_} log_statement = 'all'", f"{set_} app.tenant = 'a'")
    settings = ("setting of the database app.tenant", "setting of the database log_statement")
    assert found(database)["superuser_only"].objects == settings
    assert set(found(database, options=DumpOptions(format="plain"))) == {"database_properties"}
    run(database, "GRANT SET ON PARAMETER log_statement TO pg_monitor")
    assert found(database)["superuser_only"].objects == settings[:1]
    run(database, "REVOKE SET ON PARAMETER log_statement FROM pg_monitor")


def test_what_a_selection_leaves_out_needs_no_superuser(made: Made) -> None:
    function = "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'"
    database = made(
        NEWEST, "CREATE SCHEMA app", function, "CREATE ACCESS METHOD am TYPE TABLE HANDLER heap_tableam_handler"
    )
    assert set(found(database)["superuser_only"].objects) == {"access method am", "LEAKPROOF function app.f()"}
    in_schema = found(database, options=DumpOptions(schemas=["app"]))
    assert in_schema["superuser_only"].objects == ("LEAKPROOF function app.f()",)
    assert "superuser_only" not in found(database, options=DumpOptions(schemas=["public"]))


def test_subscriptions(made: Made) -> None:
    subscribe = "CREATE SUBSCRIPTION {} CONNECTION 'dbname=x password=y' PUBLICATION p WITH (connect = false{})"
    free = subscribe.format("free", ", slot_name = none, password_required = false")
    database = made(NEWEST, subscribe.format("bound", ", slot_name = none"), free)
    assert found(database)["superuser_only"].objects == ("subscription free",)
    assert found(database, options=DumpOptions(no_subscriptions=True)) == {}


def test_tablespaces(made: Made, tmp_path: Path) -> None:
    database = made(
        NEWEST,
        *("SET allow_in_place_tablespaces = on", "CREATE TABLESPACE quick LOCATION ''"),
        *("CREATE TABLESPACE \"In dex\" LOCATION ''", "CREATE TABLE t (id int PRIMARY KEY, b text) TABLESPACE quick"),
        'CREATE INDEX ON t (b) TABLESPACE "In dex"',
    )
    assert found(database)["tablespaces"].objects == ('"In dex"', "quick")
    assert found(database, options=DumpOptions(exclude_tables=["t"])) == {}
    assert found(database, options=DumpOptions(format="plain", no_tablespaces=True)) == {}
    assert found(database, options=DumpOptions(no_tablespaces=True)).keys() == {"tablespaces"}  # pg_dump ignores it
    with PostgresServer(NEWEST.bin_dir) as other:
        assert 'Tablespace "quick" does not exist' in restored(NEWEST, database, other.params, tmp_path)
    run(database, "DROP TABLE t")
    run(database.with_database("postgres"), f"ALTER DATABASE {database.dbname} SET TABLESPACE quick")
    assert found(database)["tablespaces"].objects == ("quick",)
    assert found(database, options=DumpOptions(format="plain")) == {}
    run(database.with_database("postgres"), f"ALTER DATABASE {database.dbname} SET TABLESPACE pg_default")
    run(database, "DROP TABLESPACE quick", 'DROP TABLESPACE "In dex"')


# -- rows


def test_valid_rows(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TABLE p (id int, k text COLLATE \"C\", m mood CHECK (m <> 'bad'), PRIMARY KEY (id, k))"
        " PARTITION BY LIST (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "CREATE TABLE c (id int, k text, CHECK (id > 0 AND length(k) < 9), FOREIGN KEY (id, k) REFERENCES p)",
        "CREATE UNIQUE INDEX ON c (lower(k), (id + 1)) WHERE id < 5",
        "CREATE TABLE n (a int, UNIQUE NULLS NOT DISTINCT (a))",
        "INSERT INTO p VALUES (1, 'a', 'good'), (1, 'b', NULL)",
        "INSERT INTO c VALUES (1, 'a'), (NULL, 'a'), (1, NULL), (NULL, NULL), (NULL, NULL)",
        "INSERT INTO n VALUES (NULL), (1)",
    )
    assert found(database, scan_rows=True) == {}


def test_violations_in_partitions_and_children(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "CREATE TABLE c (id int REFERENCES p) PARTITION BY LIST (id)",
        "CREATE TABLE c1 PARTITION OF c DEFAULT",
        "CREATE TABLE base (a int CONSTRAINT positive CHECK (a > 0)); CREATE TABLE child () INHERITS (base)",
        "CREATE TABLE failing (a int CONSTRAINT divides CHECK (1 / a > 0)); INSERT INTO failing VALUES (1)",
        "SET session_replication_role = replica; INSERT INTO c VALUES (7); RESET session_replication_role",
        "ALTER TABLE base DROP CONSTRAINT positive; INSERT INTO child VALUES (-1)",
        "ALTER TABLE base ADD CONSTRAINT positive CHECK (a > 0) NOT VALID",
        "ALTER TABLE failing DROP CONSTRAINT divides; INSERT INTO failing VALUES (0)",
        "ALTER TABLE failing ADD CONSTRAINT divides CHECK (1 / a > 0) NOT VALID",
        "UPDATE pg_constraint SET convalidated = true WHERE conname IN ('positive', 'divides')",
    )
    assert found(database) == {}
    codes = found(database, scan_rows=True)
    assert codes["violated_foreign_key"].objects == ("c_id_fkey on public.c",)
    assert codes["violated_check"].objects == ("positive on public.child", "divides on public.failing")
    assert set(codes) == {"violated_foreign_key", "violated_check"}
    assert found(database, scan_rows=True, options=DumpOptions(schema_only=True)) == {}
    assert found(database, scan_rows=True, options=DumpOptions(exclude_tables=["c", "c1", "child", "failing"])) == {}


def test_keys_that_are_null_in_part_with_match_full(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE TABLE p (a int, b int, PRIMARY KEY (a, b))",
        "CREATE TABLE c (a int, b int, CONSTRAINT complete FOREIGN KEY (a, b) REFERENCES p MATCH FULL)",
        "INSERT INTO c VALUES (NULL, NULL); SET session_replication_role = replica",
    )
    assert found(database, scan_rows=True) == {}
    run(database, "SET session_replication_role = replica", "INSERT INTO c VALUES (1, NULL)")
    assert found(database, scan_rows=True)["violated_foreign_key"].objects == ("complete on public.c",)


def test_a_constraint_of_a_domain_that_is_not_valid(made: Made) -> None:
    database = made(
        NEWEST, "CREATE DOMAIN size AS int", "ALTER DOMAIN size ADD CONSTRAINT p CHECK (value > 0) NOT VALID"
    )
    assert found(database)["not_valid"].objects == ("p on public.size",)


def test_functions_of_users_are_not_run(made: Made) -> None:
    """Whoever owns a table could have a superuser run anything, else."""
    database = made(
        NEWEST,
        "CREATE FUNCTION trap(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE EXCEPTION ''run''; END'",
        "CREATE FUNCTION fake(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT trap($1)'",
        "CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = int, FUNCTION = fake)",
        "CREATE DOMAIN risky AS int",
        "CREATE TABLE t (a int, b int)",
        "INSERT INTO t VALUES (1, 1)",
        "ALTER TABLE t ADD CONSTRAINT c CHECK (trap(a)) NOT VALID",
        "ALTER TABLE t ADD CONSTRAINT o CHECK (a OPERATOR(public.=) 1) NOT VALID",
        "ALTER TABLE t ADD CONSTRAINT d CHECK ((a::risky) > 0) NOT VALID",
        "ALTER DOMAIN risky ADD CHECK (trap(value)) NOT VALID",
        "UPDATE pg_constraint SET convalidated = true",
        "ALTER FUNCTION trap SET search_path = ''",
        "ALTER FUNCTION fake SET search_path = public",
    )
    assert found(database, scan_rows=True) == {}


def test_large_rows(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_rows, "LARGE_ROW", 1 << 20)
    database = made(
        NEWEST,
        "CREATE TABLE large (a text, b bytea, c jsonb)",
        "INSERT INTO large SELECT repeat('x', 500000), string_agg(decode(md5(n::text), 'hex'), NULL), NULL"
        " FROM generate_series(1, 20000) n",
        "CREATE TABLE small (a text)",
        "INSERT INTO small SELECT string_agg(md5(n::text), '') FROM generate_series(1, 20000) n",
    )
    finding = found(database, scan_rows=True)["large_rows"]
    assert finding.objects == ("public.large",)
    run(database, "DELETE FROM large")
    assert found(database, scan_rows=True) == {}


def test_a_table_that_needs_too_much_temporary_space_to_scan(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE TABLE wide (a text PRIMARY KEY); INSERT INTO wide SELECT md5(n::text) FROM generate_series(1, 50000) n",
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int CONSTRAINT k REFERENCES parent)",
        "SET session_replication_role = replica; INSERT INTO child VALUES (1)",
    )
    run(database, f"ALTER DATABASE {database.dbname} SET temp_file_limit = '100kB'")
    run(database, f"ALTER DATABASE {database.dbname} SET work_mem = '1MB'")
    codes = found(database, scan_rows=True)
    assert set(codes) == {"not_scanned", "violated_foreign_key", "superuser_only"}  # the last for temp_file_limit
    assert codes["not_scanned"].objects == ("public.wide",)
    assert "temporary file size exceeds" in codes["not_scanned"].message


def test_a_broken_page(made: Made) -> None:
    """Made in a copy of the files, which no buffer of the server has."""
    source = made(NEWEST, "CREATE TABLE broken (a int CHECK (a > 0)); INSERT INTO broken VALUES (1)", "CHECKPOINT")
    with source.connect() as session:
        query = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('broken')"
        ((path,),) = session.execute(query).fetchall()
    file = Path(path)
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])
    copy = f"{source.dbname}_copy"
    run(source.with_database("postgres"), f"CREATE DATABASE {copy} TEMPLATE {source.dbname} STRATEGY file_copy")
    finding = found(source.with_database(copy), scan_rows=True)["unreadable_rows"]
    assert finding.objects == ("public.broken",)
    assert "invalid page in block 0" in finding.message
    run(source.with_database("postgres"), f"DROP DATABASE {copy} WITH (FORCE)")


def test_a_lost_file_hides_no_other_problem(made: Made) -> None:
    database = made(
        NEWEST, *PROBLEMS["violated_foreign_key"].example, "CREATE TABLE lost (a int CHECK (a > 0))", "CHECKPOINT"
    )
    with database.connect() as session:
        query = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('lost')"
        ((path,),) = session.execute(query).fetchall()
    Path(path).rename(f"{path}.lost")
    codes = found(database, scan_rows=True)
    Path(f"{path}.lost").rename(path)
    assert set(codes) == {"violated_foreign_key", "unreadable_rows"}
    assert codes["unreadable_rows"].objects == ("public.lost",)


# -- who asks, and how long


def test_a_user_with_read_privileges_only(made: Made) -> None:
    database = made(NEWEST, *PROBLEMS["function_search_path"].example, *PROBLEMS["violated_foreign_key"].example)
    role = f"reader_{secrets.token_hex(4)}"
    run(database, f"CREATE ROLE {role} LOGIN", f"GRANT pg_read_all_data TO {role}")
    reader = ConnectionParams({**database.keywords, "user": role})
    assert set(found(reader, scan_rows=True)) == {"function_search_path", "violated_foreign_key"}
    run(database, f"REVOKE pg_read_all_data FROM {role}", "REVOKE SELECT ON pg_catalog.pg_ts_dict FROM public")
    without = set(found(reader, scan_rows=True))
    run(database, f"DROP ROLE {role}")
    assert without == {"function_search_path", "table_select", "tool"}


def test_a_table_that_is_locked_is_not_waited_for(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE TABLE t (at timestamptz CHECK (at > now()), what regclass UNIQUE); INSERT INTO t VALUES (NULL, 't')",
        "CREATE TABLE other (at timestamptz CHECK (at > now()))",
    )
    with database.connect() as session, session.transaction():
        session.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        # It would wait for an hour.
        codes = found(database, scan_rows=True, settings=Settings(lock_wait_timeout=3600))
    assert set(codes) == {"locked", "check_changes"}
    assert codes["check_changes"].objects == ("other_at_check on public.other",)


def test_a_scan_can_be_canceled(made: Made) -> None:
    database = made(
        NEWEST,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (3600)",
        "ALTER TABLE t ADD CHECK (pg_sleep(a) IS NOT NULL) NOT VALID",
        "UPDATE pg_constraint SET convalidated = true WHERE conrelid = 't'::regclass",
    )
    cancel = Cancel()
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(
            check, connection=database, server="main", scan_rows=True, **in_context({"cancel": cancel})
        )
        with database.connect() as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
            while session.execute(query).fetchone() == (0,):
                assert not checking.done()
                time.sleep(0.05)
        cancel.set()
        with pytest.raises(Canceled):
            checking.result(timeout=240)


# -- no false alarms


def test_a_sample_database(made: Made) -> None:
    sample = made(NEWEST)
    with sample.connect() as session:
        load_sample(session)
    assert found(sample, scan_rows=True) == {}
    assert found(sample, options=DumpOptions(schemas=["public"])) == {}


@each(BUILDS)
def test_a_database_of_everything(build: Build, servers: Servers, made: Made) -> None:
    """Each of these is really in there: NOT VALID constraints, names of roles and tables in columns, and so on."""
    server = servers(build)
    torture.roles_and_tablespaces(server.params)
    database = made(build)
    torture.build(database)
    codes = found(database, scan_rows=True, settings=build.settings)
    assert codes.pop("extensions", None) is None or build.major
    assert set(codes) == {
        *("foreign_tables", "timeouts"),
        *(
            "not_valid",
            "reg_columns",
            "role_columns",
            "event_triggers",
            "publications",
            "superuser_only",
            "tablespaces",
        ),
    }
    assert codes["not_valid"].objects == ('"odd ""check" on t.shifts', "hen_egg_fkey on t.hen")
    every = check(connection=server.params, server="main", options=DumpAllOptions())
    assert {one.code for one in every} & set(PROBLEMS) == set(codes) & set(PROBLEMS)
