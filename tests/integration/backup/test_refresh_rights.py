"""refresh: what the backup brings opens nothing that the old database had closed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from contexts import in_context
from psycopg import sql
from restoring import local, value

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.refresh import kept_copies, refresh
from airflow_pgbackup.backup.refresh.own_grants import apply_own_grants, read_own_grants
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import ConnectError, RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

Fresh = Callable[..., ConnectionParams]


@dataclass
class Lab:
    """A server with an application's role, which has the password ``secret``."""

    server: PostgresServer
    fresh: Fresh
    repository: Repository
    role: str

    def refreshed(self, production: list[str], staging: list[str], **more: Any) -> tuple[ConnectionParams, Any]:
        """Refresh a database with the contents of another one; return its parameters and the result."""
        target = self.fresh(self.server, None, *(each.format(role=self.role) for each in staging))
        return target, self.refresh(target, production, **more)

    def refresh(self, target: ConnectionParams, production: list[str], **more: Any) -> Any:
        source = self.fresh(self.server, more.pop("name", None), *(each.format(role=self.role) for each in production))
        try:
            made = dump_database(connection=source, server="prod", repository=self.repository, options=DumpOptions())
        finally:
            with self.server.params.connect() as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(source.dbname)))
        reference = verify(reference=made, repository=self.repository, level="archive")
        return refresh(
            **{"reference": reference, "repository": self.repository, "target": target, "keep": 0, **in_context(more)}
        )

    def as_role(self, database: ConnectionParams) -> ConnectionParams:
        return ConnectionParams({**database.keywords, "user": self.role}, password="secret")


@pytest.fixture
def role(server18: PostgresServer) -> Iterator[str]:
    name = f"app_{secrets.token_hex(4)}"
    with server18.params.connect() as connection:
        connection.execute(f"create role {name} login createdb password 'secret'")
    yield name
    with server18.params.connect() as connection:
        connection.execute(f"drop role {name}")


@pytest.fixture
def lab(server18: PostgresServer, role: str, fresh_database: Fresh, tmp_path: Path) -> Lab:
    return Lab(server18, fresh_database, local(tmp_path / "repository"), role)


REPORT = "create function report({}) returns text language sql {} as 'select current_user::text'"
MAY_EXECUTE = "select has_function_privilege('public', '{}', 'execute')"


@pytest.mark.parametrize(
    "old",
    [
        pytest.param([], id="absent"),
        pytest.param([REPORT.format("a text, b int", ""), "alter function report owner to {role}"], id="signature"),
        pytest.param([REPORT.format("a text", "")], id="invoker"),
    ],
)
def test_nobody_may_execute_a_new_function_of_our_role(lab: Lab, old: list[str]) -> None:
    new = [REPORT.format("a text", "security definer"), "revoke all on function report from public"]
    staging, _ = lab.refreshed(new, old)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function report"):
        value(lab.as_role(staging), "select report('')")


OLD_KINDS = {
    "function": REPORT.format("a text", "security definer"),
    "aggregate": "create aggregate report(text) (sfunc = textcat, stype = text)",
    "procedure": "create procedure report(a text) language sql security definer as ''",
}


@pytest.mark.every_value
@pytest.mark.parametrize(
    ("old", "new"),
    [("function", "procedure"), ("procedure", "function"), ("aggregate", "procedure"), ("aggregate", "function")],
)
def test_a_routine_of_another_kind_counts_as_new(lab: Lab, old: str, new: str) -> None:
    staging = [OLD_KINDS[old], f"alter {old} report(text) owner to {{role}}"]
    closed = ["revoke all on routine report(text) from public"]
    target, done = lab.refreshed([OLD_KINDS[new]], staging + closed)
    assert value(target, MAY_EXECUTE.format("report(text)")) is False
    assert value(target, "select proowner::regrole::text from pg_proc where proname = 'report'") != lab.role
    assert done["not_reapplied"] == [f"not re-applied: {old.upper()} report(text) in schema public no longer exists"]
    again, _ = lab.refreshed([OLD_KINDS[new]], staging)
    assert value(again, MAY_EXECUTE.format("report(text)")) is False, "PUBLIC had the privilege on another object"


