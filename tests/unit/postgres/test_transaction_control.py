"""Statements in an archive's table of contents that would end the single transaction of a restore."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.transaction_control import check_entries
from airflow_pgbackup.postgres.sql.names import NameDecoder


def check(kind: str = "TABLE", *, standard_strings: bool = True, **texts: Any) -> None:
    check_entries([TocEntry(7, 0, 0, kind, "public", "film", "app", **texts)], standard_strings=standard_strings)


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT", "BEGIN;", "rollback;", "START TRANSACTION;", "End;", "ABORT;", "SAVEPOINT a;", "RELEASE a;",
        "PREPARE TRANSACTION 'a';", "/* a */ COMMIT;", "-- a\rCOMMIT;", "-- a\nCOMMIT AND CHAIN;",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["definition", "drop_statement", "copy_statement"])
def test_a_statement_that_ends_the_transaction_is_refused(field: str, sql: str) -> None:
    with pytest.raises(VerificationFailed, match=r"TABLE public\.film \(entry 7\)"):
        check(**{field: f"DROP TABLE public.film;\n{sql}"})


@pytest.mark.parametrize("sql", ["COPY public.film (id) FROM stdin; COMMIT;\n", "COPY a FROM stdin;\n1\n\\.\nEND;\n"])
def test_a_statement_after_copy_is_refused(sql: str) -> None:
    with pytest.raises(VerificationFailed, match="entry 7"):
        check("TABLE DATA", copy_statement=sql)


def test_sql_among_the_oids_of_large_objects_is_refused() -> None:
    check("BLOB METADATA", definition="16401\n16402\n")
    with pytest.raises(VerificationFailed, match="more than OIDs"):
        check("BLOB METADATA", definition="16401'); COMMIT; --")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE public.film (\n    begin date,\n    \"end\" text DEFAULT 'a; COMMIT;'::text\n);",
        "CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT 1;\n"
        " SELECT\n         CASE\n             WHEN true THEN 1\n             ELSE 2\n         END AS a;\nEND;",
        "CREATE PROCEDURE public.p()\n    LANGUAGE plpgsql\n    AS $_$ BEGIN\nCOMMIT; ROLLBACK;\nEND $_$;",
        "CREATE RULE r AS ON INSERT TO public.film DO ALSO ( DELETE FROM public.log;\n DELETE FROM public.end;\n);",
        "COMMENT ON TABLE public.film IS 'x;\nCOMMIT;';",
        "COMMENT ON TABLE public.film IS E'it\\'s; COMMIT;';",
        "-- COMMIT;\nSELECT 1;",
    ],
)
def test_other_statements_with_such_words_are_accepted(sql: str) -> None:
    check(
        definition=sql, drop_statement="DROP TABLE public.begin;", copy_statement="COPY public.begin (id) FROM stdin;\n"
    )


def test_escapes_in_strings_are_read_as_the_archive_says() -> None:
    sql = "COMMENT ON TABLE public.film IS 'a\\'; COMMIT; --';"
    check(definition=sql, standard_strings=False)
    with pytest.raises(VerificationFailed, match="COMMIT"):
        check(definition=sql)


BODY = "CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql\n    "


@pytest.mark.parametrize(
    "sql",
    [
        BODY + "BEGIN ATOMIC SELECT 1 AS case; END; COMMIT; SELECT 1 AS end;",
        BODY + "BEGIN ATOMIC SELECT 1; END; END;",
        BODY + "BEGIN ATOMIC END; END;",
        BODY + "BEGIN ATOMIC SELECT 1; END AND CHAIN;",
        BODY + "SET search_path TO begin, atomic AS $$select 1$$; END;",
        BODY + 'SET search_path TO "begin" ATOMIC; END;',
        "SELECT 1 begin atomic; END;",
        "SELECT E'a'\n'b\\''; COMMIT; SELECT 1 AS \"'\"",
        "SELECT E'a' -- b\r -- c\n'b\\''; COMMIT; SELECT 1 AS \"'\"",
        "SELECT 1$a$'$a$; COMMIT; SELECT '1'",
        "SELECT $1$a$'$a$; COMMIT; SELECT '1'",
        "SELECT 1 +/* /* */ ' */; COMMIT; SELECT '1'",
        "SELECT 1 --'\r; COMMIT; SELECT '1'",
        "SELECT U&'\\'; COMMIT; SELECT '1'",
        "SELECT N'\\'; COMMIT; SELECT '1'",
        "SELECT 1\v;\fCOMMIT",
    ],
)
def test_a_statement_that_only_the_server_sees_is_refused(sql: str) -> None:
    with pytest.raises(VerificationFailed, match=r"contains '(COMMIT|END)"):
        check("FUNCTION", definition=sql)


def test_a_bit_string_has_no_escapes_without_standard_strings() -> None:
    with pytest.raises(VerificationFailed, match="contains 'COMMIT'"):
        check(definition="SELECT x'\\'; COMMIT; SELECT '1'", standard_strings=False)


def test_the_rest_of_a_drop_statement_is_read_as_pg_restore_sends_it() -> None:
    with pytest.raises(VerificationFailed, match="contains 'COMMIT'"):
        check("FUNCTION", drop_statement="DROP'FUNCTION public.f() OWNER TO app; COMMIT; --'")


@pytest.mark.parametrize(
    "sql",
    [
        BODY + "RETURN CASE WHEN true THEN 1 ELSE 2 END;",
        BODY + "BEGIN ATOMIC\nEND;",
        BODY + 'BEGIN ATOMIC\n SELECT 1 AS "case";\n SELECT 2 AS "end";\nEND;\n\n'
        "ALTER FUNCTION public.f() DEPENDS ON EXTENSION x;",
        BODY + "BEGIN ATOMIC\n WITH a AS (\n INSERT INTO public.t (a) VALUES (CASE WHEN true THEN 1 END)\n"
        "   RETURNING t.a\n ) SELECT a.a\n    FROM a;\nEND;",
        "COMMENT ON TABLE public.film IS E'a\\'b'\n'; COMMIT\\';';",
        "CREATE VIEW public.begin AS\n SELECT '\ufeff; COMMIT'::text AS \"\u00a0; COMMIT;\";",
    ],
)
def test_sound_bodies_and_strings_are_accepted(sql: str) -> None:
    check("FUNCTION", definition=sql)


@pytest.mark.parametrize("encoding", ["SJIS", "windows932", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "JOHAB"])
@pytest.mark.parametrize("character", [b"\x87\\", b"\x95\\", b"\x87\x90\\\\"], ids=["unknown", "known", "pair"])
def test_a_character_that_ends_with_a_backslash_hides_nothing(encoding: str, character: bytes) -> None:
    decoder = NameDecoder()
    decoder.use(encoding)

    def entry(sql: bytes) -> TocEntry:
        return TocEntry(7, 0, 0, "COMMENT", "public", "film", "app", definition=decoder.text(sql))

    hidden = entry(b"SELECT E'" + character + b"'; COMMIT; --';")
    with pytest.raises(VerificationFailed, match="COMMIT"):
        check_entries([hidden], standard_strings=True, encoding=encoding)
    check_entries([entry(b"SELECT E'\x95\\', '; COMMIT; --';")], standard_strings=True, encoding=encoding)
