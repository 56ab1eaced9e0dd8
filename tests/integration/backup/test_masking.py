"""Masking on real servers: rows go through the triggers as pg_restore loads them."""

from __future__ import annotations

import hashlib
import ipaddress
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup.masking import Masking, MaskingKey, find_leaks, load_rules, sample_values
from airflow_pgbackup.backup.masking.columns import Column
from airflow_pgbackup.backup.masking.masked_column import Masked
from airflow_pgbackup.backup.masking.rules import Rule
from airflow_pgbackup.backup.masking.samples import _Choice
from airflow_pgbackup.errors import MaskingError
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import CONFIGURED, find_clients

FreshDatabase = Callable[..., ConnectionParams]
KEY = MaskingKey(b"0123456789abcdef")

SHOP = """
    CREATE EXTENSION IF NOT EXISTS plpgsql;
    CREATE DOMAIN mail AS varchar(60) NOT NULL CHECK (VALUE LIKE '%@%');
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE TABLE customer (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email mail UNIQUE, name text, company varchar(40) UNIQUE,
        born date, seen timestamptz, income numeric(10, 2), zip char(5), note text, iban text, card text, ip inet,
        token text UNIQUE, tags text[], mood mood, parent int REFERENCES customer, shout text NOT NULL,
        upper_mail text GENERATED ALWAYS AS (upper(email)) STORED);
    CREATE TABLE newsletter (email varchar(60) REFERENCES customer (email), since date);
    CREATE TABLE "Odd ""Table" ("Col ""x" text);
    CREATE TABLE payment (id int, day date, payer text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE payment_1 PARTITION OF payment FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE payment_2 (payer text, day date NOT NULL, id int NOT NULL);
    ALTER TABLE payment ATTACH PARTITION payment_2 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
    CREATE TABLE person (phone text);
    CREATE TABLE employee (badge int) INHERITS (person);
    CREATE TABLE country (code text, label text);
    CREATE MATERIALIZED VIEW mails AS SELECT email FROM customer;
    INSERT INTO customer (email, name, company, born, seen, income, zip, note, iban, card, ip, token, tags, mood,
            parent, shout)
        SELECT 'real' || n || '@source.example', 'Johanna Original' || n, 'Original Works ' || n,
            date '1950-01-01' + n, timestamptz '2024-01-01 10:00Z' + n * interval '1 hour', 12345.67 + n, '12345',
            'called Johanna Original' || n, 'DE02120300000000202051', '4111111111111111', '192.0.2.1',
            'secret token ' || n, ARRAY['Oldenburg', NULL], 'glad', 1, 'loud ' || n
        FROM generate_series(1, 300) n;
    INSERT INTO newsletter SELECT email, '2024-05-05' FROM customer;
    INSERT INTO "Odd ""Table" VALUES ('real1@source.example');
    INSERT INTO payment SELECT n, date '2020-06-01' + n * 10, 'Johanna Original' || n FROM generate_series(1, 50) n;
    INSERT INTO person VALUES ('+49 441 555123');
    INSERT INTO employee VALUES ('+49 441 555124', 7);
    INSERT INTO country VALUES ('de', 'Germany');
    REFRESH MATERIALIZED VIEW mails;
"""
RULES = """
locale: de_DE
columns:
  public.customer.*: keep
  public.customer.email: {fake: email}
  public.customer.name: {fake: name}
  public.customer.company: {fake: company}
  public.customer.born: {generalize: year}
  public.customer.seen: {shift: {days: 30, by: id}}
  public.customer.income: {generalize: 1000}
  public.customer.zip: {generalize: {prefix: 2}}
  public.customer.note: null
  public.customer.iban: {fake: iban}
  public.customer.card: {fake: credit_card}
  public.customer.ip: {fake: ip}
  public.customer.token: hash
  public.customer.tags: {fake: city}
  public.customer.mood: {fixed: sad}
  public.customer.shout: {sql: "upper(zip) || '/' || id"}
  public.newsletter.email: {fake: email}
  public.newsletter.since: keep
  public."Odd ""Table".*: {fake: email}
  public.payment.id: keep
  public.payment.day: keep
  public.payment.payer: {fake: name}
  public.person.phone: {fake: phone}
  public.employee.badge: keep
"""


