"""Whoever owns a database, or may create in its schema public, runs nothing as the role that dumps and inspects it."""

from __future__ import annotations

import ast
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

import airflow_pgbackup
from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.lock_watch import LockWatch
from airflow_pgbackup.backup.mask import check_rules, propose_rules
from airflow_pgbackup.backup.masking import load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.sets.discover import discover
from airflow_pgbackup.backup.sets.dump_set import dump_set
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

Fresh = Callable[..., ConnectionParams]

# COPY TO PROGRAM writes even in a read-only transaction; the directory is that of the server's data.
RUN = """create function {schema}.run() returns void language plpgsql as $$ begin
    if (select rolsuper from pg_catalog.pg_roles where rolname operator(pg_catalog.=) current_user) then
        copy (select 1) to program 'cat > /dev/null; touch attacked';
    end if; end $$"""
IS_TEXT = """create function evil.accept(anyelement) returns bool language plpgsql
    as $$ begin perform evil.run(); return true; end $$"""
OPERATOR = """create function {schema}.{name}({left}, {right}) returns bool language plpgsql
    as $$ begin perform {schema}.run(); return $1 operator(pg_catalog.{operator}) $2; end $$"""
DEFINED = "create operator {schema}.{operator} (function = {schema}.{name}, leftarg = {left}, rightarg = {right})"
COUNT = (
    "create function evil.step(bigint) returns bigint language plpgsql "
    "as $$ begin perform evil.run(); return $1 operator(pg_catalog.+) 1; end $$",
    "create aggregate evil.count(*) (sfunc = evil.step, stype = bigint, initcond = '0')",
)
DOMAINS = ("text", "name", "oid", "int4", "int8", "bool", "regclass")
TYPES = ("text", "name", "oid", "int4", "int8", "bool", '"char"')


def operators(schema: str, *each: tuple[str, str, str]) -> Iterator[str]:
    """Yield statements that create operators with left and right type."""
    for operator, left, right in each:
        given = {"schema": schema, "operator": operator, "name": f"f_{secrets.token_hex(4)}"}
        given |= {"left": f"pg_catalog.{left}", "right": f"pg_catalog.{right}"}
        yield OPERATOR.format(**given)
        yield DEFINED.format(**given)


def own_path() -> Iterator[str]:
    """Yield what the owner of a database does: its schema comes before pg_catalog."""
    yield "create schema evil"
    yield RUN.format(schema="evil")
    yield IS_TEXT
    yield from COUNT
    yield from operators("evil", *(("=", kind, kind) for kind in TYPES), *(("~", "name", kind) for kind in TYPES[:2]))
    for name in DOMAINS:
        yield f"create domain evil.{name} as pg_catalog.{name} check (evil.accept(value))"


def public() -> Iterator[str]:
    """Yield what a role does that may create in schema public: operators that pg_catalog has for other types only."""
    yield RUN.format(schema="public")
    for operator in ("~", "!~"):
        yield f"""create function public.f_{len(operator)}(name, name) returns bool language plpgsql
            as $$ begin perform public.run(); return $1::text operator(pg_catalog.{operator}) $2::text; end $$"""
        yield f"create operator public.{operator} (function = f_{len(operator)}, leftarg = name, rightarg = name)"


@dataclass
class Attacked:
    """A server, and a database in which a role without rights has laid a trap."""

    server: PostgresServer
    database: ConnectionParams

    def assert_nothing_ran(self) -> None:
        with self.server.params.connect() as session:
            assert session.execute("select pg_stat_file('attacked', true)").fetchone() == (None,)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password="x", tcp=True) as server:
        with server.params.connect() as session:
            session.execute("create role tenant login password 'secret'")
        yield server