def test_a_domain_that_becomes_a_type_is_closed(lab: Lab) -> None:
    staging, _ = lab.refreshed(
        ["create type mood as enum ()"], ["create domain mood as text", "revoke all on type mood from public"]
    )
    assert value(staging, "select has_type_privilege('public', 'mood', 'usage')") is False


def test_procedures_that_differ_in_the_modes_of_their_arguments(lab: Lab) -> None:
    procedures = [
        "create procedure p(a int, out b int) language sql as 'select 1'",
        "create procedure p(a int, b int) language sql as ''",
        'create schema "a ""b"',
        'create procedure "a ""b"."p,q"("x y" int, inout z numeric(3, 2), variadic v text[]) language sql '
        "as 'select 1.0'",
    ]
    staging, _ = lab.refreshed(procedures, [])
    closed = "select array_agg(not has_function_privilege('public', oid, 'execute')) from pg_proc where oid >= 16384"
    assert value(staging, closed) == [True, True, True]
    staging, _ = lab.refreshed(procedures, procedures[:1])
    opened = "select array_agg(oid::regprocedure::text) from pg_proc where oid >= 16384 and {}"
    assert value(staging, opened.format("has_function_privilege('public', oid, 'execute')")) == ["p(integer)"]


@pytest.mark.parametrize("new", ["view", "table"])
def test_an_object_of_another_kind_gets_no_grants(lab: Lab, new: str) -> None:
    old = [
        "create materialized view report as select 1 as a",
        "alter materialized view report owner to {role}",
        "grant select on report to public",
        "grant update (a) on report to public",
    ]
    staging, done = lab.refreshed(["create table secret (a int)", f"create {new} report as select * from secret"], old)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        value(lab.as_role(staging), "select count(*) from report")
    assert value(staging, "select has_any_column_privilege('public', 'report', 'select, update')") is False
    assert done["not_reapplied"] == ["not re-applied: MATERIALIZED VIEW report in schema public no longer exists"]
    assert done["new_objects"] == ["TABLE public.secret", f"{new.upper()} public.report"][:: 1 if new == "view" else -1]


def test_public_has_no_privilege_on_other_new_objects(lab: Lab) -> None:
    new = [
        "create type mood as enum ('fine')",
        "create type pair as (a int, b int)",
        'create type "a span" as range (subtype = int)',
        "create domain positive as int check (value > 0)",
        "create procedure reset() language sql as ''",
        "create aggregate total(int) (sfunc = int4pl, stype = int)",
        "create aggregate everything(*) (sfunc = int8inc, stype = int8, initcond = '0')",
        "create function handle() returns language_handler language c as '$libdir/plpgsql', 'plpgsql_call_handler'",
        "create trusted language own handler handle",
        "create table t (a int)",
    ]
    staging, _ = lab.refreshed(new, [])
    for kind, names in {
        "type": ["mood", "pair", '"a span"', "positive"],
        "function": ["reset()", "total(int)", "everything()"],
        "language": ["own"],
    }.items():
        right = "execute" if kind == "function" else "usage"
        for name in names:
            assert value(staging, f"select has_{kind}_privilege('public', '{name}', '{right}')") is False, name


def test_existing_functions_keep_their_privileges(lab: Lab) -> None:
    functions = [REPORT.format("a text", ""), REPORT.format("a int", "security definer"), "create type mood as enum ()"]
    more = ["grant execute on function report(text) to {role}", "revoke all on function report(int) from public"]
    staging, _ = lab.refreshed(functions, functions + more)
    assert value(lab.as_role(staging), "select report('')") == lab.role
    assert value(staging, MAY_EXECUTE.format("report(text)")) is True
    assert value(staging, MAY_EXECUTE.format("report(int)")) is False
    assert value(staging, "select has_type_privilege('public', 'mood', 'usage')") is True
    # The grants that somebody gives after the first refresh stay.
    assert "report(int)" not in str(lab.refresh(staging, functions)["new_objects"])
    assert value(staging, MAY_EXECUTE.format("report(int)")) is False


