"""A plain dump that somebody has changed does not end the transaction of its restore, however it hides a COMMIT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builds import BUILDS, Build, each
from psql_scripts import database_dump
from restoring import backup, local, restored, script_of, value

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

Fresh = Callable[..., ConnectionParams]

OFF = b"SET standard_conforming_strings = off;\n"
HIDDEN = b"SELECT 'a\\', '; COMMIT; --';\n"  # seen by psql with standard_conforming_strings off only
SETS = b"pg_catalog.set_config('%s' || '%s', '%s', false)"
STRINGS_OFF = SETS % (b"standard_", b"conforming_strings", b"off")
SJIS = SETS % (b"client_", b"encoding", b"SJIS")
FUNCTION = b"CREATE FUNCTION public.f() RETURNS %s LANGUAGE %s AS $$ %s $$;\n"

COMMITS = {
    "after a NUL": b"SELECT 'a' \0'\n; COMMIT;\n--';\n",
    "after a NUL in table data": (
        b"COPY public.t (line) FROM stdin WITH (FORMAT csv);\n1\0\n\\.\nSELECT '\n\\.\n; COMMIT; --';\n"
    ),
    "after a function": FUNCTION % (b"text", b"sql", b"SELECT " + STRINGS_OFF) + b"SELECT public.f();\n" + HIDDEN,
    "after a function in the same line": (
        FUNCTION % (b"text", b"sql", b"SELECT " + STRINGS_OFF) + b"SELECT public.f(); " + HIDDEN
    ),
    "after a trigger": (
        FUNCTION % (b"trigger", b"plpgsql", b"BEGIN PERFORM " + STRINGS_OFF + b"; RETURN NEW; END")
        + b"CREATE TRIGGER a BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();\n"
        + b"COPY public.t (line) FROM stdin;\n1\n\\.\n"
        + HIDDEN
    ),
    "after an update of pg_settings": (
        b"UPDATE pg_catalog.pg_settings SET setting = 'off' WHERE name = 'standard_' || 'conforming_strings';\n"
        + HIDDEN
    ),
    "after a function that changes the encoding": (
        FUNCTION % (b"text", b"sql", b"SELECT " + SJIS) + b"SELECT public.f();\nSELECT E'\x95\\'; COMMIT; --';\n"
    ),
    "in an encoding by another name": b"SET client_encoding = 'mskanji';\nSELECT E'\x95\\'; COMMIT; --';\n",
    "in an encoding with other characters": b"SET client_encoding = 'S-J-I-S';\nSELECT E'\x95\\'; COMMIT; --';\n",
    "after a bit string": OFF + b"CREATE TABLE IF NOT EXISTS public.t (a bit DEFAULT B'\\'); COMMIT; --');\n",
    "after a hexadecimal string": OFF + b"CREATE TABLE IF NOT EXISTS public.t (a bit DEFAULT X'\\'); COMMIT; --');\n",
    "after a function body": (
        b"CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END; COMMIT;\n"
        b"SELECT 1/0 AS end;\n"
    ),
    "after a procedure's body": (
        b"CREATE OR REPLACE PROCEDURE public.f() BEGIN ATOMIC SELECT 1 AS case; END; COMMIT; SELECT 1/0 AS end;\n"
    ),
    "after a function called begin": (
        b"CREATE FUNCTION begin() RETURNS integer LANGUAGE sql AS 'SELECT 1';\n"
        + OFF
        + b"SELECT 'a\\'; COMMIT; SELECT 1/0 AS end; --';\n"
    ),
    "in rows after a function called begin": (
        b"CREATE FUNCTION begin() RETURNS integer LANGUAGE sql AS 'SELECT 1';\n"
        b"COPY public.t (line) FROM stdin;\nEND;\n\\.\n"
    ),
}


def with_commit(repository_path: Path, hidden: bytes) -> Any:
    repository, directory = local(repository_path / "repository"), repository_path / "dumps"
    directory.mkdir()
    (directory / "x.sql").write_bytes(database_dump(hidden + b"SELECT 1/0;\n"))
    adopted: Any = adopt(repository=repository, sources=[directory / "x.sql"], server="old", database="x")
    return repository, adopted["adopted"][0]


@each(BUILDS[-1:])
@pytest.mark.parametrize("place", COMMITS)
def test_a_hidden_commit_changes_nothing(
    build: Build, place: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    repository, reference = with_commit(tmp_path, COMMITS[place])
    target = fresh_database(server18)
    with pytest.raises(PgBackupError):
        restored(reference, repository, target, mode="into_existing", settings=build.settings)
    assert value(target, "select to_regclass('t')") is None


@each(BUILDS[-1:])
def test_a_commit_in_the_name_of_the_database(build: Build, server18: PostgresServer, tmp_path: Path) -> None:
    """psql inserts its variables without quotes, as SQL."""
    repository, reference = with_commit(tmp_path, b"SELECT 1 AS :DBNAME;\n")
    target = server18.params.with_database("x; COMMIT; --")
    with server18.params.connect() as session:
        session.execute(b'create database "x; COMMIT; --"')
    with pytest.raises(PgBackupError, match='syntax error at or near ":"'):
        restored(reference, repository, target, mode="into_existing", settings=build.settings)
    assert value(target, "select to_regclass('t')") is None


@each(BUILDS[-1:])
@pytest.mark.parametrize("encoding", ["UTF8", "SJIS"])
def test_strings_that_end_with_a_backslash_are_restored(
    build: Build, encoding: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """Settings are repeated before many statements of such a dump."""
    source = fresh_database(
        server18,
        None,
        "create table t (a text default 'C:\\', b text check (b <> E'\\\\'))",
        "create view v as select a, '表\\' as b, E'\\n\\'' as c from t where a like '%\\' escape ''",
        "create function f() returns text begin atomic; select case when '表\\' = '\\' then '表' end; end",
        "insert into t values ('\\', '表'), ('表', '''\\'), (E'\\\\''', '\\''')",
    )
    repository = local(tmp_path / "repository")
    reference = backup(source, repository, format="plain", inserts=True, encoding=encoding)
    target = fresh_database(server18)
    assert restored(reference, repository, target, mode="into_existing", settings=build.settings)["rows"] == 3
    assert script_of(server18, target) == script_of(server18, source)


@each(BUILDS[-1:])
@pytest.mark.parametrize(
    ("setting", "character"),
    [(b"SET client_encoding = 'SJIS';\n", b"\x87"), (b"SET client_encoding='SJIS'; \n ", b"\xe3\x81\x83\\")],
    ids=["unknown to Python", "in an encoding set in other words"],
)
def test_a_commit_after_a_character_that_ends_with_a_backslash(
    build: Build, setting: bytes, character: bytes, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    comment = b"COMMENT ON TABLE public.t IS '" + b"padding" * 9 + b"';"
    source = fresh_database(server18, None, "create table t ()", comment.decode())
    repository = local(tmp_path / "repository")
    backup(source, repository, format="custom", encoding="SJIS")
    (artifact,) = (tmp_path / "repository").rglob("*.dump")
    hidden = b"SELECT E'" + character + b"\\'; COMMIT; SELECT 1/0; --';"
    archive = artifact.read_bytes().replace(comment, hidden.ljust(len(comment)))
    archive = archive.replace(b"SET client_encoding = 'SJIS';\n", setting)
    (tmp_path / "x.dump").write_bytes(archive)
    adopted: Any = adopt(repository=repository, sources=[tmp_path / "x.dump"], server="old", database="x")
    target = fresh_database(server18)
    with pytest.raises(PgBackupError):
        restored(adopted["adopted"][0], repository, target, mode="into_existing", settings=build.settings)
    assert value(target, "select to_regclass('t')") is None
