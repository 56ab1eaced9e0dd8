"""refresh: staging gets the rows of a verified backup and keeps what is its own; the old copy serves until the swap."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from contexts import in_context
from psycopg import sql
from restoring import value

from airflow_pgbackup.backup.databases.temporary_database import PREFIX
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import (
    Canceled,
    ConfigurationError,
    ConnectError,
    PgBackupError,
    RestoreError,
    ToolError,
    VerificationFailed,
)
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository

Fresh = Callable[..., ConnectionParams]

PRODUCTION = (
    "create table film (film_id serial primary key, title text not null unique, price numeric)",
    "insert into film (title, price) select 'film ' || n, n from generate_series(1, 200) n",
    "create table rental (rental_id int primary key, film_id int not null references film)",
    "insert into rental select n, n from generate_series(1, 100) n",
    "create table brand_new (a int)",
    'create table "SUBSCRIPTION plans" (a int)',
    'create table "LARGE OBJECTS read" (a int)',
    "create materialized view expensive as select * from film where price > 150",
    "create function discount(numeric) returns numeric language sql as 'select $1 * 0.9'",
    "select lo_from_bytea(4711, 'a large object')",
    "grant select on film to public",
)
STAGING = (
    "create table film (film_id serial primary key, title text, price numeric)",
    "insert into film (title) values ('an old film')",
    "create table rental (rental_id int)",
    "create table only_here (a int)",
    "create materialized view expensive as select * from film",
    "create function discount(numeric) returns numeric language sql as 'select $1'",
)


@dataclass
class Setting:
    """Production with a verified backup, and a staging database with roles and grants of its own.

    :ivar owner, reader: roles that only staging knows; `reader` has the password ``secret``.
    """

    server: PostgresServer
    repository: Repository
    reference: dict[str, object]
    staging: ConnectionParams
    owner: str
    reader: str

    def refresh(self, **more: Any) -> dict[str, Any]:
        return refresh(
            **{"reference": self.reference, "repository": self.repository, "target": self.staging, **in_context(more)}
        )

    def databases(self) -> list[str]:
        """Staging and its earlier copies."""
        with self.server.params.connect() as connection:
            query = "select datname from pg_database where starts_with(datname, %s) or starts_with(datname, %s)"
            return sorted(name for (name,) in connection.execute(query, [self.staging.dbname, PREFIX]).fetchall())

    def as_reader(self, database: str) -> ConnectionParams:
        keywords = {**self.staging.keywords, "user": self.reader, "dbname": database}
        return ConnectionParams(keywords, password="secret")

    def is_as_it_was(self) -> bool:
        return (
            self.databases() == [self.staging.dbname] and value(self.staging, "select title from film") == "an old film"
        )


def backup_of(source: ConnectionParams, repository: Repository, level: str | None = "archive", **options: Any) -> Any:
    made = dump_database(connection=source, server="prod", repository=repository, options=DumpOptions(**options))
    return verify(reference=made, repository=repository, level=level) if level else made


@pytest.fixture(scope="module")
def production(server18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Any]:
    """A repository with a verified backup of production."""
    repository = open_repository(f"file://{tmp_path_factory.mktemp('production') / 'repository'}")
    repository.init()
    name = f"production_{secrets.token_hex(4)}"
    with server18.params.connect() as connection:
        connection.execute(f"create database {name} template template0")
    source = server18.params.with_database(name)
    with source.connect() as connection:
        for statement in PRODUCTION:
            connection.execute(statement)
    reference = backup_of(source, repository)
    with server18.params.connect() as connection:
        connection.execute(f"drop database {name} with (force)")
    return repository, reference


@pytest.fixture
def setting(server18: PostgresServer, fresh_database: Fresh, production: tuple[Repository, Any]) -> Iterator[Setting]:
    owner, reader = (f"{word}_{secrets.token_hex(4)}" for word in ("owner", "reader"))
    repository, reference = production
    with server18.params.connect() as connection:
        connection.execute(f"create role {owner}")
        connection.execute(f"create role {reader} login password 'secret'")
    staging = fresh_database(
        server18,
        None,
        *STAGING,
        f"alter table film owner to {owner}",
        f"alter function discount(numeric) owner to {owner}",
        f"grant select on film, only_here, expensive to {reader}",
        f"grant update (price) on film to {reader}",
        "revoke execute on function discount(numeric) from public",
        f"alter default privileges for role {owner} grant select on tables to {reader}",
    )
    name = sql.Identifier(staging.dbname)
    with server18.params.connect() as connection:
        for statement in (
            f"alter database {{}} owner to {owner}",
            "alter database {} set work_mem = '7MB'",
            f"alter role {reader} in database {{}} set statement_timeout = '33s'",
            "revoke connect on database {} from public",
            f"grant connect on database {{}} to {reader} with grant option",
            f"set session authorization {reader}",
            "grant connect on database {} to pg_monitor",
            "reset session authorization",
            "alter database {} connection limit 17",
            "comment on database {} is 'the staging of crm'",
        ):
            connection.execute(sql.SQL(statement).format(name))
    made = Setting(server18, repository, reference, staging, owner, reader)
    yield made
    with server18.params.connect() as connection:
        for database in made.databases():
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))
        connection.execute(f"drop role {owner}, {reader}")


OWN = {
    "owner of the database": "select datdba::regrole::text from pg_database where datname = current_database()",
    "settings": "select array_agg(setconfig::text order by setrole) from pg_db_role_setting s "
    "join pg_database d on d.oid = setdatabase where datname = current_database()",
    "privileges": "select array_agg(distinct (grantor, grantee, privilege_type)::text order by "
    "(grantor, grantee, privilege_type)::text) from pg_database, aclexplode(datacl) "
    "where datname = current_database()",
    "limit": "select datconnlimit from pg_database where datname = current_database()",
    "admits": "select datallowconn from pg_database where datname = current_database()",
    "comment": "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()",
    "owner of film": "select relowner::regrole::text from pg_class where relname = 'film'",
    "owner of its sequence": "select relowner::regrole::text from pg_class where relname = 'film_film_id_seq'",
    "owner of discount": "select proowner::regrole::text from pg_proc where proname = 'discount'",
    "privileges of discount": "select proacl::text from pg_proc where proname = 'discount'",
    "privileges of film": "select relacl::text from pg_class where relname = 'film'",
    "privileges of the view": "select relacl::text from pg_class where relname = 'expensive'",
    "privileges of a column": "select attacl::text from pg_attribute where attname = 'price' "
    "and attrelid = 'public.film'::regclass",
    "default privileges": "select defaclacl::text from pg_default_acl",
}


def test_staging_keeps_what_is_its_own(setting: Setting) -> None:
    before = {name: value(setting.staging, query) for name, query in OWN.items()}
    done = setting.refresh()
    assert {name: value(setting.staging, query) for name, query in OWN.items()} == before
    assert value(setting.staging, "select count(*) from film") == 200
    assert value(setting.staging, "select count(*) from expensive") == 50
    assert done["rows"] == 300
    # Those whom staging admits come in, with their own passwords.
    reader = setting.as_reader(setting.staging.dbname)
    assert value(reader, "select count(*) from film") == 200
    assert value(reader, "show statement_timeout") == "33s"


def test_what_could_not_be_reapplied_is_said(setting: Setting) -> None:
    done = setting.refresh()
    assert done["not_reapplied"] == ["not re-applied: TABLE only_here in schema public no longer exists"]
    assert "TABLE public.brand_new" in done["new_objects"]
    assert any("that" in line and "did not have" in line for line in done["warnings"])
    # A grant of the backup is not restored: nobody may read what only production gave.
    assert value(setting.staging, "select relacl from pg_class where relname = 'brand_new'") is None


def test_neither_statistics_nor_secrets_of_production_come_along(setting: Setting, fresh_database: Fresh) -> None:
    source = fresh_database(
        setting.server,
        None,
        "create table t as select 'rare value ' || n as a from generate_series(1, 1000) n",
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        "create user mapping for public server s options (password 'of production')",
        "create subscription sub connection 'host=production' publication p with (connect = false)",
        "analyze",
    )
    try:
        reference = backup_of(source, setting.repository, statistics=True)
        lines: list[str] = []
        setting.refresh(reference=reference, log=lines.append)
    finally:
        with source.connect() as connection:
            connection.execute("alter subscription sub set (slot_name = none)")
            connection.execute("drop subscription sub")
    assert value(setting.staging, "select count(*) from pg_foreign_server") == 1
    assert value(setting.staging, "select count(*) from pg_user_mapping") == 0
    assert (
        value(
            setting.staging,
            "select count(*) from pg_subscription s join pg_database d on d.oid = subdbid "
            "where datname = current_database()",
        )
        == 0
    )
    assert "left out: planner statistics, subscriptions, user mappings" in lines
    assert value(setting.staging, "select count(*) from pg_stats where tablename = 't'") == 1  # ours, by ANALYZE


def test_only_a_verified_backup_is_used(setting: Setting, fresh_database: Fresh) -> None:
    source = fresh_database(setting.server, None, "create table t (a int)")
    unverified = backup_of(source, setting.repository, level=None)
    # What the reference says decides nothing.
    with pytest.raises(VerificationFailed, match=r"is not verified yet.*Verify it at level archive"):
        setting.refresh(reference={**unverified, "verified": "restore"})
    with pytest.raises(VerificationFailed, match="and restore is required"):
        setting.refresh(minimum_level="restore")
    assert setting.is_as_it_was()


def test_a_plain_script_is_refused(setting: Setting, fresh_database: Fresh) -> None:
    source = fresh_database(setting.server, None, "create table t (a int)")
    with pytest.raises(ConfigurationError, match="plain script, which cannot be restored by sections"):
        setting.refresh(reference=backup_of(source, setting.repository, format="plain"))


def test_the_target_must_exist(setting: Setting) -> None:
    with pytest.raises(ConfigurationError, match=r'database "nowhere" does not exist.*CREATE DATABASE "nowhere" OWNER'):
        setting.refresh(target=setting.staging.with_database("nowhere"))
    with pytest.raises(ConfigurationError, match='"postgres" is never replaced'):
        setting.refresh(target=setting.staging.with_database("postgres"))


def test_a_dry_run_changes_nothing(setting: Setting) -> None:
    done = setting.refresh(dry_run=True, jobs=2, target=replace(setting.staging, renew_every=600.0))
    assert setting.is_as_it_was()
    assert any("one job instead of 2" in line and "with a token" in line for line in done["warnings"])
    plan = "\n".join(done["plan"])
    assert f"{setting.staging.dbname}, which stays in use until the swap" in plan
    assert "the rows of 5 tables" in plan
    assert "2 settings" in plan


@pytest.mark.parametrize("format", ["directory", "tar"])
def test_other_formats(setting: Setting, fresh_database: Fresh, format: str) -> None:
    source = fresh_database(setting.server, None, *PRODUCTION)
    jobs = 2 if format == "directory" else None
    done = setting.refresh(reference=backup_of(source, setting.repository, format=format), jobs=jobs, keep=0)
    assert done["rows"] == 300
    assert value(setting.staging, "select count(*) from expensive") == 50
    assert value(setting.staging, "select convert_from(lo_get(4711), 'UTF8')") == "a large object"
    assert setting.databases() == [setting.staging.dbname]


def temporary(setting: Setting) -> list[str]:
    return [name for name in setting.databases() if name.startswith(PREFIX)]


def test_the_old_copy_serves_and_nobody_enters_the_new_one_until_the_swap(setting: Setting) -> None:
    refused = set()
    with setting.as_reader(setting.staging.dbname).connect() as reader:

        def log(line: str) -> None:
            if line.startswith(("renamed ", "refreshed ")):
                return
            assert reader.execute("select title from film").fetchall() == [("an old film",)]
            for name in temporary(setting):
                with pytest.raises(ConnectError, match=r"permission denied for database|not currently accepting"):
                    setting.as_reader(name).connect()
                refused.add(line)

        setting.refresh(log=log)
        assert len(refused) >= 5
        with pytest.raises(psycopg.errors.AdminShutdown):
            reader.execute("select 1")
    with setting.as_reader(setting.staging.dbname).connect() as reader:
        assert reader.execute("select count(*) from film").fetchone() == (200,)


def test_a_backup_that_does_not_restore_leaves_the_old_copy(setting: Setting, fresh_database: Fresh) -> None:
    source = fresh_database(
        setting.server,
        None,
        "create function only_in_production(int) returns int immutable language plpgsql as $$ begin "
        "if starts_with(current_database(), 'pgbackup_tmp') then raise 'not here'; end if; return $1; end $$",
        "create table t as select 1 as a",
        "create index on t (only_in_production(a))",
    )
    with pytest.raises(ToolError, match=f'not here.*database "{setting.staging.dbname}" was not changed'):
        setting.refresh(reference=backup_of(source, setting.repository))
    assert setting.is_as_it_was()


def test_a_canceled_refresh_leaves_the_old_copy(setting: Setting) -> None:
    cancel = Cancel()

    def log(line: str) -> None:
        if line.startswith("analyzed "):
            cancel.set()

    with pytest.raises(Canceled, match="was not changed"):
        setting.refresh(log=log, cancel=cancel)
    assert setting.is_as_it_was()


def test_a_second_refresh_is_refused_while_one_runs(setting: Setting) -> None:
    refused = []

    def log(line: str) -> None:
        if line.startswith("created database "):
            with pytest.raises(RestoreError, match=r"another refresh of database .* is running") as second:
                setting.refresh()
            refused.append(second.value.retry)

    setting.refresh(log=log, keep=0)
    assert refused == ["later"]
    assert setting.databases() == [setting.staging.dbname]


def test_earlier_copies(setting: Setting) -> None:
    name = setting.staging.dbname
    first = setting.refresh(keep=2)
    assert first["kept"] == [first["replaced"]]
    assert first["replaced"].startswith(f"{name}_before_2")
    assert value(setting.staging.with_database(first["replaced"]), "select title from film") == "an old film"
    with setting.server.params.connect() as connection:
        # A name like ours is not enough.
        connection.execute(f"create database {name}_before_20200101t000000z")
        connection.execute(f'create database "{name}_before_20200101T000000Z"')
    second = setting.refresh(keep=2)
    third = setting.refresh(keep=2)
    assert third["kept"] == [third["replaced"], second["replaced"]]
    assert first["replaced"] not in setting.databases()
    last = setting.refresh(keep=0)
    assert (last["replaced"], last["kept"]) == (None, [])
    assert setting.databases() == [name, f"{name}_before_20200101T000000Z", f"{name}_before_20200101t000000z"]
    assert value(setting.staging, OWN["comment"]) == "the staging of crm"


def test_an_earlier_copy_takes_its_place_again(setting: Setting) -> None:
    """As the documentation says: two renames. The next refresh works as ever."""
    name = setting.staging.dbname
    kept = setting.refresh()["replaced"]
    with setting.server.params.connect() as connection:
        connection.execute(f"drop database {name} with (force)")
        connection.execute(f'alter database "{kept}" rename to {name}')
    assert value(setting.staging, "select title from film") == "an old film"
    setting.refresh(keep=0)
    assert value(setting.staging, OWN["comment"]) == "the staging of crm"
    assert setting.databases() == [name]


def test_a_retry_returns_what_the_first_attempt_completed(setting: Setting) -> None:
    first = setting.refresh(seed="a task")
    with setting.staging.connect() as connection:
        connection.execute("insert into film (title) values ('written since')")
    again = setting.refresh(seed="a task")
    assert (again["backup"], again["replaced"], again["kept"]) == (first["backup"], first["replaced"], first["kept"])
    assert value(setting.staging, "select count(*) from film") == 201
    assert setting.refresh(seed="tomorrow's task")["rows"] == 300
    assert value(setting.staging, "select count(*) from film") == 200


KILLED = """
import json, os, signal, sys
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.open import open_repository

