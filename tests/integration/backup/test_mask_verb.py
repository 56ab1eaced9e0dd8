"""``pgbackup mask``: rules proposed for a database, and checked against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.mask import check_rules, propose_rules
from airflow_pgbackup.backup.masking import Masking, MaskingKey, load_rules
from airflow_pgbackup.backup.masking.columns import Column
from airflow_pgbackup.backup.masking.personal import kind_by_contents, kind_by_name
from airflow_pgbackup.cli import main
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

FreshDatabase = Callable[..., ConnectionParams]

PEOPLE = (
    "CREATE TABLE person (id int PRIMARY KEY, a text UNIQUE NOT NULL, b text, c text, d text, e text, f text, g text, "
    'dob date, email_sent_at timestamptz, "Passwort-Hash" text, "last Login" varchar(9), password bytea NOT NULL)',
    "INSERT INTO person SELECT n, 'p' || n || '@example.com', 'Thomas Anderson', '+49 441 12345', "
    "'DE02120300000000202051', '4111 1111 1111 1111', '192.0.2.7', 'call x@y.example, please', '1970-01-01', now(), "
    "'x', 'x', 'x' FROM generate_series(1, 20) n",
    "CREATE TABLE letter (recipient text REFERENCES person (a), body text)",
    "CREATE TABLE product (id int, name text, price numeric, day date) PARTITION BY LIST (id)",
    "CREATE TABLE product_1 PARTITION OF product FOR VALUES IN (1)",
    "INSERT INTO product VALUES (1, 'Chair', 3, '2024-01-01')",
)


@pytest.fixture
def people(server18: PostgresServer, fresh_database: FreshDatabase) -> ConnectionParams:
    return fresh_database(server18, None, *PEOPLE)


def test_proposed_rules_mask_what_looks_personal_and_fit_the_database(people: ConnectionParams) -> None:
    with people.connect() as other:
        other.execute("CREATE TEMP TABLE mine (id int PRIMARY KEY, next int REFERENCES mine)")
        text = propose_rules(connection=people)
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if "public.person" in line] == [
        "public.person.id: keep",
        "public.person.a: {fake: email}  # ? holds mail addresses",
        "public.person.b: {fake: name}  # ? holds names of people",
        "public.person.c: {fake: phone}  # ? holds phone numbers",
        "public.person.d: {fake: iban}  # ? holds IBANs",
        "public.person.e: {fake: credit_card}  # ? holds card numbers",
        "public.person.f: {fake: ip}  # ? holds IP addresses",
        "public.person.g: {fake: text}  # ? holds text with mail addresses, IBANs or card numbers",
        "public.person.dob: {generalize: year}  # ? named like dates of birth",
        "public.person.email_sent_at: keep",
        '"public.person.\\"Passwort-Hash\\"": hash  # ? named like secrets',
        '"public.person.\\"last Login\\"": {fake: username}  # ? named like user names',
        "public.person.password: hash  # ? named like secrets",
    ]
    assert "public.letter.recipient: {fake: email}" in lines  # as the column that it refers to
    assert "public.product.name: keep" in lines
    assert not [line for line in lines if "product_1" in line]
    rules = load_rules(text)
    with people.connect() as connection:
        Masking(rules, MaskingKey(b"0123456789abcdef")).check_columns(connection)
    report = check_rules(connection=people, rules=rules)
    assert (report.problems, report.personal, report.masked) == ((), (), 12)


def test_a_column_inherited_from_two_tables_gets_the_same_rule_from_both(
    server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    database = fresh_database(
        server18,
        None,
        "CREATE TABLE one (entry text)",
        "CREATE TABLE two (entry text, id int)",
        "CREATE TABLE child (UNIQUE (entry)) INHERITS (one, two)",
        "INSERT INTO one SELECT n || '@example.com' FROM generate_series(1, 20) n",
    )
    text = propose_rules(connection=database)
    lines = [line.strip() for line in text.splitlines() if "public." in line]
    assert lines == [
        "public.one.entry: {fake: email}  # ? holds mail addresses",
        "public.two.entry: {fake: email}  # ? holds mail addresses",
        "public.two.id: keep",
    ]
    assert check_rules(connection=database, rules=load_rules(text)).problems == ()


def test_the_ends_of_a_foreign_key_have_one_rule_if_their_types_have_the_same_masks(
    server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    database = fresh_database(
        server18,
        None,
        "CREATE TABLE one (email text PRIMARY KEY)",
        "CREATE TABLE two (email varchar(100) REFERENCES one)",
        "CREATE TABLE three (email char(30) REFERENCES one)",
    )
    text = propose_rules(connection=database)
    assert "public.one.email: keep" in text and "public.two.email: keep" in text and "public.three.email: keep" in text
    assert check_rules(connection=database, rules=load_rules(text)).problems == ()
    with database.connect() as connection:
        connection.execute("DROP TABLE three")
    text = propose_rules(connection=database)
    assert "public.one.email: {fake: email}" in text and "public.two.email: {fake: email}" in text
    assert check_rules(connection=database, rules=load_rules(text)).problems == ()
    with database.connect() as connection:
        Masking(load_rules(text), MaskingKey(b"0123456789abcdef")).install(connection)
        connection.execute("INSERT INTO one VALUES ('a@b.de'); INSERT INTO two VALUES ('a@b.de')")


def test_check_reports_what_a_refresh_would_refuse_and_what_is_kept_unnamed(
    people: ConnectionParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("HOST", people.host),
        ("PORT", people.port),
        ("USER", people.user),
        ("DATABASE", people.dbname),
    ):
        monkeypatch.setenv(f"PG{name}", value)
    monkeypatch.setenv("PGPASSWORD", str(people.password))
    rules = tmp_path / "masking.yaml"
    rules.write_text("columns:\n  public.person.a*: keep\n  public.letter.recipient: keep\n  public.nobody.x: hash\n")
    assert main(["mask", "check", str(rules)]) == 3
    out = capsys.readouterr().out.splitlines()
    assert "error: masking.yaml:4: columns.public.nobody.x: no such column" in out
    assert (
        "error: masking.yaml: public.letter.body: no rule, but other columns of its table have one; add keep or another"
        in out
    )
    assert "warning: public.person.a: holds mail addresses, and is kept" in out
    assert "warning: public.person.dob: named like dates of birth, and is kept" in out
    assert not [line for line in out if "p1@example.com" in line]

    assert main(["mask", "check", str(rules), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"problems", "personal", "masked"}

    rules.unlink()
    assert main(["mask", "init", str(rules)]) == 0
    assert main(["mask", "check", str(rules)]) == 0
    assert "no problems found; 12 columns masked" in capsys.readouterr().out
    broken = tmp_path / "broken.yaml"
    broken.write_text("columns:\n  a.b: keep\n  a.b.c: {fake: nonsense}\n")
    assert main(["mask", "check", str(broken)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("pgbackup mask: broken.yaml:2: columns.a.b: not schema.table.column")
    assert second.startswith("pgbackup mask: broken.yaml:3: columns.a.b.c.fake: unknown fake")
    assert main(["mask", "init", str(rules)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["mask", "check"]) == 2
    assert "no file of rules given" in capsys.readouterr().err
    assert main(["mask", "init"]) == 0
    assert capsys.readouterr().out == rules.read_text()


def test_a_table_that_the_role_may_not_read_is_judged_by_its_names(
    people: ConnectionParams, server18: PostgresServer
) -> None:
    with people.connect() as connection:
        connection.execute("CREATE ROLE looker LOGIN PASSWORD 'looks'")
    try:
        lines: list[str] = []
        looker = ConnectionParams.resolve(
            {"host": people.host, "port": people.port, "user": "looker", "dbname": people.dbname}, password="looks"
        )
        text = propose_rules(connection=looker, context=RunContext(log=lines.append))
        assert "warning: public.letter: this role may not read it; its columns are judged by their names only" in lines
        assert "  public.person.b: keep\n" in text
        assert "  public.person.dob: {generalize: year}  # ? named like dates of birth\n" in text
    finally:
        with people.connect() as connection:
            connection.execute("DROP ROLE looker")


@pytest.mark.parametrize(
    ("name", "type_", "kind"),
    [
        ("email", "text", "mail addresses"),
        ("EMail", "varchar", "mail addresses"),
        ("contactEmail", "text", "mail addresses"),
        ("email_sent_at", "timestamptz", None),
        ("emailed", "bool", None),
        ("FirstName", "text", "first names"),
        ("vorname", "text", "first names"),
        ("phone_number", "int8", "phone numbers"),
        ("client_ip", "inet", "IP addresses"),
        ("peer", "inet", "IP addresses"),
        ("ship", "text", None),
        ("zip_code", "text", "postcodes"),
        ("filename", "text", None),
        ("passport_no", "text", "numbers of documents"),
        ("password_hash", "text", "secrets"),
        ("token_count", "int4", None),
        ("pass_hash", "text", "secrets"),
        ("birthday", "date", "dates of birth"),
    ],
)
def test_names_that_promise_personal_data(name: str, type_: str, kind: str | None) -> None:
    found = kind_by_name(Column("public", "t", name, type_, type_))
    assert (found and found.name) == kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a@b.example", "c@d.example", ""], "mail addresses"),
        (["GB82 WEST 1234 5698 7654 32"], "IBANs"),
        (["GB82 WEST 1234 5698 7654 33"], None),
        (["5500000000000004", "5500-0000-0000-0004"], "card numbers"),
        (["5500000000000005"], None),
        (["2001:db8::1", "10.0.0.1/8"], "IP addresses"),
        (["2024-01-01", "2024-01-02"], None),
        (["(555) 123-4567", "+1 555 1234567"], "phone numbers"),
        (["Anna", "Peter", "Michael"], "first names"),
        (["Chair", "Table", "Lamp"], None),
        (["paid with GB82WEST12345698765432", *["nothing"] * 9], "text with mail addresses, IBANs or card numbers"),
        ([], None),
    ],
)
def test_contents_that_are_personal_data(values: list[str], kind: str | None) -> None:
    found = kind_by_contents(values)
    assert (found and found.name) == kind


def test_tables_whose_rows_a_policy_hides_are_reported_as_unread(
    server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    database = fresh_database(
        server18,
        None,
        "CREATE TABLE note (body text)",
        "INSERT INTO note SELECT 'a@example.com' FROM generate_series(1, 20)",
        "CREATE POLICY none ON note USING (false)",
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON note TO pg_monitor",
    )
    role = f"auditor_{database.dbname}"
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE pg_monitor")
    lines: list[str] = []
    try:
        auditor = ConnectionParams({**database.keywords, "user": role}, password="secret")
        propose_rules(connection=auditor, context=RunContext(log=lines.append))
    finally:
        with database.connect() as connection:
            connection.execute(f"DROP ROLE {role}")
    assert "warning: public.note: this role may not read it; its columns are judged by their names only" in lines