@pytest.fixture(params=["owner", "public"])
def attacked(
    request: pytest.FixtureRequest, server: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> Iterator[Attacked]:
    database = fresh_database(server, None, "grant create on schema public to public")
    name = sql.Identifier(database.dbname)
    if request.param == "owner":
        with server.params.connect() as session:
            session.execute(sql.SQL("alter database {} owner to tenant").format(name))
    tenant = ConnectionParams({**database.keywords, "user": "tenant"}, password="secret")
    with tenant.connect() as session:
        session.execute("create table public.film (id int primary key, title text)")
        session.execute("insert into public.film values (1, 'a film')")
        for statement in own_path() if request.param == "owner" else public():
            session.execute(statement.encode())
        if request.param == "owner":
            session.execute(sql.SQL("alter database {} set search_path = evil, pg_catalog, public").format(name))
    yield Attacked(server, database)
    with server.params.connect() as session:
        session.execute("copy (select 1) to program 'cat > /dev/null; rm -f attacked'")


def test_the_trap_works(attacked: Attacked) -> None:
    with attacked.database.connect() as session:
        session.execute("select count(*) from pg_catalog.pg_class where relname ~ '^pg_' and relkind = 'r'")
    with pytest.raises(AssertionError):
        attacked.assert_nothing_ran()


def test_a_dump(attacked: Attacked, here: Repository) -> None:
    dump_database(connection=attacked.database, server="s", repository=here, options=DumpOptions())
    attacked.assert_nothing_ran()


def test_a_dump_that_counts_rows(attacked: Attacked, here: Repository) -> None:
    made = dump_database(
        connection=attacked.database, server="s", repository=here, options=DumpOptions(), count_rows=True
    )
    verify(reference=made, repository=here, level="archive")
    attacked.assert_nothing_ran()


@pytest.mark.parametrize("options", [DumpOptions(), DumpAllOptions()], ids=["database", "cluster"])
def test_check(attacked: Attacked, here: Repository, options: DumpOptions | DumpAllOptions) -> None:
    check(connection=attacked.database, server="s", repository=here, options=options, scan_rows=True)
    attacked.assert_nothing_ran()


def test_patterns_of_tables(attacked: Attacked, here: Repository) -> None:
    options = DumpOptions(tables=["film"])
    findings = check(connection=attacked.database, server="s", repository=here, options=options)
    assert "pattern" not in {finding.code for finding in findings}
    dump_database(connection=attacked.database, server="s", repository=here, options=options, count_rows=True)
    attacked.assert_nothing_ran()


def test_a_dump_of_the_cluster(attacked: Attacked, here: Repository) -> None:
    dump_cluster(connection=attacked.database, server="s", repository=here, options=DumpAllOptions())
    attacked.assert_nothing_ran()


def test_discover_and_a_set(attacked: Attacked, here: Repository) -> None:
    discover(connection=attacked.database, databases=["*"], exclude=["template*"])
    dump_set(connection=attacked.database, server="s", repository=here, options=DumpOptions())
    attacked.assert_nothing_ran()


def test_masking_rules(attacked: Attacked) -> None:
    rules = propose_rules(connection=attacked.database)
    check_rules(connection=attacked.database, rules=load_rules(rules.encode()))
    attacked.assert_nothing_ran()


def test_the_watch_for_locks(attacked: Attacked) -> None:
    assert LockWatch(attacked.database, RunContext(), lambda: True)._look() is None
    attacked.assert_nothing_ran()


@pytest.fixture
def backup(
    server: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> dict[str, object]:
    source = fresh_database(
        server, None, "create table actor (id int primary key, name text)", "insert into actor values (1, 'x')"
    )
    made = dump_database(connection=source, server="s", repository=here, options=DumpOptions())
    return verify(reference=made, repository=here, level="archive")


def test_a_restore_into_the_database(attacked: Attacked, here: Repository, backup: dict[str, object]) -> None:
    target = RestoreTarget(connection=attacked.database, mode="into_existing")
    assert restore(reference=backup, repository=here, target=target)["rows"] == 1
    attacked.assert_nothing_ran()


def test_a_refresh_of_the_database(attacked: Attacked, here: Repository, backup: dict[str, object]) -> None:
    refresh(reference=backup, repository=here, target=attacked.database, keep=0)
    attacked.assert_nothing_ran()


def test_the_path_is_empty_also_after_a_rollback(attacked: Attacked) -> None:
    with attacked.database.open_session(autocommit=False) as session:
        for _ in range(2):
            assert session.execute("show search_path").fetchone() == ("",)
            session.rollback()


# Where a session may have the path of the database: the statements are the user's, or of a demonstration.
OWN_PATH = {
    "demo/database.py",
    "demo/flow.py",
    "demo/staging.py",
    "hooks/pgbackup.py",
    "postgres/connection/pooler.py",
    "postgres/connection/search_path.py",
}


def test_every_session_of_ours_is_opened_with_an_empty_path() -> None:
    package = Path(airflow_pgbackup.__file__).parent
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
                found.setdefault(ast.unparse(node.func), set()).add(path.relative_to(package).as_posix())
    assert found.pop("psycopg.connect") == {"postgres/connection/connect.py"}
    assert set().union(*found.values()) == OWN_PATH