order = json.load(sys.stdin)

def log(line):
    if line.startswith(order["at"]):
        os.kill(os.getpid(), signal.SIGKILL)

refresh(
    reference=order["reference"],
    repository=open_repository(order["repository"]),
    target=ConnectionParams(keywords=order["keywords"], password=order["password"]),
    context=RunContext(log=log),
)
"""


@pytest.mark.parametrize("line", ["created database ", "restored rows into ", "re-applied "])
def test_killed(setting: Setting, line: str) -> None:
    order = {
        "at": line,
        "keywords": dict(setting.staging.keywords),
        "password": setting.staging.get_password(),
        "reference": setting.reference,
        "repository": setting.repository.uri,
    }
    done = subprocess.run([sys.executable, "-c", KILLED], input=json.dumps(order), text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 240
    while temporary(setting) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert setting.is_as_it_was()
    setting.refresh(keep=0)
    assert value(setting.staging, "select count(*) from film") == 200
    assert setting.databases() == [setting.staging.dbname]


KEY = MaskingKey(b"a key of the tests, long enough")
RULES = "columns:\n  public.film.film_id: keep\n  public.film.price: keep\n  public.film.title: hash\n"


def test_masked_and_checked(setting: Setting) -> None:
    done = setting.refresh(
        rules=load_rules(RULES), masking_key=KEY, checks=[{"name": "films", "sql": "select count(*) = 200 from film"}]
    )
    assert value(setting.staging, "select count(*) from film where title ~ '^film'") == 0
    assert value(setting.staging, "select count(*) from expensive where title ~ '^film'") == 0
    assert value(setting.staging, "select count(*) from pg_namespace where nspname = 'pgbackup_masking'") == 0
    assert value(setting.staging, "select count(*) from pg_largeobject_metadata") == 0
    assert done["masked_columns"] == 1
    assert done["searched_values"] == 100
    (line,) = done["checks"]
    assert "films" in line


@pytest.mark.parametrize(
    ("rules", "checks", "error"),
    [
        ("columns:\n  public.film.title: hash\n", [], "public.film.film_id"),  # a column without a rule
        (RULES.replace("hash", "keep"), ["select count(*) > 1000 from film"], "select count"),
        # A constraint that fails names the column and its rule.
        (RULES.replace("hash", "{sql: \"'the same'\"}"), [], "change the rules of public.film.title"),
        # An expression that masks nothing.
        (RULES.replace("hash", "{sql: title}"), [], "column public.film.title has"),
    ],
    ids=["column", "check", "constraint", "leak"],
)
def test_what_the_rules_or_checks_refuse_leaves_the_old_copy(
    setting: Setting, rules: str, checks: list[str], error: str
) -> None:
    with pytest.raises(PgBackupError) as refused:
        setting.refresh(rules=load_rules(rules), masking_key=KEY, checks=checks)
    assert error in str(refused.value)
    assert "film 1" not in str(refused.value)
    assert f'database "{setting.staging.dbname}" was not changed' in str(refused.value)
    assert setting.is_as_it_was()


def test_rules_need_a_key(setting: Setting) -> None:
    with pytest.raises(ConfigurationError, match="no masking key given"):
        setting.refresh(rules=load_rules(RULES))
    assert setting.is_as_it_was()
