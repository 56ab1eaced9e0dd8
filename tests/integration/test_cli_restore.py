"""``pgbackup restore``: which database it restores into, what it asks before, and the options of pg_restore."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from restoring import databases_of, fresh_server

from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]

SCHEMA = (
    "create type rating as enum ('G', 'R')",
    "create table language (language_id int primary key, name text)",
    "insert into language values (1, 'English')",
    "create table film (film_id int primary key generated always as identity, title text not null, rating rating, "
    "language_id int references language, upper_title text generated always as (upper(title)) stored)",
    "insert into film (title, rating, language_id) select 'film ' || n, 'G', 1 from generate_series(1, 100) n",
    "create index film_title on film (title)",
    "create table log (line text)",
    "insert into log select 'line ' || n from generate_series(1, 10) n",
    "create function loud() returns trigger language plpgsql as $$ begin raise exception 'fired'; end $$",
    "create trigger loud before update on film for each row execute function loud()",
    "create schema other",
    "create table other.film (a int)",
    "create table plan (id int primary key) partition by range (id)",
    "create table plan_1 partition of plan for values from (0) to (100)",
    "insert into plan select generate_series(1, 50)",
)


class Cli:
    """The command line, with a server of its own.

    :ivar uri: a repository with a backup of the database ``crm``.
    """

    def __init__(self, server: PostgresServer, uri: str) -> None:
        self.server = server
        self.uri = uri

    def env(self, **more: str) -> dict[str, str]:
        params = self.server.params
        return {
            "PATH": os.environ["PATH"], "HOME": "/nonexistent", "PGHOST": params.host, "PGPORT": params.port,
            "PGUSER": params.user, "PGPASSWORD": str(params.password), **more,
        }  # fmt: skip

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*PROGRAM, *arguments], env=self.env(**more), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert "Traceback" not in done.stderr
        return done

    def restore(self, *arguments: str, series: str = "prod/crm", **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("restore", self.uri, series, *arguments, **more)

    def typed(self, text: str, *arguments: str) -> tuple[int, str]:
        """Run a restore on a pseudo-terminal, and type a line; return its exit status and what it showed."""
        ours, theirs = os.openpty()
        command = [*PROGRAM, "restore", self.uri, "prod/crm", *arguments]
        with open(ours, "r+b", buffering=0) as terminal:  # noqa: PTH123  a descriptor
            env = self.env(TERM="xterm", COLUMNS="200")
            with subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
                os.close(theirs)
                shown = b""
                with contextlib.suppress(OSError):  # EIO: the program has ended
                    while piece := terminal.read(1 << 16):
                        asked = b"type the name" in shown
                        shown += piece
                        if not asked and b"type the name" in shown:
                            terminal.write(text.encode() + b"\n")
        return process.returncode, shown.decode()

    def sql(self, database: str, *statements: str) -> Any:
        """Run statements; return the first value of the last one, if it has any."""
        with self.server.params.with_database(database).connect() as session:
            for statement in statements:
                cursor = session.execute(statement)  # type: ignore[arg-type]
            return (cursor.fetchone() or [None])[0] if cursor.description else None

    def create(self, name: str, *statements: str) -> None:
        with self.server.params.connect() as session:
            session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        if statements:
            self.sql(name, *statements)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with fresh_server(18, superuser="admin") as server:
        cli = Cli(server, f"file://{tmp_path_factory.mktemp('repository')}")
        cli.run("init", cli.uri)
        cli.create("crm", *SCHEMA)
        for arguments in (["--dbname", "crm"], ["--cluster"]):
            done = cli.run("dump", cli.uri, "--server", "prod", "--verify", "integrity", *arguments)
            assert done.returncode == 0, done.stderr
        yield cli


@pytest.fixture(autouse=True)
def _only_crm(cli: Cli) -> Iterator[None]:
    yield
    with cli.server.params.connect() as session:
        for name in databases_of(cli.server):
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    cli.create("crm", *SCHEMA)


def test_the_default_target_is_the_database_of_the_backup(cli: Cli) -> None:
    cli.sql("postgres", "drop database crm with (force)")
    cli.create("crm")
    done = cli.restore(PGDATABASE="postgres")
    assert done.returncode == 0, done.stderr
    assert "/crm, mode into_empty; database postgres of the environment or service is ignored" in done.stderr
    assert done.stderr.index("target: ") < done.stderr.index("restoring backup")
    assert cli.sql("crm", "select count(*) from film") == 100
    assert cli.sql("postgres", "select count(*) from pg_class where oid >= 16384") == 0


def test_the_target_is_printed_though_nothing_is_done(cli: Cli) -> None:
    done = cli.restore("--dbname", "copy", "--mode", "create", "--dry-run", "--json")
    assert json.loads(done.stdout)["dry_run"]
    assert "target: " in done.stderr
    assert "/copy, mode create" in done.stderr
    refused = cli.restore()
    assert refused.returncode == EXIT_STATUS["usage"]
    assert "/crm is not empty" in refused.stderr
    missing = cli.restore("--dbname", "copy")
    assert 'database "copy" does not exist' in missing.stderr
    assert "mode create" in missing.stderr


def test_replacing_the_own_database_needs_no_name(cli: Cli) -> None:
    cli.sql("crm", "create table since_then (a int)")
    done = cli.restore("--mode", "replace", "--drop-old", PGDATABASE="postgres")
    assert done.returncode == 0, done.stderr
    assert cli.sql("crm", "select to_regclass('since_then')") is None
    assert databases_of(cli.server) == {"crm"}


@pytest.mark.parametrize("name", ["postgres", "template0", "template1"])
def test_postgres_and_the_templates_are_never_replaced(cli: Cli, name: str) -> None:
    before = databases_of(cli.server)
    done = cli.restore("--mode", "replace", "--dbname", name, "--yes")
    assert done.returncode == EXIT_STATUS["usage"]
    assert f'database "{name}" is never replaced' in done.stderr
    assert "hint: " in done.stderr
    assert databases_of(cli.server) == before


def test_the_maintenance_database_is_not_replaced(cli: Cli) -> None:
    done = cli.restore("--mode", "replace", "--maintenance-db", "crm")
    assert done.returncode == EXIT_STATUS["usage"]
    assert "is the target itself" in done.stderr


def test_replacing_another_database_asks_for_its_name(cli: Cli) -> None:
    cli.create("crm2", "create table precious (a int)")
    replace = ("--mode", "replace", "--dbname", "crm2")
    refused = cli.restore(*replace)
    assert refused.returncode == EXIT_STATUS["usage"]
    assert 'replacing database "crm2" with a backup of "crm" needs a confirmation' in refused.stderr
    assert "--yes" in refused.stderr
    for wrong in ("crm", "", "y", "crm2 "):
        status, shown = cli.typed(wrong, *replace)
        assert status == EXIT_STATUS["usage"]
        assert 'the name typed is not "crm2"; nothing was changed' in shown
    assert cli.sql("crm2", "select count(*) from precious") == 0

    status, shown = cli.typed("crm2", *replace)
    assert status == 0, shown
    assert shown.index("target: ") < shown.index("type the name of the database")
    assert "the old database is kept as crm2_replaced_" in shown
    assert cli.sql("crm2", "select count(*) from film") == 100

    done = cli.restore(*replace, "--yes", "--drop-old")
    assert done.returncode == 0, done.stderr
    assert len([name for name in databases_of(cli.server) if name.startswith("crm2")]) == 2
    assert cli.restore(*replace, "--dry-run").returncode == 0


def test_a_cluster_needs_no_database_and_is_restored_once(cli: Cli, tmp_path: Path) -> None:
    with fresh_server(18, superuser="admin") as server:
        other = Cli(server, cli.uri)
        done = other.restore(series="prod/@cluster", PGDATABASE="nowhere")
        assert done.returncode == 0, done.stderr
        assert "target: the server of " in done.stderr
        assert other.sql("crm", "select count(*) from log") == 10
        again = other.restore(series="prod/@cluster")
        assert again.returncode == EXIT_STATUS["usage"]
        assert "already has database crm" in again.stderr
        assert other.sql("crm", "select count(*) from log") == 10
        named = other.restore("--dbname", "nowhere", series="prod/@cluster")
        assert 'database "nowhere" does not exist' in named.stderr


def test_the_options_of_pg_restore(cli: Cli, tmp_path: Path) -> None:
    create = ("--mode", "create", "--dbname", "copy")
    done = cli.restore(*create, "--table", "log", "-t", "language", "-n", "public", "-O", "-x", "-o", "no_comments")
    assert done.returncode == 0, done.stderr
    assert cli.sql("copy", "select count(*) from log") == 10
    tables = "select string_agg(relname, ',' order by relname) from pg_class where relkind = 'r' and oid >= 16384"
    assert cli.sql("copy", tables) == "language,log"

    cli.sql("postgres", "drop database copy with (force)")
    done = cli.restore(*create, "--section", "pre-data", "--section", "data", "--jobs", "2", "--role", "admin")
    assert done.returncode == 0, done.stderr
    assert "2 jobs" in done.stderr
    assert (
        cli.sql("copy", "select count(*) from pg_index where indexrelid >= 16384 and indrelid = 'film'::regclass") == 0
    )

    artifact = tmp_path / "out"
    artifact.mkdir()
    path = json.loads(cli.run("get", cli.uri, "prod/crm", "--into", str(artifact), "--json").stdout)["path"]
    listed = subprocess.run(
        [cli.server.bin_dir / "pg_restore", "--list", path], capture_output=True, text=True, check=True
    )
    (tmp_path / "list").write_text("".join(line for line in listed.stdout.splitlines(True) if " log " in line))
    cli.sql("postgres", "drop database copy with (force)")
    done = cli.restore(*create, "--use-list", str(tmp_path / "list"))
    assert done.returncode == 0, done.stderr
    assert cli.sql("copy", tables) == "log"

    cli.sql("crm", "delete from log")
    done = cli.restore("--mode", "into_existing", "--data-only", "--table", "log")
    assert done.returncode == 0, done.stderr
    assert cli.sql("crm", "select count(*) from log") == 10
    unknown = cli.restore("--table", "flim")
    assert unknown.returncode == EXIT_STATUS["usage"]


def test_roles_are_restored_first(cli: Cli) -> None:
    with fresh_server(18, superuser="boss") as server:
        other = Cli(server, cli.uri)
        refused = other.restore("--mode", "create")
        assert "lacks what the backup needs: role admin" in refused.stderr
        done = other.restore("--mode", "create", "--globals", "prod/@cluster", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["roles_created"] == ["admin"]


def fingerprint(cli: Cli) -> str:
    """What the live database holds outside of the new schema, and where it is stored: a rewrite would move it.

    Without what autovacuum changes.
    """
    return str(
        cli.sql(
            "crm",
            "select jsonb_agg(to_jsonb(c) - 'relpages' - 'reltuples' - 'relallvisible' - 'relallfrozen' "
            "- 'relfrozenxid' - 'relminmxid' order by oid) "
            "from (select c.* from pg_class c join pg_namespace n on n.oid = relnamespace "
            "where nspname in ('public', 'other')) c",
        )
    )


def test_one_table_beside_the_live_one(cli: Cli) -> None:
    cli.sql("crm", "delete from film where film_id > 90", "update language set name = 'Latin'", "drop table plan")
    cli.sql("crm", "alter table film add column since_then int", "alter table film disable trigger loud")
    before, databases = fingerprint(cli), databases_of(cli.server)
    into = ("--into-schema", 'recovered "26"', "--table", "film", "-t", "log", "-t", "plan", "--schema", "public")
    plan = cli.restore(*into, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "without foreign keys, triggers, rules, policies, extended statistics and privileges" in plan.stdout
    assert fingerprint(cli) == before

    done = cli.restore(*into, PGDATABASE="postgres")
    assert done.returncode == 0, done.stderr
    assert "/crm, mode into_existing, new schema" in done.stderr
    assert fingerprint(cli) == before
    assert databases_of(cli.server) == databases
    assert cli.sql("crm", 'select count(*) from "recovered ""26""".film') == 100
    assert cli.sql("crm", 'select count(*) from "recovered ""26""".plan_1') == 50
    indexes = "select string_agg(indexname, ',' order by indexname) from pg_indexes where schemaname like 'recovered%'"
    assert cli.sql("crm", indexes) == "film_pkey,film_title,plan_1_pkey,plan_pkey"
    assert cli.sql("crm", "select count(*) from pg_constraint where contype = 'f' and connamespace in "
                          "(select oid from pg_namespace where nspname like 'recovered%')") == 0  # fmt: skip
    tied = "select count(*) from pg_trigger where not tgisinternal and tgrelid = 'film'::regclass"
    assert cli.sql("crm", tied) == 1
    assert cli.sql("crm", tied.replace("'film'", '\'"recovered ""26""".film\'')) == 0
    assert "the tables are in schema" in done.stdout
    assert "without foreign keys" in done.stdout

    statements = [line for line in done.stdout.splitlines() if line.startswith(("INSERT", "ALTER"))]
    assert len(statements) == 3
    assert "-- the backup lacks since_then" in done.stdout
    assert '-- "public"."log" has no primary key' in done.stdout
    cli.sql("crm", "delete from log", *statements)
    assert cli.sql("crm", "select count(*) from film") == 100
    assert cli.sql("crm", "select count(*) from log") == 10
    assert cli.sql("crm", "select count(*) from plan") == 50
    assert cli.sql("crm", "select name from language") == "Latin"

    again = cli.restore(*into)
    assert again.returncode == EXIT_STATUS["usage"]
    assert "already exists in " in again.stderr
    (drop,) = [line for line in done.stdout.splitlines() if line.startswith("then: ")]
    cli.sql("crm", drop.removeprefix("then: "))
    as_json = json.loads(cli.restore("--into-schema", "r", "-t", "log", "--json").stdout)
    assert as_json["statements"][-1].startswith('INSERT INTO "public"."log" ("line") SELECT')
    assert (as_json["rows"], as_json["into_schema"]) == (10, "r")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "flim"], 'the backup has no table "flim"'),
        (["--table", "film"], 'table "film" is in schemas other, public'),
        ([], "--into-schema needs --table"),
        (["--table", "log", "--data-only"], "--data-only cannot be combined with --into-schema"),
        (["--table", "log", "--mode", "create"], "--into-schema cannot be combined with --mode create"),
        (["--table", "log", "--into-schema", "public"], 'schema "public" already exists'),
        (["--table", "log", "--into-schema", "pg_new"], "invalid name of a new schema"),
        (["--table", "log", "--into-schema", "a\udcff"], r"invalid name of a new schema: 'a\udcff'"),
    ],
)
def test_what_a_new_schema_refuses(cli: Cli, arguments: list[str], said: str) -> None:
    before = fingerprint(cli)
    done = cli.restore("--into-schema", "recovered", *arguments)
    assert done.returncode == EXIT_STATUS["usage"]
    assert said in done.stderr
    assert fingerprint(cli) == before
    assert cli.sql("crm", "select count(*) from pg_namespace where nspname = 'recovered'") == 0