def foreign(database: str, *more: str, wrapper: str = "w") -> list[str]:
    return [
        f"create foreign data wrapper {wrapper}",
        f"create server crm foreign data wrapper {wrapper} options (host 'localhost', dbname '{database}'{{extra}})",
        f"create foreign table person (id int, mail text options (column_name 'of_{database}')) server crm "
        f"options (table_name 'in_{database}'{{extra}})",
        *more,
    ]


PRODUCTION_CRM = [each.replace("{extra}", ", extra '1'") for each in foreign("production")]
STAGING_CRM = [
    each.replace("{extra}", ", note 'it''s \\ ours'")
    for each in foreign("staging", "create user mapping for public server crm options (password 'of staging')")
]
OPTIONS = {
    "server": "select srvoptions from pg_foreign_server where srvname = 'crm'",
    "table": "select ftoptions from pg_foreign_table",
    "column": "select attfdwoptions from pg_attribute where attrelid = 'person'::regclass and attname = 'mail'",
    "mappings": "select array_agg(umoptions::text) from pg_user_mappings",
}


def test_foreign_servers_point_where_those_of_staging_did(lab: Lab) -> None:
    staging, done = lab.refreshed(PRODUCTION_CRM, STAGING_CRM)
    assert {name: sorted(value(staging, query)) for name, query in OPTIONS.items()} == {
        "server": ["dbname=staging", "host=localhost", "note=it's \\ ours"],
        "table": ["note=it's \\ ours", "table_name=in_staging"],
        "column": ["column_name=of_staging"],
        "mappings": ['{"password=of staging"}'],
    }
    assert done["warnings"] == []


def test_a_server_of_another_wrapper_gets_no_user_mapping(lab: Lab) -> None:
    other = [each.replace("{extra}", "") for each in foreign("production", wrapper="other")]
    staging, done = lab.refreshed(other, STAGING_CRM)
    assert value(staging, OPTIONS["mappings"]) is None
    assert (
        "not re-applied: USER MAPPING public SERVER crm: the server of the backup has another foreign-data wrapper"
        in done["not_reapplied"]
    )


def test_a_mapping_whose_options_the_server_hides_is_listed(lab: Lab, fresh_database: Fresh) -> None:
    tables = [
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        f"alter server s owner to {lab.role}",
    ]
    mapping = "create user mapping for current_user server s options (password 'of staging')"
    old, new = fresh_database(lab.server, None, *tables, mapping), fresh_database(lab.server, None, *tables)
    run, version = RestoreContext.of(RunContext()), value(old, "select current_setting('server_version_num')::int")
    own = read_own_grants(run, lab.as_role(old), version)
    done = apply_own_grants(run, lab.as_role(new), own, without_mappings=())
    name = f"USER MAPPING {lab.server.params.user} SERVER s"
    assert done.lines() == [f"not re-applied: {name}: its options, if it has any, are visible to superusers only"]


def test_a_role_that_the_database_sets_for_its_sessions_does_not_refresh_it(lab: Lab, fresh_database: Fresh) -> None:
    role = f"read only {lab.role}"
    with lab.server.params.connect() as connection:
        connection.execute(f'create role "{role}"')
    try:
        staging = fresh_database(lab.server, None, "create table old (a int)")
        with staging.connect() as connection:
            connection.execute(f'alter database {staging.dbname} set role = "{role}"')
        lab.refresh(staging, ["create table fresh (a int)"])
        assert value(staging, "select current_user || ' of ' || to_regclass('fresh')") == f"{role} of fresh"
    finally:
        with lab.server.params.connect() as connection:
            connection.execute(f'drop role "{role}"')


def test_a_schema_public_of_another_owner_is_no_new_object(lab: Lab) -> None:
    _, done = lab.refreshed(["alter schema public owner to current_user", "create table fresh (a int)"], [])
    assert done["new_objects"] == ["TABLE public.fresh"]