class Tools:
    """pg_dump and pg_restore of one build, on its server."""

    def __init__(self, server: PostgresServer, bin_dir: Path) -> None:
        self.server = server
        self.bin_dir = bin_dir

    def database(self, name: str, *statements: str) -> ConnectionParams:
        with self.server.params.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        with self.server.params.with_database(name).connect() as connection:
            for statement in statements:
                connection.execute(statement)
        return self.server.params.with_database(name)

    def run(self, program: str, *arguments: str | Path, dbname: str) -> None:
        params = self.server.params
        environment = {"PGHOST": params.host, "PGPORT": params.port, "PGUSER": params.user}
        done = subprocess.run(
            [self.bin_dir / program, "-w", "-d", dbname, *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def dump(self, dbname: str, path: Path, *options: str) -> Path:
        self.run("pg_dump", "-Fc", "-f", path, *options, dbname=dbname)
        return path

    def masked_restore(self, dump: Path, target: ConnectionParams, rules: str, *options: str) -> Masking:
        """Restore the three sections, with triggers on the way."""
        self.run("pg_restore", "--section=pre-data", dump, dbname=target.dbname)
        toc = read_archive_toc(dump, "custom", lambda: None)
        masking = Masking(load_rules(rules), KEY, definitions=[entry.definition for entry in toc.entries])
        with target.connect() as connection:
            masking.install(connection)
        self.run("pg_restore", "--section=data", *options, dump, dbname=target.dbname)
        with target.connect() as connection:
            masking.remove(connection)
        self.run("pg_restore", "--section=post-data", dump, dbname=target.dbname)
        return masking

    def blocks(self, dump: Path) -> Iterator[Any]:
        (client,) = [each for each in find_clients([str(self.bin_dir)]) if each.source == CONFIGURED]
        return ArchiveReader(dump, format="custom", client=client, deadline=300.0).blocks()


@contextmanager
def started(build: Build) -> Iterator[Tools]:
    with PostgresServer(build.bin_dir) as server:
        yield Tools(server, build.bin_dir)


def one(connection: psycopg.Connection[Any], query: str | bytes) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


@each(BUILDS)
def test_a_masked_restore_holds_all_constraints_and_no_value_of_the_source(build: Build, tmp_path: Path) -> None:
    with started(build) as tools:
        source, target = tools.database("source", SHOP, "ANALYZE"), tools.database("target")
        dump = tools.dump(source.dbname, tmp_path / "shop.dump")
        masking = tools.masked_restore(dump, target, RULES, "-j2")
        with source.connect() as before, target.connect() as after:
            after.execute("ANALYZE")
            assert one(after, "SELECT count(*) FROM customer JOIN newsletter USING (email)") == 300
            assert one(after, "SELECT count(*) FROM mails JOIN customer USING (email)") == 300
            assert one(after, "SELECT count(*) FROM customer WHERE upper_mail = upper(email)") == 300
            assert one(after, "SELECT count(DISTINCT company) FROM customer") == 300
            assert one(after, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
            assert one(after, "SELECT to_regnamespace('pgbackup_masking')") is None
            for query in ("SELECT sum(id) FROM payment", "SELECT count(*) FROM customer"):
                assert one(before, query) == one(after, query)
            samples = sample_values(tools.blocks(dump), masking)
            assert {"public.customer.email", "public.customer.token", "public.payment_1.payer"} <= samples.keys()
            assert find_leaks(after, samples, masking) == []
            assert {leak.place for leak in find_leaks(before, samples, masking)} >= {
                "column public.customer.note",
                "column public.mails.email",
                "column public.payment_2.payer",
                "statistics of public.customer.name",
            }


def test_rows_that_are_loaded_through_their_partitioned_table_are_masked_too(tmp_path: Path) -> None:
    with started(BUILDS[-1]) as tools:
        source, target = tools.database("source", SHOP), tools.database("target")
        dump = tools.dump(source.dbname, tmp_path / "shop.dump", "--load-via-partition-root")
        masking = tools.masked_restore(dump, target, RULES)
        samples = sample_values(tools.blocks(dump), masking)
        with target.connect() as after:
            assert "public.payment.payer" in samples
            assert find_leaks(after, samples, masking) == []


@contextmanager
def masked(database: ConnectionParams, rules: str, key: MaskingKey = KEY) -> Iterator[psycopg.Connection[Any]]:
    """A session on a database with the triggers of some rules."""
    with database.connect() as connection:
        masking = Masking(load_rules(rules), key)
        masking.install(connection)
        yield connection
        masking.remove(connection)


@pytest.mark.parametrize(
    ("type_", "rule", "value", "expected"),
    [
        ("text", "null", "x", lambda v: v is None),
        ("int", "{fixed: 7}", "1", lambda v: v == 7),
        ("text", "{fixed: \"o'ne\"}", "1", lambda v: v == "o'ne"),
        ("date", "{generalize: month}", "2024-05-17", lambda v: str(v) == "2024-05-01"),
        ("timestamptz", "{generalize: quarter}", "2024-05-17 10:00Z", lambda v: str(v).startswith("2024-04-01")),
        ("int", "{generalize: 10}", "-7", lambda v: v == -10),
        ("numeric", "{generalize: 0.5}", "1.7", lambda v: float(v) == 1.5),
        ("text", "{generalize: {prefix: 3}}", "26122", lambda v: v == "261"),
        ("text[]", "{generalize: {prefix: 1}}", "{ab,NULL}", lambda v: v == ["a", None]),
        ("text[]", "{fake: city}", "{}", lambda v: v == []),
        ("date", "{shift: 3}", "2024-05-17", lambda v: 0 < abs((v - date(2024, 5, 17)).days) < 4),
        ("date", "{shift: 3}", "9999-12-31", lambda v: str(v) == "9999-12-31"),
        ("float8", "{generalize: 10}", "1.7976931348623157e+308", lambda v: v > 1e308),
        ("numeric(5,-2)", "hash", "1200", lambda v: v >= 0),
        ("varchar(12)", "{fake: company}", "ACME", lambda v: 0 < len(v) <= 12),
        ("char(2)", "{fake: country}", "DE", lambda v: len(v) == 2 and v.isupper()),
        ("text", "{fake: email}", "a@b.de", lambda v: v.endswith("@example.com")),
        ("varchar(20)", "{fake: email}", "a@b.de", lambda v: v.endswith("@x.test") and len(v) <= 20),
        ("text", "{fake: phone}", "0441 1", lambda v: v.startswith("+999") and len(v) == 15),
        ("bigint", "{fake: phone}", "4411", lambda v: str(v).startswith("999")),
        ("text", "{fake: iban}", "x", lambda v: int(v[4:] + "1314" + v[2:4]) % 97 == 1),
        ("text", "{fake: credit_card}", "x", lambda v: len(v) == 16 and _luhn(v)),
        ("inet", "{fake: ip}", "1.2.3.4", lambda v: v in ipaddress.ip_network("10.0.0.0/8")),
        ("inet", "{fake: ip}", "2001::1", lambda v: v in ipaddress.ip_network("2001:db8::/32")),
        ("text", "{fake: ip}", "1.2.3.4", lambda v: ipaddress.ip_address(v).is_private),
        ("uuid", "{fake: uuid}", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", lambda v: str(v)[:8] != "3f2504e0"),
        ("bytea", "hash", "x", lambda v: len(v) == 24),
        ("text", "{hash: {length: 12}}", "x", lambda v: len(v) == 12 and int(v, 16) >= 0),
        ("smallint", "hash", "5", lambda v: 0 <= v < 2**15),
        ("text", "{fake: address}", "x", lambda v: ", " in v),
        ("text", "{sql: 'repeat(c, 2)'}", "ab", lambda v: v == "abab"),
        ("varchar(5)[]", "{fixed: '{abc,defgh}'}", "{x}", lambda v: v == ["abc", "defgh"]),
    ],
)  # fmt: skip
def test_each_rule_makes_a_value_of_the_columns_type(
    type_: str,
    rule: str,
    value: str,
    expected: Callable[[Any], bool],
    masking_database: ConnectionParams,
) -> None:
    with masking_database.connect() as connection:
        connection.execute(f"DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (c {type_})")
    with masked(masking_database, f"columns: {{public.t.c: {rule}}}") as connection:
        connection.execute("INSERT INTO t VALUES (%s), (NULL)", [value])
        found, null = [row[0] for row in connection.execute("SELECT c FROM t")]
        assert expected(found), found
        assert null is None or rule.startswith("{fixed")


def test_rules_over_the_row_make_values_of_domains_that_refuse_null(masking_database: ConnectionParams) -> None:
    with masking_database.connect() as connection:
        connection.execute(
            "DROP TABLE IF EXISTS t; CREATE DOMAIN word AS text NOT NULL; CREATE DOMAIN day AS date NOT NULL; "
            "CREATE TABLE t (id int, a word, b word, d day)"
        )
    rules = "columns: {public.t.id: keep, public.t.a: {sql: b || id}, public.t.b: {sql: a || id}, "
    with masked(masking_database, rules + "public.t.d: {shift: {days: 3, by: id}}}") as connection:
        connection.execute("INSERT INTO t VALUES (1, 'x', 'y', '2020-01-01')")
        assert one(connection, "SELECT a || b FROM t") == "y1x1"
        assert one(connection, "SELECT d <> '2020-01-01' FROM t") is True
    with masking_database.connect() as connection:
        connection.execute("DROP TABLE t; DROP DOMAIN word, day")


@pytest.fixture(scope="module")
def masking_database(server18: PostgresServer) -> Iterator[ConnectionParams]:
    with server18.params.connect() as connection:
        connection.execute("CREATE DATABASE masking TEMPLATE template0")
    yield server18.params.with_database("masking")
    with server18.params.connect() as connection:
        connection.execute("DROP DATABASE masking WITH (FORCE)")


def _luhn(number: str) -> bool:
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(number))]
    return sum(each // 10 + each % 10 for each in doubled) % 10 == 0


def test_equal_values_have_equal_masks_with_the_same_key_only(masking_database: ConnectionParams) -> None:
    rules = "columns: {public.a.*: {fake: email}, public.b.*: {fake: email}}"
    found = []
    for key in (KEY, KEY, MaskingKey(b"another key of 32 characters....")):
        with masking_database.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS a, b, t CASCADE")
            connection.execute("CREATE TABLE a (c text); CREATE TABLE b (d varchar(90))")
        with masked(masking_database, rules, key) as connection:
            connection.execute("INSERT INTO a VALUES ('x@y.de'), ('x@y.de'); INSERT INTO b VALUES ('x@y.de')")
            found.append({row[0] for row in connection.execute("SELECT c FROM a UNION ALL SELECT d FROM b")})
    assert len(found[0]) == 1
    assert found[0] == found[1] != found[2]


def test_the_secrets_are_neither_in_the_catalog_nor_in_the_servers_log() -> None:
    with started(BUILDS[-1]) as tools, tools.server.params.connect() as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE TABLE t (c text)")
        with tools.server.params.connect() as loading:
            Masking(load_rules("columns: {public.t.c: hash}"), KEY).install(loading)
            secret = one(loading, "SELECT encode(secret, 'hex') FROM pgbackup_masking.secrets")
            assert secret == KEY.derive("hash").hex()
            assert one(loading, "SELECT relpersistence FROM pg_class WHERE relname = 'secrets'") == "u"
            loading.execute("INSERT INTO t VALUES ('a')")
            digest = hashlib.sha256(bytes.fromhex(secret) + b"a").hexdigest()[:32]
            assert one(loading, "SELECT c FROM t") == digest
            sources = one(loading, "SELECT string_agg(prosrc, '') FROM pg_proc")
            assert secret not in sources
            assert str(KEY.number("seed")) not in sources
            log = tools.server.log_path.read_text(errors="replace")
            assert "COPY pgbackup_masking.secrets" in log
            assert secret not in log
            assert str(KEY.number("seed")) not in log


def test_a_row_that_fails_is_not_quoted_in_the_servers_log(tmp_path: Path) -> None:
    rules = "columns: {public.t.*: {fixed: masked}}"
    with started(BUILDS[-1]) as tools:
        database = tools.database("target", "CREATE TABLE t (c text CHECK (c <> 'masked'))")
        masking = Masking(load_rules(rules), KEY)
        with database.connect() as connection:
            masking.install(connection)
        with database.connect() as loading, pytest.raises(psycopg.errors.CheckViolation) as caught:  # noqa: SIM117
            with loading.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write("Johanna Original\n")
        assert masking.hint(str(caught.value)) == (
            "The masked rows violate it; change the rules of public.t.c (fixed)."
        )
        with database.connect() as connection:
            masking.remove(connection)
            assert one(connection, "SELECT count(*) FROM pg_db_role_setting") == 0
        log = tools.server.log_path.read_text(errors="replace")
        assert "violates check constraint" in log
        assert "Johanna" not in log


MISFITS = {
    "name: {fake: name}": "public.t.id: no rule, but other columns of its table have one; add keep or another",
    "'*': keep, public.t.nmae: keep": "columns.public.t.nmae: no such column",
    "'*': keep, id: null": "public.t.id: it is NOT NULL; use fixed, hash or a fake",
    "'*': keep, id: {fake: name}": "public.t.id: fake name cannot make a value of type integer; use null, fixed or sql",
    "'*': keep, id: hash": "public.t.id: it is unique, and a hash of so few digits would repeat; use keep, or sql with "
    "a formula",
    "'*': keep, mail: {fixed: x}": "public.t.mail: it is unique, and fixed gives equal values; use hash or a fake",
    "'*': keep, code: {fake: email}": "public.t.code: it has room for 3 characters, and fake email needs 19",
    "'*': keep, code: {fixed: abcd}": "public.t.code: it has room for 3 characters, and the fixed value has 4",
    "'*': keep, mood: hash": "public.t.mood: hash cannot make a value of its enum type public.mood; use fixed, null or "
    "sql",
    "'*': keep, mood: {fixed: angry}": 'public.t.mood: fixed: invalid input value for enum public.mood: "angry"',
    "'*': keep, mail: {fake: email}": "public.u.mail (keep) refers to public.t.mail (fake email); both need the same "
    "rule",
    "'*': keep, big: {fixed: null}": "columns.public.t.big.fixed: expected text, found nothing",
    "'*': keep, up: {fake: email}": "public.t.up: the server computes it; mask the columns that it is computed from",
    "'*': keep, day: {shift: 3}": "public.p.day: it decides to which partition a row belongs, and a masked row would "
    "belong to another one",
    "'*': keep, seen: {shift: {days: 3, by: nobody}}": "public.t.seen: its table has no column nobody to shift by",
    "'*': keep, name: {sql: 'upper(nmae)'}": 'public.t.name: sql: column "nmae" does not exist',
    "'*': keep, name: {sql: '1); DROP TABLE public.t; --'}": 'public.t.name: sql: syntax error at or near ")"',
    "'*': keep, name: {sql: '1), (2'}": "public.t.name: sql: expected one value, found 2",
    "'*': keep, day: {sql: 'now()'}, mood: {sql: '1'}": 'public.t.mood: sql: column "mood" is of type public.mood but '
    "expression is of type integer",
    "'*': keep, seen: {sql: \"'2020-01-01'\"}": 'public.t.seen: sql: column "seen" is of type date but expression is '
    "of type text",
    "'*': keep, name: {sql: 'left(up, 1)'}": "public.t.name: sql: it uses a generated column, which the server "
    "computes later",
    "'*': keep, seen: {shift: {days: 3, by: up}}": "public.t.seen: the server computes up later; shift by another "
    "column",
    "'na*': keep, '*me': {fake: name}": "public.t.name has another rule by public.t.*me; write one for itself",
}  # fmt: skip


@pytest.fixture(scope="module")
def hard_tables(masking_database: ConnectionParams) -> ConnectionParams:
    with masking_database.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS a, b, t CASCADE")
        connection.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
        connection.execute(
            "CREATE TABLE t (id int PRIMARY KEY, mail text UNIQUE, name text, code varchar(3), mood mood, big bigint, "
            "up text GENERATED ALWAYS AS (upper(name)) STORED, seen date)"
        )
        connection.execute("CREATE TABLE u (mail text REFERENCES t (mail))")
        connection.execute("CREATE TABLE p (day date) PARTITION BY RANGE (day)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
    return masking_database


@pytest.mark.parametrize("columns", MISFITS)
def test_a_rule_that_cannot_hold_is_refused_with_the_column(columns: str, hard_tables: ConnectionParams) -> None:
    lines = []
    for rule in (
        columns.split(", ")
        if "by: " not in columns and "left(" not in columns and "), (" not in columns
        else ["'*': keep", columns.removeprefix("'*': keep, ")]
    ):
        name, _, value = rule.partition(": ")
        table = "p" if name == "day" else "t"
        name = name.strip("'")
        lines.append(f"  public.{table}.{name.removeprefix('public.t.')}: {value}")
    rules = "columns:\n" + "\n".join(lines) + "\n  public.u.*: keep\n"
    with hard_tables.connect() as connection:
        with pytest.raises(MaskingError) as caught:
            Masking(load_rules(rules), KEY).install(connection)
        assert any(MISFITS[columns] in problem for problem in caught.value.problems), caught.value.problems
        assert one(connection, "SELECT to_regnamespace('pgbackup_masking')") is None
        assert one(connection, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0


def test_a_wildcard_that_keeps_does_not_win_over_a_mask_that_names_the_column(hard_tables: ConnectionParams) -> None:
    rules = load_rules("columns: {'*.u.mail': hash, 'public.u.*ai*': keep}")
    with hard_tables.connect() as connection, pytest.raises(MaskingError, match=r"mail has another rule by"):
        Masking(rules, KEY).check_columns(connection)


def test_a_schema_of_our_name_is_left_alone(server18: PostgresServer, fresh_database: FreshDatabase) -> None:
    database = fresh_database(server18, None, "CREATE SCHEMA pgbackup_masking", "CREATE TABLE t (c text)")
    with database.connect() as connection:
        with pytest.raises(MaskingError, match="the database has a schema pgbackup_masking"):
            Masking(load_rules("columns: {public.t.c: hash}"), KEY).install(connection)
        assert one(connection, "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgbackup_masking'") == 1


def test_a_table_without_rules_is_kept_or_an_error_as_the_rules_say(hard_tables: ConnectionParams) -> None:
    rules = "columns: {public.t.*: keep, public.u.*: keep}\n"
    with hard_tables.connect() as connection:
        Masking(load_rules(rules), KEY).check_columns(connection)
        with pytest.raises(MaskingError, match=r"public\.p: no column has a rule"):
            Masking(load_rules(rules + "tables_without_rules: fail"), KEY).check_columns(connection)


def test_an_error_of_a_constraint_names_the_rules_of_its_columns(hard_tables: ConnectionParams) -> None:
    rules = "columns: {public.t.*: keep, public.t.name: {fake: name}}"
    masking = Masking(
        load_rules(rules), KEY, definitions=["CREATE UNIQUE INDEX t_name ON public.t USING btree (lower(name));"]
    )
    assert masking.hint('could not create unique index "t_name"') is None
    with hard_tables.connect() as connection:
        masking.check_columns(connection)
    assert masking.hint('could not create unique index "t_name"') == (
        "The masked rows violate it; change the rules of public.t.name (fake name)."
    )
    assert masking.hint('could not create unique index "t_pkey"') is None


def test_the_hint_about_a_constraint_names_the_columns_of_its_table(hard_tables: ConnectionParams) -> None:
    definition = "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT ex EXCLUDE USING gist (name WITH =, mail WITH <>);"
    rules = "columns: {public.t.*: keep, public.t.name: {fake: name}, public.u.*: keep, public.v.w: hash}"
    masking = Masking(load_rules(rules), KEY, definitions=[definition])
    with hard_tables.connect() as connection:
        connection.execute("CREATE TABLE v (w text CONSTRAINT chk CHECK (w <> ''))")
        connection.execute("ALTER TABLE t ADD CONSTRAINT chk CHECK (name <> '')")
        masking.check_columns(connection)
        connection.execute("DROP TABLE v; ALTER TABLE t DROP CONSTRAINT chk")
    hint = "The masked rows violate it; change the rules of "
    assert masking.hint('new row for relation "v" violates check constraint "chk"') == f"{hint}public.v.w (hash)."
    assert masking.hint('could not create exclusion constraint "ex"') == f"{hint}public.t.name (fake name)."


def test_leaks_are_found_wherever_a_database_keeps_values(
    server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    secret = "Johanna Original7"
    target = fresh_database(
        server18,
        None,
        f"CREATE TABLE plain (c text); INSERT INTO plain VALUES ('see {secret.upper()}, please')",
        f"CREATE TABLE packed (c bytea, j jsonb, a text[]); INSERT INTO packed VALUES ('{secret}', "
        f"'{{\"x\": \"{secret}\"}}', ARRAY['{secret}'])",
        f"CREATE MATERIALIZED VIEW m AS SELECT '{secret}'::text AS c",
        f"CREATE VIEW v AS SELECT '{secret}'::text AS c",
        f"COMMENT ON TABLE plain IS 'of {secret}'",
        f"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT '{secret}'$$",
        f"CREATE TABLE defaulted (c text DEFAULT '{secret}' CHECK (c <> '{secret} x'))",
        f"CREATE TABLE counted (c text); INSERT INTO counted SELECT '{secret}' FROM generate_series(1, 300)",
        "ANALYZE counted; TRUNCATE counted",
        f"SELECT lo_from_bytea(99, repeat('x', 1048570)::bytea || ' {secret}'::bytea)",
        f"CREATE TABLE allowed (c text); INSERT INTO allowed VALUES ('{secret}')",
        "CREATE TABLE innocent (c text); INSERT INTO innocent VALUES ('Original7 Johanna', NULL)".replace(", NULL", ""),
    )
    rules = load_rules("columns: {public.x.y: keep}\nleak_check: {may_contain: [public.allowed.c]}")
    samples = {"public.customer.name": frozenset({secret.encode()})}
    with target.connect() as connection:
        found = find_leaks(connection, samples, Masking(rules, KEY))
    assert {leak.place for leak in found} == {
        "column public.plain.c", "column public.packed.c", "column public.packed.j", "column public.packed.a",
        "column public.m.c", "definition of public.m", "definition of public.v", "comment on table public.plain",
        "function public.f()", "default of a column of public.defaulted", "constraint defaulted_c_check",
        "statistics of public.counted.c", "large object 99", "rule _RETURN",
    }  # fmt: skip
    assert all(secret not in str(leak) for leak in found)
    assert str(found[0]).endswith(" has 1 value of public.customer.name")


def test_leaks_are_found_in_definitions_that_hold_constants(
    server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    secret = "Johanna Original7"
    target = fresh_database(
        server18,
        None,
        f"CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT '{secret}'; END",
        f"CREATE FUNCTION g() RETURNS int LANGUAGE sql SET application_name = '{secret}' AS 'SELECT 1'",
        f"COMMENT ON SCHEMA public IS '{secret}'",
        f"CREATE DOMAIN d AS text DEFAULT '{secret}'",
        f"CREATE TABLE t (m text); CREATE PUBLICATION p FOR TABLE t WHERE (m <> '{secret}')",
        f"CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (x '{secret}')",
        f"CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (x '{secret}')",
        f"CREATE FOREIGN TABLE r (c text OPTIONS (x '{secret}')) SERVER s OPTIONS (x '{secret}')",
        f"CREATE TEXT SEARCH DICTIONARY e (TEMPLATE = simple); COMMENT ON TEXT SEARCH DICTIONARY e IS '{secret}'",
    )
    samples = {"public.customer.name": frozenset({secret.encode()})}
    with target.connect() as connection:
        found = find_leaks(connection, samples, Masking(load_rules("columns: {public.x.y: keep}"), KEY))
    assert {leak.place for leak in found} == {
        "function public.f()", "function public.g()", "comment on schema public", "default of domain public.d",
        "row filter of publication p", "options of server s", "options of a user mapping of server s",
        "options of foreign table public.r", "options of a column of public.r",
        "comment on text search dictionary public.e",
    }  # fmt: skip


def test_leaks_of_bytea_are_found_whatever_type_has_them(
    server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    secret, other = "Jörg Österreich", "JÖRG ÖSTERREICH"
    target = fresh_database(
        server18,
        None,
        "CREATE DOMAIN d1 AS bytea; CREATE DOMAIN d2 AS d1",
        f"CREATE TABLE t (a bytea, b d2, c bytea[], d text); INSERT INTO t VALUES (convert_to('{secret}', 'UTF8'), "
        f"convert_to('{other}', 'UTF8'), ARRAY[convert_to('{secret}', 'UTF8')], '{other}')",
    )
    samples = {"public.customer.name": frozenset({secret.encode()})}
    with target.connect() as connection:
        found = find_leaks(connection, samples, Masking(load_rules("columns: {public.x.y: keep}"), KEY))
    assert {leak.place for leak in found} == {f"column public.t.{name}" for name in "abcd"}


def test_values_are_found_within_any_text(server18: PostgresServer, fresh_database: FreshDatabase) -> None:
    values = {
        "bab@firma.de": "please write to bab@firma.de today",  # firma is a word of all samples
        "Max Roe": "Mr Max Roe's order",
        "192.168.10.23": "login from 192.168.10.23, port 80",
        "06 12 34 56 78": "call 06 12 34 56 78!",
        "12 Main Street": "moved to 12 Main Street in May",
        "Erika Mustermann1": "Anruf von „Erika Mustermann1“ gestern",
        "Jean Dupont2": "le client\u00a0Jean Dupont2\u2014rappeler",
        "Zoë Quill3": "first line\nZoë Quill3\tlast line",
        "Jane Foo5": '{"note": "first line\\nJane Foo5"}',
        "notes of Jim": "C:\\notes of Jim",
        "山田太郎丁": "山田太郎丁さんから電話がありました",
        "สมชาย ใจดี": "คุณสมชาย ใจดีโทรมา",
        "person4@corp.example": "person4@corp.exampleさん",
    }
    others = {
        *(f"person{n}@firma.de" for n in range(50)),
        *(f"192.168.{n}.{n}" for n in range(10, 30)),
        *(f"0{n} 12 34 56 78" for n in range(30)),
        *(f"{n} Main Street" for n in range(13, 40)),
    }
    innocent = "192.168.11.110 and 212 Main Street, Max Roentgen, tabab@firma.de"
    table = "CREATE TABLE t (innocent text, {})".format(", ".join(f"c{n} text" for n in range(len(values))))
    target = fresh_database(server18, None, table)
    samples = {"public.customer.x": frozenset(each.encode() for each in {*values, *others})}
    with target.connect() as connection:
        places = ", ".join(["%s"] * (len(values) + 1))
        connection.execute(f"INSERT INTO t VALUES ({places})", [innocent, *values.values()])
        found = find_leaks(connection, samples, Masking(load_rules("columns: {public.x.y: keep}"), KEY))
    assert [(leak.place, leak.count) for leak in found] == sorted(
        (f"column public.t.c{n}", 1) for n in range(len(values))
    )


@pytest.mark.parametrize("array", [False, True])
def test_a_sample_of_bytea_is_its_text(array: bool) -> None:
    digits = "Jörg Österreich".encode().hex()
    column = Column("public", "t", "c", "bytea", "bytea", array=array)
    choice = _Choice(100, Masked(column, Rule("hash", length=32)), frozenset())
    choice.offer((rf'{{"\\\\x{digits}"}}' if array else rf"\\x{digits}").encode())
    assert choice.values() == {"Jörg Österreich".encode()}


def test_names_and_values_in_any_bytes_are_masked(server18: PostgresServer) -> None:
    """A database in SQL_ASCII has whatever bytes its clients sent."""
    with server18.params.connect() as connection:
        connection.execute("CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with server18.params.with_database("bytes").connect() as connection:
            connection.execute(b'CREATE TABLE "t\xe9" ("c\xe9" text, email text, day date)')
            rules = load_rules(
                'locale: de_DE\ncolumns: {"public.t?.c?": {fake: city}, "public.t?.email": {fake: email}, '
                '"public.t?.day": {shift: {days: 3, by: email}}}'
            )
            Masking(rules, KEY).install(connection)
            connection.execute(b"INSERT INTO \"t\xe9\" VALUES ('M\xfcnchen', 'caf\xe9@x', '2020-01-01')")
            city, email, day = one(connection, 'SELECT * FROM "t\udce9"'.encode("utf-8", "surrogateescape"))
            assert city.isascii() and email.endswith("@example.com") and 0 < abs((day - date(2020, 1, 1)).days) <= 3
    finally:
        with server18.params.connect() as connection:
            connection.execute("DROP DATABASE bytes WITH (FORCE)")