def test_a_new_schema_is_all_or_nothing(cli: Cli) -> None:
    cli.sql("crm", "alter type rating rename to other_rating")  # film cannot be created in the live database
    before, databases = fingerprint(cli), databases_of(cli.server)
    done = cli.restore("--into-schema", "recovered", "-t", "film", "-t", "log", "-n", "public")
    assert done.returncode == EXIT_STATUS["failed"]
    assert 'type "public.rating" does not exist' in done.stderr
    assert 'database "crm" was not changed' in done.stderr
    assert fingerprint(cli) == before
    assert databases_of(cli.server) == databases
    assert cli.sql("crm", "select count(*) from pg_namespace where nspname = 'recovered'") == 0


@pytest.mark.parametrize("dumped", ["plain", "tar", "directory"])
def test_a_new_schema_from_any_format(cli: Cli, dumped: str) -> None:
    extra = (
        "create table part (id int primary key) partition by range (id)",
        "create table part_1 partition of part for values from (0) to (9)",
        "insert into part values (1)",
        "create function deep(text) returns text immutable language sql as $$ select left($1, 3) $$",
        "create function short(a text) returns text immutable language plpgsql as "
        "$$ begin return public.deep(a); end $$",
        "create sequence numbers",
        "create table event (id serial primary key, n int default nextval('numbers'), what text check (what <> ''))",
        "create index event_short on event (short(what))",
        "insert into event (what) values ('one'), ('two')",
        "alter table event enable row level security",
        "create policy none on event using (false)",
        "create rule silent as on delete to event do instead nothing",
    )
    cli.create("more", *extra)
    done = cli.run("dump", cli.uri, "--server", dumped, "--dbname", "more", "-o", f"format={dumped}")
    assert done.returncode == 0, done.stderr
    id = done.stdout.split()[1]
    done = cli.restore(id, "--into-schema", "back", "-t", "event", "-t", "part_1", series=f"{dumped}/more")
    assert done.returncode == 0, done.stderr
    assert cli.sql("more", "select count(*) from back.event") == 2
    assert cli.sql("more", "select count(*) from back.part_1") == 1
    assert cli.sql("more", "select count(*) from pg_inherits where inhrelid = 'back.part_1'::regclass") == 0
    assert cli.sql("more", "select count(*) from pg_inherits where inhparent = 'part'::regclass") == 1
    assert cli.sql("more", "select count(*) from pg_indexes where schemaname = 'back' and tablename = 'event'") == 2
    assert cli.sql("more", "insert into back.event (what) values ('three') returning id") == 3
    assert cli.sql("more", "select n from back.event where what = 'three'") is None
    assert cli.sql("more", "select last_value from numbers") == 2
    assert cli.sql("more", "select relrowsecurity from pg_class where oid = 'back.event'::regclass") is False
