"""Databases with one unusual property each, and their backups: the table in ``docs/explanation/awkward.md``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Awkward:
    """:param what: for people, one line.
    :param statements: make it.
    :param verdict: of a rehearsal: ``pass`` (perhaps with one job only, and a note), ``fail`` or ``notproven``.
    :param plain: of a rehearsal of a plain dump, where it differs.
    :param says: what the report says, a part of it.
    :param found: the codes that ``check(scan_rows=True)`` finds.
    :param restores: whether ``restore`` brings it back.
    :param oldest: the oldest major version that has such a thing.
    :param newest: the newest that lets one make it.
    :param extension: that the server must have.
    :param waits: seconds that must pass between dump and restore.
    :param zone: the time zone that the database sets.
    :param rewritten: the server writes its definitions in another form after a restore.
    """

    what: str
    statements: tuple[str, ...]
    verdict: str = "pass"
    plain: str = ""
    says: str = ""
    found: tuple[str, ...] = ()
    restores: bool = True
    oldest: int = 15
    newest: int = 99
    extension: str = ""
    waits: float = 0.0
    zone: str = ""
    rewritten: bool = False

    def verdict_of(self, form: str) -> str:
        return self.plain or self.verdict if form == "plain" else self.verdict


READS_A = "create function in_a(int) returns bool language sql as 'select exists (select from public.a where x = $1)'"

KINDS = {
    "nothing awkward": Awkward(
        "nothing awkward",
        ("create table t (a int primary key, b text)", "insert into t select n, 'x' from generate_series(1, 100) n"),
    ),
    "check that reads another table": Awkward(
        "a CHECK constraint whose function reads a table that is restored earlier",
        (
            "create table a (x int primary key)",
            "insert into a values (1)",
            READS_A,
            "create table y (x int check (in_a(x)), pad text)",
            "create table z (x int check (in_a(x)), pad text)",
            "insert into y select 1, md5(n::text) from generate_series(1, 1000) n",
            "insert into z select * from y",
        ),
        found=("check_reads_tables",),
    ),
    "check that reads a later table": Awkward(
        "a CHECK constraint whose function reads a table that is restored later",
        (
            "create table b (x int primary key)",
            "insert into b values (1)",
            READS_A.replace("a(", "b(").replace("public.a", "public.b"),
            "create table a (x int check (in_b(x)))",
            "insert into a values (1)",
        ),
        verdict="fail",
        plain="notproven",  # it does not name the locale, by which text could compare
        says="depends on other tables or the time",
        restores=False,
        found=("check_reads_tables",),
    ),
    "not null not valid": Awkward(
        "NOT NULL ... NOT VALID on a partitioned table, with nulls in a partition: several jobs often deadlock",
        (
            "create table p (a int) partition by list (a)",
            "create table p1 partition of p default",
            "insert into p values (null), (1)",
            "alter table p add constraint nn not null a not valid",
        ),
        oldest=18,
        found=("not_null_not_valid",),
    ),
    "index on a function": Awkward(
        "an index on a function that depends on search_path",
        (
            "create function lower2(text) returns text immutable language sql as 'select lower($1)'",
            "create function low(text) returns text immutable language plpgsql as 'begin return lower2($1); end'",
            "create table t (a text)",
            "insert into t values ('A')",
            "create index on t (low(a))",
        ),
        verdict="fail",
        says="function lower2(text) does not exist",
        restores=False,
        newest=16,
        found=("function_search_path",),
    ),
    "generated column": Awkward(
        "a generated column whose function depends on search_path",
        (
            "create function inc(int) returns int immutable language plpgsql as 'begin return $1 + 1; end'",
            "create function inc2(int) returns int immutable language plpgsql as 'begin return inc($1); end'",
            "create table t (a int, b int generated always as (inc2(a)) stored)",
            "insert into t values (1)",
        ),
        verdict="fail",
        says="depends on search_path",
        restores=False,
        found=("function_search_path",),
    ),
    "check on the clock": Awkward(
        "a CHECK constraint that depends on the time",
        (
            "create table t (a timestamptz check (a > clock_timestamp() - interval '2 seconds'))",
            "insert into t values (clock_timestamp())",
        ),
        verdict="fail",
        plain="notproven",  # it does not name the locale, by which text could compare
        says="depends on other tables or the time",
        restores=False,
        waits=2.5,
        found=("check_changes",),
    ),
    "orphans": Awkward(
        "rows that violate a foreign key, inserted with session_replication_role = replica",
        (
            "create table p (a int primary key)",
            "create table c (a int references p)",
            "set session_replication_role = replica",
            "insert into c values (1)",
        ),
        verdict="fail",
        says="violate its own constraint",
        restores=False,
        found=("violated_foreign_key",),
    ),
    "duplicates": Awkward(
        "duplicates in a corrupt unique index",
        (
            "create table t (a int)",
            "create unique index u on t (a)",
            "insert into t values (1)",
            "set allow_system_table_mods = on",
            "update pg_index set indisunique = false where indexrelid = 'u'::regclass",
            "insert into t values (1)",
            "update pg_index set indisunique = true where indexrelid = 'u'::regclass",
        ),
        verdict="fail",
        says="amcheck",
        restores=False,
        found=("violated_unique",),
    ),
    "lists of values": Awkward(
        "conditions and sub-SELECTs that PostgreSQL writes in another form after a restore",
        (
            "create domain d as varchar check (value in ('a', 'b'))",
            "create table t (a varchar check (a not in ('c', 'd')), b int, c int, e d, check (b in (c, c + 1, 3)))",
            "insert into t values ('a', 1, 1, 'b')",
            "create index on t (b) where a in ('a', 'b')",
            "create statistics s on (a in ('a', 'b')), b from t",
            "create view v as select b from t where exists (select 'x') and a in (select 'a' union select null)",
            "create materialized view m as select b from t where (a, b) in (('a', 1), ('b', 2), ('c', 3))",
            "create policy p on t using (exists (select null from t) and a in ('a', 'b'))",
            "create rule r as on delete to v do instead delete from t where exists (select 'x') and a in ('a', 'b')",
            "create function f() returns text begin atomic select -1; select 'x'; end",
            "create function g(text[] default array['a', 'b']::varchar[]) returns int language sql as 'select 1'",
            "create function tf() returns trigger language plpgsql as 'begin return new; end'",
            "create trigger w before insert on t for each row when (new.a in ('a', 'b')) execute function tf()",
        ),
        rewritten=True,
    ),
    "not valid": Awkward(
        "a NOT VALID constraint that some rows violate",
        (
            "create table t (a int)",
            "insert into t values (-1)",
            "alter table t add constraint positive check (a > 0) not valid",
        ),
        found=("not_valid",),
    ),
    "regclass of an index": Awkward(
        "a regclass column with the name of an index, which is restored after the rows",
        ("create table t (a int primary key, r regclass)", "insert into t values (1, 't_pkey')"),
        verdict="fail",
        says="does not exist",
        restores=False,
        found=("reg_columns",),
    ),
    "regrole": Awkward(
        "a regrole column: the role occurs in the rows only",
        ("create table t (r regrole)", "insert into t select current_user::regrole"),
        found=("role_columns",),
    ),
    "extension that is preloaded": Awkward(
        "a materialized view over pg_stat_statements, which must be preloaded",
        (
            "create extension pg_stat_statements",
            "create materialized view m as select count(*) from pg_stat_statements",
        ),
        extension="pg_stat_statements",
        found=("superuser_only",),
    ),
    "icu collation": Awkward(
        "a column with an ICU collation",
        (
            "create collation de (provider = icu, locale = 'de-DE')",
            "create table t (a text collate de)",
            "insert into t values ('a')",
        ),
        extension="icu",
    ),
    "foreign server": Awkward(
        "a materialized view over a foreign server that cannot be reached",
        (
            "create extension postgres_fdw",
            "create server s foreign data wrapper postgres_fdw options (host '127.0.0.1', port '1')",
            "create user mapping for current_user server s options (user 'x', password 'y', password_required 'false')",
            "create foreign table f (a int) server s",
            "create materialized view m as select * from f with no data",
            "set allow_system_table_mods = on",
            "update pg_class set relispopulated = true where relname = 'm'",
        ),
        verdict="notproven",
        says="could not connect to server",
        restores=False,
        extension="postgres_fdw",
        found=(
            "foreign_tables",
            "foreign_views",
            "superuser_only",
        ),
    ),
    "many large objects": Awkward(
        "15,000 large objects",
        ("select count(lo_from_bytea(0, 'x')) from generate_series(1, 15000)",),
        found=("restore_locks",),
    ),
    "function that raises": Awkward(
        "a materialized view whose function now raises an error",
        (
            "create table raises (yes bool)",
            "insert into raises values (false)",
            "create function f() returns int language plpgsql as"
            " $$ begin if (select yes from public.raises) then raise exception 'not today'; end if; return 1; end $$",
            "create materialized view m as select f()",
            "update raises set yes = true",
        ),
        verdict="fail",
        says="not today",
        restores=False,
    ),
    "no space": Awkward(
        "an index that cannot be built because the disk is full",
        (
            "create function full_disk(int) returns int immutable language plpgsql as $$ begin"
            " if current_setting('application_name') <> 'makes it' then"
            " raise exception 'could not extend file' using errcode = 'disk_full'; end if; return $1; end $$",
            "create table t (a int)",
            "insert into t values (1)",
            "set application_name = 'makes it'",
            "create index on t (full_disk(a))",
        ),
        verdict="notproven",
        says="could not extend file",
        restores=False,
    ),
    "no schema public": Awkward(
        "no schema public",
        ("drop schema public", "create schema app", "create table app.t (a int)"),
    ),
    "read-only by default": Awkward(
        "default_transaction_read_only, a short statement_timeout and a search_path set for the database",
        (
            "create table t (a int)",
            "insert into t values (1)",
            "do $$ declare setting text; begin foreach setting in array"
            " array['default_transaction_read_only = on', 'statement_timeout = 20', 'search_path = nowhere'] loop"
            " execute format('alter database %I set ', current_database()) || setting; end loop; end $$",
        ),
        found=("timeouts",),
    ),
    "days of a time zone": Awkward(
        "a CHECK constraint, a generated column and a unique index that depend on the time zone of the database",
        (
            "create function to_day(timestamptz) returns date immutable language sql return $1::date",
            "create table t (at timestamptz check (at = date_trunc('day', at)),"
            " day date generated always as (to_day(at)) stored check (day = '2024-01-01'))",
            "insert into t values ('2024-01-01 00:00+01')",
            "create table u (at timestamptz)",
            "create unique index on u (to_day(at))",
            "insert into u values ('2024-01-01 00:30+01'), ('2023-12-31 12:00+01')",
        ),
        zone="Europe/Berlin",
    ),
    "event trigger": Awkward(
        "an event trigger and a publication for all tables, which only a superuser can create",
        (
            "create function no() returns event_trigger language plpgsql as 'begin end'",
            "create event trigger watching on ddl_command_end execute function no()",
            "create table t (a int)",
            "create publication everything for all tables",
        ),
        found=(
            "event_triggers",
            "publications",
        ),
    ),
    "odd names": Awkward(
        "names with quotes, line breaks and another case",
        (
            'create schema "S ""q"" \\ x"',
            'create table "S ""q"" \\ x"."two\nlines" ("Größe" int, "a;b--c" text)',
            'insert into "S ""q"" \\ x"."two\nlines" values (1, E\'\\\\.\\n\\\\.\')',
        ),
    ),
    "large row": Awkward(
        "a row of 64 MiB",
        ("create table t (a text)", "insert into t select repeat('0123456789abcdef', 4 * 1024 * 1024)"),
    ),
}
