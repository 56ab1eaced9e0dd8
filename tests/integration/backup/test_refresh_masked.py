"""refresh with masking rules: what the search for leaks sees and does not see, and which rules fit."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from contexts import in_context
from psycopg import sql
from restoring import value

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.masking.dictionaries import make_words
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.subset import Subset
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

KEY = MaskingKey(b"a key of the tests, long enough")
CUSTOMER = (
    "create table customer (id int primary key, email text)",
    "insert into customer select n, 'person' || n || '@corp.example' from generate_series(1, 200) n",
)
TICKET = (
    "create table ticket (id int, tenant text, body text)",
    "insert into ticket select n, 't1', 'write to person' || n || '@corp.example' from generate_series(1, 200) n",
)
RULES = "columns:\n  public.customer.id: keep\n  public.customer.email: {fake: email}\n"
TICKET_RULES = "  public.ticket.*: keep\n"


@dataclass
class Refresh:
    """Makes a backup of a new database with some tables, and refreshes an old copy from it."""

    server: PostgresServer
    repository: Repository
    fresh_database: Callable[..., ConnectionParams]
    staging: ConnectionParams

    def __call__(self, tables: tuple[str, ...], rules: str = "", *, dump: Any = None, **more: Any) -> dict[str, Any]:
        source = self.fresh_database(self.server, None, *tables)
        made = dump_database(
            connection=source, server="prod", repository=self.repository, options=DumpOptions(**dump or {})
        )
        reference = verify(reference=made, repository=self.repository, level="archive")
        arguments = {"target": self.staging, "keep": 0, **more}
        if rules:
            arguments |= {"rules": load_rules(rules), "masking_key": KEY}
        return refresh(reference=reference, repository=self.repository, **in_context(arguments))

    @property
    def is_as_it_was(self) -> bool:
        return bool(value(self.staging, "select to_regclass('the_old_copy') is not null"))


@pytest.fixture
def refreshed(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], repository: Repository
) -> Refresh:
    staging = fresh_database(server18, None, "create table the_old_copy (a int)")
    return Refresh(server18, repository, fresh_database, staging)


@pytest.fixture
def refresher(refreshed: Refresh) -> Iterator[ConnectionParams]:
    """The staging database by a role that owns it, and is no superuser."""
    name, server = f"refresher_{secrets.token_hex(4)}", refreshed.server.params
    with server.connect() as connection:
        connection.execute(f"create role {name} login createdb password 'secret'")
        database = sql.Identifier(refreshed.staging.dbname)
        connection.execute(sql.SQL("alter database {} owner to {}").format(database, sql.Identifier(name)))
    with refreshed.staging.connect() as connection:
        connection.execute(f"alter table the_old_copy owner to {name}")
        connection.execute(f"alter schema public owner to {name}")
    yield ConnectionParams({**refreshed.staging.keywords, "user": name}, password="secret")
    with server.connect() as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(database))
        connection.execute(f"drop role {name}")


POLICY = (
    "create policy of_tenant on ticket using (tenant = current_setting('app.tenant', true))",
    "alter table ticket enable row level security",
)
FORCED = "alter table ticket force row level security"


def test_policies_that_hide_rows_from_the_search_fail_it(refreshed: Refresh, refresher: ConnectionParams) -> None:
    tables = (*CUSTOMER, *TICKET, *POLICY, FORCED)
    with pytest.raises(PgBackupError) as refused:
        refreshed(tables, RULES + TICKET_RULES, target=refresher)
    message = str(refused.value)
    assert "policies hide rows of public.ticket from the search for unmasked values" in message
    assert f"ALTER ROLE {refresher.user} BYPASSRLS" in message
    assert refreshed.is_as_it_was


def test_policies_that_hide_nothing_from_the_search(refreshed: Refresh, refresher: ConnectionParams) -> None:
    with pytest.raises(PgBackupError, match=r"column public\.ticket\.body has 100 values of public\.customer\.email"):
        refreshed((*CUSTOMER, *TICKET, *POLICY), RULES + TICKET_RULES, target=refresher)
    assert refreshed.is_as_it_was


def test_a_check_never_passes_because_a_policy_hides_rows(refreshed: Refresh, refresher: ConnectionParams) -> None:
    with pytest.raises(PgBackupError, match="query would be affected by row-level security policy"):
        refreshed((*TICKET, *POLICY, FORCED), target=refresher, checks=["select count(*) = 0 from ticket"])
    assert refreshed.is_as_it_was


def test_rows_that_are_insert_statements_are_not_said_to_be_searched_for(refreshed: Refresh) -> None:
    """Values are sampled from COPY data only. The rows are masked all the same."""
    tables, rules, dump = (*CUSTOMER, *TICKET), RULES + TICKET_RULES, {"inserts": True}
    with pytest.raises(PgBackupError) as refused:
        refreshed(tables, rules, dump=dump)
    assert "no values of public.customer can be searched for, as the backup has their rows as INSERT" in str(
        refused.value
    )
    assert "samples: 0" in str(refused.value)
    assert refreshed.is_as_it_was
    log: list[str] = []
    done = refreshed(tables, rules + "leak_check: {samples: 0}\n", dump=dump, log=log.append)
    assert done["searched_values"] == 0
    assert not any("none found" in line for line in log)
    assert "the copy was not searched for unmasked values: leak_check has samples: 0" in log
    assert value(refreshed.staging, "select count(*) from customer where email like 'person%'") == 0


@pytest.mark.parametrize("rule", ["{fake: email}", "{generalize: {prefix: 1}}"])
def test_a_search_for_nothing_is_said(refreshed: Refresh, rule: str) -> None:
    tables = ("create table short (code text)", "insert into short values ('abc')")
    log: list[str] = []
    done = refreshed(tables, f"columns:\n  public.short.code: {rule}\n", log=log.append)
    assert done["searched_values"] == 0
    assert not any("none found" in line for line in log)
    warning = "the copy was not searched for unmasked values: the masked columns have none to search for"
    assert warning in done["warnings"]


CITIES = (
    "create table customer (id int primary key, city text)",
    "insert into customer select n, 'Cityname' || (n % 150) from generate_series(1, 600) n",
    "create table city (id int, name text, label text)",
    "insert into city select n, 'Cityname' || n, 'in Cityname' || n from generate_series(0, 149) n",
    "create index on city (lower(name))",
    "create statistics of_cities (mcv) on name, id from city",
    "create statistics of_words on (upper(name)) from city",
)
CITY_RULES = (
    "columns:\n  public.customer.id: keep\n  public.customer.city: {fake: city}\n  public.city.*: keep\n"
    "leak_check: {may_contain: [public.city.name%s]}\n"
)


def test_the_statistics_of_a_column_may_contain_what_the_column_may(refreshed: Refresh) -> None:
    done = refreshed(CITIES, CITY_RULES % ", public.city.label")
    assert done["searched_values"] == 100
    with pytest.raises(PgBackupError) as refused:
        refreshed(CITIES, CITY_RULES % "")
    places = {line.split(" has ")[0].split(": ")[-1] for line in str(refused.value).splitlines()}
    assert {"column public.city.label", "statistics of public.city.label"} == places


def test_wildcards_for_columns_of_tables_that_are_left_out(refreshed: Refresh) -> None:
    tables = (*CUSTOMER, "create table access (id int, ip text)", "insert into access values (1, '192.0.2.7')")
    rules = RULES + "  '*.*.id': keep\n  '*.*.ip': {fake: ip}\n"
    done = refreshed(tables, rules, subset=Subset(tables=("public.customer",)))
    assert done["masked_columns"] == 1
    with pytest.raises(PgBackupError, match=r"'?\*\.\*\.pi'?: no such column"):
        refreshed(tables, rules.replace(".ip'", ".pi'").replace(RULES, RULES + "  public.access.ip: keep\n"))
    with pytest.raises(PgBackupError, match=r"public\.customer\.emial: no such column"):
        refreshed(tables, rules + "  public.customer.emial: null\n", subset=Subset(tables=("public.customer",)))


def test_constants_of_definitions_are_reported_with_a_way_out(refreshed: Refresh) -> None:
    tables = (
        "create type mood as enum ('excited', 'depressed')",
        "create table person (mood mood, gender text check (gender in ('female', 'diverse')))",
        "insert into person values ('depressed', 'female')",
    )
    rules = "columns:\n  public.person.mood: null\n  public.person.gender: {fixed: diverse}\n"
    with pytest.raises(PgBackupError) as refused:
        refreshed(tables, rules)
    assert "person_gender_check has 1 value of public.person.gender; change it in the source, or name" in str(
        refused.value
    )
    assert "mood" not in str(refused.value)
    assert refreshed(tables, rules + "leak_check: {may_contain: [public.person.gender]}\n")["masked_columns"] == 2


DOCUMENTS = (
    "create table account (profile jsonb)",
    "create index on account ((profile ->> 'preferred_language'))",
    "insert into account select jsonb_build_object('email', 'person' || n || '@corp.example', 'phone', 4944100000 + n, "
    "'preferred_language', 'de', 'zone', 'Europe/Berlin') from generate_series(1, 50) n",
)


@pytest.mark.parametrize("rule", ["null", "{sql: \"profile - 'email' - 'phone'\"}"])
def test_strings_of_documents_are_searched_for_and_keys_are_not(refreshed: Refresh, rule: str) -> None:
    rules = f"columns:\n  public.account.profile: {rule}\n"
    assert refreshed(DOCUMENTS, rules)["searched_values"] == 100
    calls = ("create table call (line text)", "insert into call values ('4944100007'), ('of person7@corp.example')")
    with pytest.raises(PgBackupError, match=r"column public\.call\.line has 2 values of public\.account\.profile"):
        refreshed((*DOCUMENTS, *calls), rules + "leak_check: {samples: 101}\n")


def test_a_fake_that_is_the_name_of_somebody_else_is_no_leak(refreshed: Refresh) -> None:
    words = make_words("first_name", ["en_US"], 1, "UTF8"), make_words("last_name", ["en_US"], 1, "UTF8")
    first, last = (
        ", ".join(f"'{word.replace(chr(39), chr(39) * 2)}'" for word in sorted(set(each))[:120]) for each in words
    )
    tables = (
        "create table customer (name text)",
        f"insert into customer select f || ' ' || l from unnest(array[{first}]) f, unnest(array[{last}]) l "
        "where l not like '% %' union all select 'Qxzv Mustermann' || n from generate_series(1, 9) n",
    )
    done = refreshed(tables, "columns:\n  public.customer.name: {fake: name}\n")
    assert done["searched_values"] >= 9


def test_the_prefix_of_a_text_is_not_the_text(refreshed: Refresh) -> None:
    tables = (
        "create table person (name text, note text)",
        "insert into person values ('Erika Mustermann', 'of erika mustermann')",
    )
    rules = "columns:\n  public.person.name: {generalize: {prefix: 5}}\n  public.person.note: keep\n"
    with pytest.raises(PgBackupError, match=r"column public\.person\.note has 1 value of public\.person\.name"):
        refreshed(tables, rules)


def test_partitions_without_their_table_have_its_rules(refreshed: Refresh) -> None:
    tables = (
        "create schema parts",
        "create table customer (email text, y int, z int) partition by list (y)",
        "create table parts.of_2024 partition of customer for values in (2024) partition by list (z)",
        "create table parts.of_2024_1 partition of parts.of_2024 for values in (1)",
        "create table other (id int)",
        "insert into customer select 'person' || n || '@corp.example', 2024, 1 from generate_series(1, 200) n",
    )
    rules = "columns:\n  public.customer.*: keep\n  public.customer.email: {fake: email}\n  public.other.id: keep\n"
    done = refreshed(tables, rules, subset=Subset(schemas=("parts",)))
    assert (done["masked_columns"], done["searched_values"]) == (1, 100)
    query = "select count(*) filter (where email like '%@example.com') from parts.of_2024"
    assert value(refreshed.staging, query) == 200
    done = refreshed(tables, rules, subset=Subset(tables=("public.other",)))
    assert "the rules mask no column of the restored tables" in done["warnings"]


def test_comments_that_are_restored_after_the_search_are_left_out(refreshed: Refresh) -> None:
    tables = (
        *CUSTOMER,
        "create function f() returns event_trigger language plpgsql as 'begin end'",
        "create event trigger e on ddl_command_start execute function f()",
        "comment on event trigger e is 'asked by person7@corp.example'",
    )
    refreshed(tables, RULES)
    query = "select evtname || coalesce(obj_description(oid), ' without') from pg_event_trigger"
    assert value(refreshed.staging, query) == "e without"


@pytest.mark.every_value
@pytest.mark.parametrize("dump", [{}, {"inserts": True}, {"format": "directory"}])
@pytest.mark.parametrize("rule", ["(email::int)::text", "email::regtype::text", "public.reveal(email)"])
def test_a_rule_that_fails_on_a_row_does_not_show_its_value(
    refreshed: Refresh, rule: str, dump: dict[str, Any]
) -> None:
    body = "begin raise warning '%', $1; return 1/0; end"
    reveal = f"create function reveal(text) returns text language plpgsql as $${body}$$"
    log: list[str] = []
    rules = f"{RULES.replace('fake: email', f'sql: {rule!r}')}leak_check: {{samples: 0}}\n"
    with pytest.raises(PgBackupError) as failed:
        refreshed((*CUSTOMER, reveal), rules, dump=dump, log=log.append)
    shown = [str(failed.value), *getattr(failed.value, "stderr", []), *log]
    assert "ERROR" in "".join(shown)
    assert [line for line in shown if "corp.example" in line or "person1" in line] == []
    assert refreshed.is_as_it_was


def test_a_check_constraint_that_masked_rows_violate_names_the_rule(refreshed: Refresh) -> None:
    """Constraints of a table's definition hold while rows are loaded."""
    tables = (*CUSTOMER, "alter table customer add constraint of_corp check (email like '%corp.example')")
    with pytest.raises(PgBackupError, match=r"change the rules of public\.customer\.email \(fake email\)"):
        refreshed(tables, RULES)
    assert refreshed.is_as_it_was
