"""A database with everything in PostgreSQL that is hard to dump.

:func:`build` fills an empty database. Features that only some servers have (xml, ICU, extensions, newer syntax) are
added where available. The tests dump the database, rehearse the dump, and compare the copy with the original.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.sql.lexer import SqlLexer
from airflow_pgbackup.postgres.sql.statement import Statement

ROLES = ("torture owner", 'o"dd', "reader", "torture_högni")
TABLESPACE = "torture space"

# Values that a change of their text form would alter. One table per type, with a NULL too.
VALUES: dict[str, list[str]] = {
    "bool": ["t", "f"],
    "int2": ["-32768", "32767"],
    "int4": ["-2147483648", "2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["NaN", "Infinity", "-Infinity", "0.000", "1e-300", "1" + "0" * 400 + ".5", "-0"],
    "numeric(5,-2)": ["1200", "-99900"],
    "float4": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "float8": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1", "1e15"],
    "money": ["-92233720368547758.08", "0.01"],
    '"char"': ["", "\\001", "a", "\\377"],
    "char(5)": ["", "a ", "ünï"],
    "varchar(3)": ["", "日本語"],
    "text": [
        "",
        "\\N",
        "\\.",
        "tab\there",
        "line\nline\r\nline\r",
        "back\\slash \\n",
        "\b\f\v\x01\x7f",
        "COPY x FROM stdin;\n1\n\\.\n",
        "$$ $_$ ' \" -- /* ; \\connect x",
        "Ω 日本 🐘",
        "x" * 100_000,
    ],
    "name": ["", "a" * 63],
    "bytea": ["", "\\x00", "\\x5c2e0a", "\\x" + "00ff" * 5000],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "0001-12-31 BC", "5874897-12-31"],
    "time": ["00:00", "24:00", "23:59:59.999999"],
    "timetz": ["00:00+15:59", "24:00-15:59"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 00:00 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["infinity", "-infinity", "4713-01-02 00:00+00 BC", "2024-03-31 02:30+01", "294276-12-31 00:00+00"],
    "interval": ["0", "-178000000 years", "1 mon -1 day 25:00:00.000001", "P1Y2M3DT4H5M6S", "-00:00:00.000001"],
    "interval second(2)": ["1.239"],
    "bit(3)": ["101"],
    "varbit": ["", "1", "01" * 40],
    "point": ["(0,-0)", "(NaN,Infinity)", "(1e300,1e-300)"],
    "line": ["{1,-1,0}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(0,1))"],
    "circle": ["<(0,0),0>", "<(1,2),Infinity>"],
    "inet": ["::", "255.255.255.255/32", "10.0.0.1/8", "::ffff:1.2.3.4"],
    "cidr": ["0.0.0.0/0", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
    "json": ["null", '{"a":1, "a":2}', '  [1 ,\n "\\u00e9"]'],
    "jsonb": ["null", '{"b":[{"c":"\\\\ \\" \\n"}],"a":1e400}', "[]"],
    "jsonpath": ['$.a[*] ? (@ like_regex "^\\\\d")', "strict $"],
    "tsvector": ["", "'it''s':1A,2B 'back\\\\slash':3"],
    "tsquery": ["'a':*B & !('b' <-> 'c')", ""],
    "int4range": ["empty", "(,)", "[1,5)"],
    "int8range": ["[,9223372036854775807)"],
    "numrange": ["(NaN,)", "[-Infinity,Infinity]"],
    "daterange": ["[infinity,)", "[2020-01-01,2020-01-02)"],
    "tsrange": ["[-infinity,infinity]"],
    "tstzrange": ["[2020-01-01 00:00+00,)"],
    "int4multirange": ["{}", "{[1,2),[5,9)}"],
    "nummultirange": ["{(,0),[1.5,)}"],
    "datemultirange": ["{[2020-01-01,2020-02-01)}"],
    "int4[]": ["{}", "{NULL,1}", "{{1,2},{3,4}}", "[-2:0]={1,2,3}", "{" + ",".join(map(str, range(20_000))) + "}"],
    "text[]": ['{"", "NULL", NULL, "{}", "\\"", "\\\\"}'],
    "float8[]": ["{NaN,-0,Infinity}"],
    "pg_lsn": ["FFFFFFFF/FFFFFFFF", "0/0"],
    "pg_snapshot": ["10:20:10,14,15"],
    "txid_snapshot": ["10:20:10,14,15"],
    "oid": ["0", "4294967295"],
    "xid": ["4294967295"],
    "xid8": ["18446744073709551615"],
    "cid": ["1"],
    "tid": ["(4294967295,65535)"],
    "refcursor": ["a cursor"],
    "int2vector": ["", "1 2 3"],
    "oidvector": ["1 2"],
    "aclitem": ["=r/reader", "reader=arw*/torture_högni"],
    "regclass": ["pg_class", '"odd ""names""; --".pair'],
    "regrole": ["reader"],
    "regtype": ["integer[]"],
    "regproc": ["now"],
    "regprocedure": ["abs(integer)"],
    "regoperator": ["+(integer,integer)"],
    "regnamespace": ["pg_catalog"],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "regcollation": ['"C"'],
}
NEWER_VALUES: dict[str, tuple[int, list[str]]] = {"interval": (17, ["infinity", "-infinity"])}

BASE = Path(__file__).with_name("torture.sql")

SETTINGS = (
    "alter database {db} set timezone = 'Asia/Kathmandu'",
    "alter database {db} set bytea_output = 'escape'",
    "alter database {db} set datestyle = 'SQL, DMY'",
    "alter database {db} set intervalstyle = 'sql_standard'",
    "alter database {db} set extra_float_digits = 0",
    'alter database {db} set search_path = t, "odd ""names""; --"',
    "alter database {db} set lock_timeout = '1min'",
    "alter database {db} connection limit 50",
    "alter role reader in database {db} set work_mem = '8MB'",
    "comment on database {db} is 'it''s tortured'",
    "grant connect, temp on database {db} to reader",
)

# Its rows cannot be restored: search_path is empty then, and the function does not find its table.
UNRESTORABLE = (
    "create table rate (n int)",
    "insert into rate values (9)",
    "create function highest() returns int language sql as 'select max(n) from rate'",
    "create table film (n int check (n < highest()))",
    "insert into film values (1)",
)


def roles_and_tablespaces(server: ConnectionParams) -> None:
    """Create the roles and tablespaces, once per server."""
    with server.connect() as session:
        session.execute("set allow_in_place_tablespaces = on")
        for role in ROLES:
            session.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        session.execute("alter role reader set statement_timeout = '1h'")
        session.execute("comment on role reader is 'reads'")
        session.execute('grant reader to "torture owner" with admin option')
        session.execute(sql.SQL("create tablespace {} location ''").format(sql.Identifier(TABLESPACE)))
        session.execute(sql.SQL("grant create on tablespace {} to reader").format(sql.Identifier(TABLESPACE)))


def build(database: ConnectionParams) -> None:
    """Fill an empty database. Call :func:`roles_and_tablespaces` for its server first."""
    with database.connect() as session:
        version = session.info.server_version
        session.execute("set default_toast_compression = pglz")
        for statement in _split(BASE.read_bytes()):
            session.execute(statement.encode())
        for number, (kind, values) in enumerate(VALUES.items()):
            since, newer = NEWER_VALUES.get(kind, (0, []))
            known = values + (newer if version // 10000 >= since else [])
            _values(session, number, kind, known)
        if _can(session, "select xml '<a/>'"):
            _values(session, 900, "xml", ["<a b='1'>&amp;</a>", "text only", ""])
        available = {name for (name,) in session.execute("select name from pg_available_extensions")}
        if "hstore" in available:
            session.execute("create extension hstore schema public")
            _values(session, 901, "public.hstore", ['"a"=>NULL, "b\\"" => "\\\\"', ""])
        if "vector" in available:
            session.execute("create extension vector schema public")
            _values(session, 902, "public.vector(3)", ["[1,-0,1e-38]"])
            session.execute("create index on t.values_902 using hnsw (v public.vector_l2_ops)")
        if _can(session, "create collation pg_temp.probe (provider = icu, locale = 'de')"):
            session.execute(
                "create collation t.german (provider = icu, locale = 'de-u-co-phonebk', deterministic=false)"
            )
            session.execute("create table t.in_german (a text collate t.german primary key)")
            session.execute("insert into t.in_german values ('Öl'), ('Ol')")
        if version >= 170000:
            session.execute(
                "create function t.on_login() returns event_trigger language plpgsql as "
                "$$ begin insert into t.logins values (current_user, 'login'); end $$;"
                "create table t.logins (who text, what text);"
                "create event trigger logging_in on login execute function t.on_login()"
            )
        if version >= 180000:
            session.execute(
                "create table t.virtual (a int, b int generated always as (a * 2) virtual, c int not null no inherit);"
                "insert into t.virtual (a, c) values (1, 2);"
                "alter table t.virtual add constraint enforced check (a < 9) not enforced"
            )
        for setting in SETTINGS:
            session.execute(sql.SQL(setting).format(db=sql.Identifier(database.dbname)))  # type: ignore[arg-type]


def _split(text: bytes) -> list[str]:
    """Return the statements of a script, split by the lexer of this package."""
    return [event.text.decode() for event in SqlLexer(io.BytesIO(text)) if isinstance(event, Statement)]


def _values(session: psycopg.Connection[Any], number: int, kind: str, values: list[str]) -> None:
    table = sql.Identifier("t", f"values_{number}")
    column = sql.SQL(kind)  # type: ignore[arg-type]
    session.execute(sql.SQL("create table {} (n int, v {})").format(table, column))
    for n, value in enumerate([*values, None]):
        session.execute(
            sql.SQL("insert into {} values ({}, {}::{})").format(table, sql.Literal(n), sql.Literal(value), column)
        )
    session.execute(sql.SQL("comment on table {} is {}").format(table, sql.Literal(kind)))


def _can(session: psycopg.Connection[Any], statement: str) -> bool:
    try:
        session.execute(statement.encode())
    except psycopg.Error:
        return False
    return True
