"""Names that are not UTF-8: in a database without an encoding, and in the catalogs that all databases share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_pgbackup.backup.check.run import Finding, check
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli import main as command_line
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.sql.anybytes import Identifier, decoded, encoded
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.text import encodable

TABLE, ROLE, DATABASE = "t\udce9", "r\udce9", "d\udce9"
FILL = (
    b'create table "t\xe9" (id serial primary key, "c\xff" text check ("c\xff" <> \'\xa0\'))',
    b"insert into \"t\xe9\" (\"c\xff\") values ('\xe9'), ('caf\xc3\xa9')",
    b'create table "caf\xc3\xa9" (a int)',
    b'create sequence "s\xe9"',
    b"select setval('\"s\xe9\"', 7)",
    b'create materialized view "m\xe9" as select * from "t\xe9"',
    b"comment on table \"t\xe9\" is '\xe9'",
    b"create function \"f\xe9\"() returns text language sql as $$ select '\xe9' $$",
    b'alter table "t\xe9" owner to "r\xe9"',
    b'alter materialized view "m\xe9" owner to "r\xe9"',
    b"select lo_from_bytea(4711, '\\x00ff')",
)


def raw(database: ConnectionParams, *statements: bytes) -> list[tuple[Any, ...]]:
    """What the last statement returns, byte for byte, by a session that knows nothing of ours."""
    keywords: dict[str, Any] = {**database.keywords, "client_encoding": "SQL_ASCII"}
    with psycopg.connect(**keywords, autocommit=True) as session:
        for statement in statements:
            cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A cluster in UTF-8 with a database in SQL_ASCII, a role and another database whose names are not UTF-8."""
    with PostgresServer(postgres_bin_dir(18)) as server:
        locale = b"template template0 lc_collate 'C' lc_ctype 'C' encoding"
        raw(server.params, *(b"create database %s %s '%s'" % (n, locale, n) for n in (b"sql_ascii", b"win1252")))
        ascii = server.params.with_database("sql_ascii")
        raw(ascii, b'create role "r\xe9"', b'create database "d\xe9"', *FILL)
        yield server


def found(connection: ConnectionParams) -> dict[str, Finding]:
    findings = check(connection=connection, server="main")
    return {finding.code: finding for finding in findings}


def test_check_names_what_it_finds_byte_for_byte(own: PostgresServer) -> None:
    database = own.params.with_database("sql_ascii")
    raw(database, b'create role "reader\xe9" login')
    reader = ConnectionParams({**database.keywords, "user": "reader"})
    raw(database, b"create role reader login")
    codes = found(reader)
    assert set(codes) - {"encoding"} == {"table_select", "large_objects", "sequence_select"}
    assert codes["table_select"].objects == ('public."café"', 'public."t\udce9"')
    grant = codes["table_select"].hint.removeprefix("Run ").split(", or")[0].replace("SELECT ON ", "SELECT ON TABLE ")
    raw(database, encoded(grant))
    assert set(found(reader)) - {"encoding"} == {"large_objects", "sequence_select"}


@pytest.mark.parametrize("format", ["custom", "plain", "directory", "tar"])
def test_dump_verify_restore(own: PostgresServer, tmp_path: Path, format: str) -> None:
    repository = open_repository(f"file://{tmp_path / 'repository'}")
    repository.init()
    source = own.params.with_database("sql_ascii")
    reference = dump_database(
        connection=source,
        server="main",
        repository=repository,
        options=DumpOptions(format=format),
        count_rows=True,
    )
    for level in ("archive", "restore"):
        reference = verify(reference=reference, repository=repository, level=level)
    assert reference["verified"]
    target = own.params.with_database(f"copy_{format}")
    restore(reference=reference, repository=repository, target=RestoreTarget(connection=target, mode="create"))
    rows = b'select id, "c\xff"::bytea as c from "t\xe9" order by id'
    assert raw(target, rows) == raw(source, rows) == [(1, b"\xe9"), (2, b"caf\xc3\xa9")]
    names = b"select relname::text::bytea, relowner::regrole::text::bytea from pg_class where relkind in ('r','m','S')"
    names += b" and relnamespace = 'public'::regnamespace order by 1"
    assert raw(target, names) == raw(source, names)
    assert (b"t\xe9", b'"r\xe9"') in raw(target, names)


def test_a_role_and_a_database_whose_names_are_not_utf8(own: PostgresServer) -> None:
    finding = found(own.params)["encoding"]
    assert finding.severity == "warning"
    assert set(finding.objects) >= {'role "r\udce9"', 'database "d\udce9"'}


def test_names_that_the_encoding_of_the_database_cannot_hold(own: PostgresServer) -> None:
    """WIN1252 has no character 0x81, so PostgreSQL itself cannot tell such a name to a session in UTF-8."""
    raw(own.params.with_database("sql_ascii"), b'create role "r\x81"')
    codes = found(own.params.with_database("win1252"))
    assert set(codes) == {"encoding"}
    assert "0x81" in codes["encoding"].message
    raw(own.params.with_database("sql_ascii"), b'drop role "r\x81"')


def test_json_of_the_command_line(
    own: PostgresServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = own.params.with_database("sql_ascii")
    raw(database, b"create role json_reader login")
    for keyword in ("host", "port"):
        monkeypatch.setenv(f"PG{keyword.upper()}", database.keywords[keyword])
    command_line(["check", "--json", "--scan-rows", "-d", "sql_ascii", "-U", "json_reader"])
    (finding,) = (one for one in json.loads(capsys.readouterr().out) if one["code"] == "table_select")
    assert 'public."t\udce9"' in finding["objects"]
    encodable(finding)["message"].encode()


def test_text_and_names(own: PostgresServer) -> None:
    with own.params.with_database("sql_ascii").connect() as session:
        assert session.execute("select %s, %s::text[]", ["é\udce9", ["\udcff"]]).fetchone() == ("é\udce9", ["\udcff"])
        assert session.execute("select convert_to('é', 'SQL_ASCII')".encode()).fetchone() == (b"\xc3\xa9",)
    assert Identifier('a"\udce9', "é").as_bytes() == b'"a""\xe9"."\xc3\xa9"'
    assert encoded(decoded(bytes(range(1, 256)))) == bytes(range(1, 256))