def test_a_failure_after_the_swap_is_a_warning(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ConnectError("connection to server failed: FATAL: sorry, too many clients already")

    monkeypatch.setattr(kept_copies, "session", refused)
    staging, done = lab.refreshed(["create table fresh (a int)"], [])
    assert value(staging, "select to_regclass('fresh') is not null") is True
    assert done["kept"] == [done["replaced"]]
    assert f"refreshed {staging.dbname}, but dropped no earlier copy of it" in done["warnings"][-1]
    with lab.server.params.connect() as connection:
        connection.execute(sql.SQL("drop database {}").format(sql.Identifier(done["replaced"])))


FORBID = (
    "create function forbid() returns event_trigger language plpgsql "
    "as $$ begin raise exception 'no DDL here: %', tg_tag; end $$"
)


@pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end", "login"])
def test_event_triggers_of_production_do_not_disturb_the_refresh(lab: Lab, event: str) -> None:
    production = [
        "create table t (a int)",
        FORBID,
        f"create event trigger forbidden on {event} execute function forbid()",
        "comment on event trigger forbidden is 'no changes'",
        "alter event trigger forbidden disable",
        "create event trigger watched on sql_drop execute function forbid()",
    ]
    enable = "alter event trigger forbidden enable always"
    staging = lab.fresh(lab.server, None, "create table t (a int)", f"alter table t owner to {lab.role}")
    if event == "login":  # it would also refuse the dump, unless it is for the new database only
        condition = "begin if current_user !~ '^app_' and current_database() <> 'prod' then raise"
        production[1] = FORBID.replace("begin raise", condition).replace("; end $$", "; end if; end $$")
        done = lab.refresh(staging, [*production, enable], name="prod")
    else:
        done = lab.refresh(staging, [*production, enable])
    role = lab.as_role(staging)
    assert value(role, "select count(*) from t") == 0
    assert value(role, "select tableowner from pg_tables where tablename = 't'") == lab.role
    triggers = "select array_agg(evtname || ' ' || evtenabled::text order by evtname) from pg_event_trigger"
    assert value(role, triggers) == ["forbidden A", "watched O"]
    assert value(role, "select obj_description(oid) from pg_event_trigger where evtname = 'forbidden'") == "no changes"
    assert done["objects"] == 4
    assert done["not_reapplied"] == []


def test_the_owner_of_an_event_trigger_stays(lab: Lab) -> None:
    trigger = [FORBID, "create event trigger watched on sql_drop execute function forbid()"]
    other = f"super_{secrets.token_hex(4)}"
    with lab.server.params.connect() as connection:
        connection.execute(f"create role {other} superuser")
    try:
        owned = [*trigger, f"alter event trigger watched owner to {other}"]
        staging, done = lab.refreshed(
            trigger, [*owned, "create event trigger gone on sql_drop execute function forbid()"]
        )
        assert value(staging, "select evtowner::regrole::text from pg_event_trigger") == other
        assert done["not_reapplied"] == ["not re-applied: EVENT TRIGGER gone no longer exists"]
    finally:
        with staging.connect() as connection:
            connection.execute(f"drop owned by {other}")
        with lab.server.params.connect() as connection:
            connection.execute(f"drop role {other}")


def test_an_owner_that_cannot_be_set_stops_the_refresh(lab: Lab) -> None:
    # The connection's role owns the database, but is no member of the table's owner.
    other = f"other_{secrets.token_hex(4)}"
    with lab.server.params.connect() as connection:
        connection.execute(f"create role {other}")
    staging = lab.fresh(lab.server, None, "create table t (a int)", f"alter table t owner to {other}")
    with staging.connect() as connection:
        connection.execute(f"grant {other} to {lab.role} with inherit true, set false")
        name = sql.Identifier(staging.dbname)
        connection.execute(sql.SQL("alter database {} owner to {}").format(name, sql.Identifier(lab.role)))
    try:
        with pytest.raises(
            RestoreError, match=r"cannot re-apply an owner or grant of .*: TABLE t in schema public: .*role"
        ):
            lab.refresh(lab.as_role(staging), ["create table t (a int)", "create table new (a int)"])
        assert value(staging, "select to_regclass('new') is null") is True
    finally:
        with staging.connect() as connection:
            connection.execute("drop table t")
        with lab.server.params.connect() as connection:
            connection.execute(f"drop role {other}")


def test_objects_of_another_kind_do_not_stop_the_refresh(lab: Lab) -> None:
    old = [
        "create sequence one_seq",
        "create sequence two",
        "create view three as select 1",
        "create type four as (a int)",
    ]
    old += [f"alter {each.split()[1]} {each.split()[2]} owner to {{role}}" for each in old]
    new = [
        "create table one (seq serial)",
        "create table two (a int)",
        "create table three (a int)",
        "create table four ()",
    ]
    _, done = lab.refreshed([*new, "alter sequence one_seq_seq rename to one_seq"], old)
    assert [line.removeprefix("not re-applied: ") for line in done["not_reapplied"]] == [
        "TYPE four in schema public no longer exists",
        "VIEW three in schema public no longer exists",
        "SEQUENCE two in schema public no longer exists",
        'SEQUENCE one_seq in schema public: cannot change owner of sequence "one_seq"',
    ]


def test_materialized_views_over_foreign_tables_are_left_without_rows(lab: Lab) -> None:
    views = [
        "create view people as select * from person",
        "create materialized view mails as select mail from people with no data",
        "create materialized view counted as select count(*) from mails with no data",
        "create index on mails (mail)",
        "create table own (a int)",
        "create materialized view owned as select * from own",
        # They were filled: the wrapper of this test reads nothing.
        "update pg_class set relispopulated = true where relname in ('mails', 'counted')",
    ]
    staging, done = lab.refreshed(["set allow_system_table_mods = on", *PRODUCTION_CRM, *views], STAGING_CRM)
    populated = "select array_agg(matviewname::text) from pg_matviews where ispopulated"
    assert value(staging, populated) == ["owned"]
    text = "materialized view {} reads a foreign table, so it has no rows until somebody refreshes it"
    assert {text.format("public.mails"), text.format("public.counted")} <= set(done["warnings"])


@pytest.mark.parametrize("name", ["zz_before_99991231T235959Z", "{staging}_before_20200101T000000Z"])
def test_a_database_of_another_role_is_no_earlier_copy(lab: Lab, name: str) -> None:
    staging = lab.fresh(lab.server, None, "create table only_here (a int)")
    forged = sql.Identifier(name.format(staging=staging.dbname))
    comment = sql.Literal(f'airflow-pgbackup: kept {{"database": "{staging.dbname}"}}')
    with lab.as_role(lab.server.params).connect() as connection:
        connection.execute(sql.SQL("create database {}").format(forged))
        connection.execute(sql.SQL("comment on database {} is {}").format(forged, comment))
    try:
        done = lab.refresh(staging, [], keep=1)
        assert done["kept"] == [done["replaced"]]
        assert value(staging.with_database(done["replaced"]), "select count(*) from only_here") == 0
        assert lab.refresh(staging, [], keep=0)["kept"] == []
    finally:
        with lab.server.params.connect() as connection:
            # also shows that no refresh has dropped it
            connection.execute(sql.SQL("drop database {}").format(forged))


@pytest.mark.parametrize("name", ["zz_before_20200101T000000Z", "{staging}_before_99991231T235959Z"])
def test_a_database_with_another_name_or_a_future_time_is_no_earlier_copy(lab: Lab, name: str) -> None:
    staging = lab.fresh(lab.server)
    other = lab.fresh(lab.server, name.format(staging=staging.dbname))
    comment = sql.Literal(f'airflow-pgbackup: kept {{"database": "{staging.dbname}"}}')
    with lab.server.params.connect() as connection:
        connection.execute(sql.SQL("comment on database {} is {}").format(sql.Identifier(other.dbname), comment))
    assert lab.refresh(staging, [], keep=0)["kept"] == []
    assert value(other, "select 1") == 1
