"""The lexer finds the statements, comments, backslash commands and table data that psql finds."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, MetaCommand, SqlLexer
from airflow_pgbackup.postgres.sql.names import (
    NameDecoder,
    client_encoding,
    connected_database,
    copy_target,
    insert_target,
    setval,
)
from airflow_pgbackup.postgres.sql.statement import TEXT_LIMIT, Statement

CHUNKS = (1, 2, 3, 5, 7, 11, 64, 1 << 20)


def lex(text: str | bytes, chunk_size: int = 1 << 20) -> list[tuple[str, bytes]]:
    """Return kind and text of every event, with COPY data as one text."""
    found = []
    for event in SqlLexer(io.BytesIO(text.encode() if isinstance(text, str) else text), chunk_size=chunk_size):
        if isinstance(event, Statement):
            found.append(("statement", event.text))
        elif isinstance(event, CopyData):
            found.append(("copy", event.statement.text))
            found.append(("data", b"".join(event.chunks())))
        elif isinstance(event, Comment):
            found.append(("comment", event.text))
        elif isinstance(event, MetaCommand):
            found.append(("meta", event.name + b" " + event.argument))
    return found


def rows_by_insert(text: str, chunk_size: int) -> list[tuple[str, int]]:
    decoder = NameDecoder()
    found = []
    for event in SqlLexer(io.BytesIO(text.encode()), chunk_size=chunk_size):
        assert isinstance(event, Statement)
        target = insert_target(event.text, decoder)
        assert target
        found.append((target.name, max(event.groups, 1)))
    return found


ONE_STATEMENT = {
    "plain": "CREATE TABLE public.film (\n    film_id integer NOT NULL,\n    title text\n);",
    "string with everything": "INSERT INTO t VALUES ('it''s; -- /* \" $$ \\');",
    "COPY in a string": "COMMENT ON TABLE t IS 'x\nCOPY x FROM stdin;\n1\n\\.\n';",
    "COPY in a name": 'CREATE TABLE "COPY x FROM stdin;\n\\.\n" (a integer);',
    "doubled quote in a name": 'CREATE TABLE "a"";""b" (a integer);',
    "COPY in a line comment": "CREATE TABLE t ( -- COPY x FROM stdin;\n a integer);",
    "COPY in nested comments": "CREATE /* a /* COPY x FROM stdin; */ ; */ TABLE t (a integer);",
    "dollar quotes": "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$\nCOPY x FROM stdin;\n'$$;",
    "tagged dollar quotes": "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_a1$ $$; $b$; $_a1 $_a1$;",
    "unicode tag": "DO $é$ select ';' $é$;",
    "a dollar in a name": "SELECT a$b$c, d$ FROM t;",
    "parameters": "PREPARE p AS SELECT $1, $2 + 1;",
    "escape string": "SELECT E'a\\';b', e'\\\\', E'c''\\';';",
    "a word ending in e before a string": "SELECT date'\\', typé'\\';",
    "bits, unicode, national": "SELECT B'01', X'1F', U&'\\0061', N'x\\';",
    "a rule of two commands": "CREATE RULE r AS ON INSERT TO t DO ( DELETE FROM a; DELETE FROM b; );",
    "SQL body": (
        "CREATE FUNCTION public.f(x integer) RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT 1;\n"
        " SELECT CASE WHEN x > 1 THEN CASE WHEN true THEN 2 END ELSE 3 END AS \"end\";\n SELECT 'END; COPY';\nEND;"
    ),
    "SQL body, replaced procedure": "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END;",
    "a function named begin": "CREATE FUNCTION public.begin() RETURNS void LANGUAGE sql AS 'select 1';",
    "operators": "CREATE OPERATOR public.<-> (FUNCTION = f, COMMUTATOR = OPERATOR(public./-));",
    "minus and slash": "SELECT 1 - -1, 4 / 2, 5-(-6), '-'/1;",
    "numbers": "SELECT 1.5e10, 0x1F, 1_000, .5;",
}


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("statement", ONE_STATEMENT.values(), ids=ONE_STATEMENT.keys())
def test_the_end_of_a_statement(statement: str, chunk_size: int) -> None:
    text = f"SELECT 1;\n{statement}\n\nSELECT 2;\n"
    expected = [("statement", part.encode()) for part in ("SELECT 1;", statement, "SELECT 2;")]
    assert lex(text, chunk_size) == expected


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_backslashes_in_strings_follow_the_setting_of_the_script(chunk_size: int) -> None:
    statements = [
        "SET standard_conforming_strings = off;",
        r"SELECT 'a\';b';",
        "SET standard_conforming_strings = on;",
        r"SELECT 'a\';",
        "SET standard_conforming_strings = 'off';",
        r"SELECT 'a\''';';",
        "set Standard_Conforming_Strings\nto ON;",
        r"SELECT 'a\';",
    ]
    assert lex("\n".join(statements), chunk_size) == [("statement", text.encode()) for text in statements]


@pytest.mark.parametrize("value", ["", " = default", " = off, on", " to 'o' 'ff'", " from current", "= /*off*/ on"])
def test_another_setting_of_backslashes_is_refused(value: str) -> None:
    """Nobody could tell where the strings that follow end."""
    with pytest.raises(VerificationFailed, match="at byte 10, which pg_dump never writes"):
        lex(f"SELECT 1;\nSET standard_conforming_strings{value};\n'", 100)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_comments_commands_and_table_data_come_in_order(chunk_size: int) -> None:
    text = (
        '--\n-- Name: "a; COPY"\n--\n\\restrict abc\n\nCOPY public.t (a, b) FROM stdin;\n'
        "1\tCOPY x FROM stdin;\n\\\\.\n\\N\t\\.\n\\.x\n'\n$$\n--\n\\.\n\n\nCOPY e  FROM stdin;\n\\.\n"
        '\\connect "a b"\nSELECT 1;\n'
    )
    assert lex(text, chunk_size) == [
        ("comment", b"--"),
        ("comment", b'-- Name: "a; COPY"'),
        ("comment", b"--"),
        ("meta", b"restrict abc"),
        ("copy", b"COPY public.t (a, b) FROM stdin;"),
        ("data", b"1\tCOPY x FROM stdin;\n\\\\.\n\\N\t\\.\n\\.x\n'\n$$\n--\n"),
        ("copy", b"COPY e  FROM stdin;"),
        ("data", b""),
        ("meta", b'connect "a b"'),
        ("statement", b"SELECT 1;"),
    ]


@given(
    lines=st.lists(
        st.binary(max_size=12).filter(lambda line: b"\n" not in line and b"\0" not in line and line != b"\\."),
        max_size=20,
    ),
    chunk_size=st.integers(1, 40),
)
@example(lines=[b"", b"\\", b"\\.\\.", b"", b"\\..", b".", b"\\"], chunk_size=2)
def test_any_table_data_is_complete(lines: list[bytes], chunk_size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    text = b"COPY t (a) FROM stdin;\n" + data + b"\\.\n\n\nSELECT 1;\n"
    assert lex(text, chunk_size)[1:] == [("data", data), ("statement", b"SELECT 1;")]


def test_unread_table_data_is_skipped() -> None:
    text = b"COPY t (a) FROM stdin;\n" + b"SELECT 2;\n" * 100 + b"\\.\nSELECT 1;\n"
    events = list(SqlLexer(io.BytesIO(text), chunk_size=16))
    assert [type(event) for event in events] == [CopyData, Statement]


VALUES = st.one_of(
    st.integers().map(str),
    st.sampled_from(["NULL", "DEFAULT", "true", "-1.5", "B'01'", "E'\\\\''x'", "'\\x00'", "''"]),
    st.text(st.sampled_from("a'\\\n();-/*$\",eEé"), max_size=8).map(lambda text: "'" + text.replace("'", "''") + "'"),
)


@given(
    rows=st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=12),
    head=st.sampled_from(
        ["INSERT INTO public.t VALUES", 'INSERT INTO public.t (a, "b)c") OVERRIDING SYSTEM VALUE VALUES']
    ),
    tail=st.sampled_from(["", " ON CONFLICT DO NOTHING"]),
    per_statement=st.integers(1, 5),
    chunk_size=st.sampled_from([1, 2, 3, 7, 50, 1 << 20]),
)
def test_every_inserted_row_is_counted(
    rows: list[list[str]], head: str, tail: str, per_statement: int, chunk_size: int
) -> None:
    texts = ["(" + ", ".join(row) + ")" for row in rows]
    if per_statement == 1:
        statements = [f"{head} {text}{tail};\n" for text in texts]
    else:
        groups = [texts[i : i + per_statement] for i in range(0, len(texts), per_statement)]
        statements = [head + "\n\t" + ",\n\t".join(group) + tail + ";\n" for group in groups]
    found = rows_by_insert("".join(statements), chunk_size)
    assert sum(count for _, count in found) == len(rows)
    assert {name for name, _ in found} == {"t"}


def test_inserts_into_several_tables_are_kept_apart() -> None:
    text = "".join(
        f"INSERT INTO {table} VALUES ({row});\n" for table in ("a", "ab", '"a VALUES (1)"') for row in range(3)
    )
    text += "INSERT INTO nothing DEFAULT VALUES;\nINSERT INTO nothing DEFAULT VALUES;\n"
    counts: dict[str, int] = {}
    for name, count in rows_by_insert(text, 1 << 20):
        counts[name] = counts.get(name, 0) + count
    assert counts == {"a": 3, "ab": 3, "a VALUES (1)": 3, "nothing": 2}


UNFINISHED = [
    "SELECT 1",
    "SELECT 'a;\n",
    "SELECT E'a\\",
    'SELECT "a;\n',
    "SELECT $$ ; ",
    "SELECT $a",
    "SELECT (1;\n",
    "SELECT 1 /* ;",
    "SELECT 1 -- ;",
    "-- PostgreSQL",
    "\\restrict abc",
    "COPY t (a) FROM stdin;",
    "COPY t (a) FROM stdin;\n1\n2\n",
    "COPY t (a) FROM stdin;\n1\n\\.",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
]


@pytest.mark.parametrize("chunk_size", [1, 1 << 20])
@pytest.mark.parametrize("text", UNFINISHED)
def test_an_end_within_an_event_is_an_error(text: str, chunk_size: int) -> None:
    with pytest.raises(VerificationFailed):
        lex("SELECT 1;\n" + text, chunk_size)


READ_DIFFERENTLY_BY_PSQL = {
    "an escape string that goes on": "SELECT E'a'\n'b\\''; COMMIT; SELECT \"'\";",
    "an escape string that goes on after a carriage return": "SELECT E'a'\r'b\\''; COMMIT; --';",
    "an escape string that goes on after a comment": "SELECT E'a' -- text\n -- text\r\n 'b\\''; COMMIT; --';",
    "an escape string that goes on in parentheses": "INSERT INTO t VALUES (E'a\\\\'\n'b\\''); COMMIT; --');",
    "much white space after a string": "SELECT E'a'" + " " * 5000 + "\n'b\\''; COMMIT; --';",
    "a dollar quote after a number": "SELECT 1$a$ ' $a$; COMMIT; --';",
    "a dollar quote after a parameter": "SELECT $1$a$ ' $a$; COMMIT; --';",
    "a dollar quote after a dollar quote": "SELECT $a$x$a$$b$ ' $b$; COMMIT; --';",
    "an escape string after a dollar quote": "DO LANGUAGE $a$sql$a$E'\\''; COMMIT; --';",
    "COPY data that ends before a carriage return": "COPY t (a) FROM stdin;\n1\n\\.\r\nCOMMIT;\n\\.\n",
    "COPY data that is empty before a carriage return": "COPY t (a) FROM stdin;\n\\.\r\nCOMMIT;\n\\.\n",
    "a setting of the session": "SET SESSION standard_conforming_strings = on;",
    "a setting that is reset": "RESET standard_conforming_strings;",
    "a setting by a function": "SELECT pg_catalog.set_config('Standard_Conforming_Strings', 'on', false);",
    "a setting in quotes": 'SET /* x */ "Standard_conforming_strings" = on;',
    "a setting in escapes": r'SET U&"standard_conforming_string\0073" = on;',
    "a setting after a long comment": f'SET /*{"x" * TEXT_LIMIT}*/ "standard_conforming_strings" = on;',
    "all settings": "RESET ALL;",
    "an encoding with a backslash": r"SET client_encoding = 'UTF8\';",
    "an encoding with other letters": "SET client_encoding = 'SJ\u0130IS';",
    "a NUL": "SELECT 'a' \0'; COMMIT; --';",
    "a NUL in table data": "COPY t (a) FROM stdin;\n1\0\n\\.\n",
    "a function body with a label case": (
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; END; COMMIT; SELECT 1 AS end;"
    ),
    "an encoding without quotes": "SET client_encoding = SJIS;",
    "an encoding of the session": "SET SESSION client_encoding = 'SJIS';",
    "an encoding of the transaction": "SET LOCAL/**/NAMES 'SJIS';",
    "an encoding by its standard name": "SET NAMES 'SJIS';",
    "an encoding by a function": "SELECT set_config('client_encoding', 'SJIS', false);",
}


@pytest.mark.parametrize("chunk_size", [1, 7, 1 << 20])
@pytest.mark.parametrize("text", READ_DIFFERENTLY_BY_PSQL.values(), ids=READ_DIFFERENTLY_BY_PSQL.keys())
def test_what_psql_reads_differently_is_an_error(text: str, chunk_size: int) -> None:
    with pytest.raises(VerificationFailed, match=r"pg_dump never writes|white space and comments after a string"):
        lex(f"SELECT 1;\n{text}\n", chunk_size)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT pg_catalog.setval('public.client_encoding_id_seq', 1, true);",
        "SELECT * FROM pg_catalog.pg_restore_attribute_stats('a', '{set_config(''client_encoding'')}'::text);",
        "SET search_path = names, pg_catalog;",
        "SET SESSION AUTHORIZATION names;",
        "SET client_encoding TO 'UNICODE';",
        "ALTER ROLE joe SET client_encoding TO 'latin1';",
    ],
)
def test_what_only_looks_like_a_setting_of_strings(text: str) -> None:
    assert lex(text) == [("statement", text.encode())]


@pytest.mark.parametrize("chunk_size", [1, 7, 1 << 20])
def test_the_line_ends_of_windows_belong_to_comments(chunk_size: int) -> None:
    """They tell such a script from a changed one."""
    assert lex("-- a\r\n-- b\rSELECT 1;\n", chunk_size) == [
        ("comment", b"-- a\r"),
        ("comment", b"-- b"),
        ("statement", b"SELECT 1;"),
    ]


@pytest.mark.parametrize("chunk_size", [1, 7, 1 << 20])
def test_carriage_returns_end_comments_but_not_values(chunk_size: int) -> None:
    copied = "COPY t (a) FROM stdin;\n1\\r\n\r\n\\\\.\r\n\\.\n"
    text = f"-- a\rCOMMIT;\nSELECT 1 -- b\r; COMMIT;\nINSERT INTO t VALUES ('a\r''\n''b'), (E'\\r\r');\n{copied}"
    assert [part for kind, part in lex(text, chunk_size) if kind == "statement"] == [
        b"COMMIT;",
        b"SELECT 1 -- b\r;",
        b"COMMIT;",
        b"INSERT INTO t VALUES ('a\r''\n''b'), (E'\\r\r');",
    ]


def test_copy_with_a_condition_takes_no_data() -> None:
    text = "COPY public.t (a) FROM '/dev/null' WHERE a IS DISTINCT FROM stdin;\nCOMMIT;\n"
    assert [part for _, part in lex(text)] == [part.encode() for part in text.splitlines()]


def test_the_error_names_the_statement_and_its_offset() -> None:
    with pytest.raises(VerificationFailed, match=r"inside the table data .* byte 10: COPY public.t \(a\) FROM stdin;"):
        lex("SELECT 1;\nCOPY public.t (a) FROM stdin;\n1\n")
    with pytest.raises(VerificationFailed, match="inside the statement that begins at byte 10: CREATE"):
        lex("SELECT 1;\nCREATE TABLE t (")
    with pytest.raises(VerificationFailed, match="backslash outside quotes at byte 17"):
        lex("SELECT 1;\nSELECT \\;\n")


class _Endless:
    """``size`` bytes of a pattern between a head and a tail, generated while they are read."""

    def __init__(self, head: bytes, pattern: bytes, size: int, tail: bytes) -> None:
        self._pieces = self._make(head, pattern, size, tail)
        self._rest = b""

    @staticmethod
    def _make(head: bytes, pattern: bytes, size: int, tail: bytes) -> Iterator[bytes]:
        yield head
        block = pattern * (65536 // len(pattern))
        for _ in range(size // len(block)):
            yield block
        yield tail

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")


@pytest.mark.parametrize(
    ("head", "pattern", "tail"),
    [
        (b"COPY t (a) FROM stdin;\n", b"x", b"\n\\.\n"),
        (b"COPY t (a) FROM stdin;\n", b"x\n", b"\\.\n"),
        (b"INSERT INTO t VALUES ('", b"\\x00", b"');\n"),
        (b"INSERT INTO t VALUES\n\t(0)", b",\n\t(1, '" + b"a" * 1000 + b"')", b";\n"),
        (b"SELECT E'", b"\\'a", b"';\n"),
        (b"DO $x$", b"COPY x FROM stdin;$", b"$x$;\n"),
        (b"SELECT 1 /*", b"comment", b"*/;\n"),
        (b"-- ", b"comment", b"\n"),
        (b"SELECT ", b"a" * 1000 + b" + ", b"1;\n"),
    ],
    ids=["row", "rows", "bytea", "values", "escapes", "body", "comment", "line", "expression"],
)
def test_memory_is_bounded_whatever_the_length(head: bytes, pattern: bytes, tail: bytes) -> None:
    tracemalloc.start()
    try:
        for event in SqlLexer(_Endless(head, pattern, 24 << 20, tail)):
            if isinstance(event, CopyData):
                for _ in event.chunks():
                    pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("text", "schema", "name", "columns"),
    [
        ("COPY public.film (film_id, title) FROM stdin;", "public", "film", ("film_id", "title")),
        ('COPY "a.b"."c""d" ("e, f", "(g)", "h""i") FROM stdin;', "a.b", 'c"d', ("e, f", "(g)", 'h"i')),
        ('COPY public."no columns"  FROM stdin;', "public", "no columns", ()),
        ("COPY actor (actor_id) FROM stdin;", None, "actor", ("actor_id",)),
        ('COPY "é"."line\nend FROM stdin;" (a) FROM stdin;', "é", "line\nend FROM stdin;", ("a",)),
        ('COPY public."from stdin" ("stdin") FROM stdin;', "public", "from stdin", ("stdin",)),
    ],
)
def test_names_of_a_copy(text: str, schema: str | None, name: str, columns: tuple[str, ...]) -> None:
    target = copy_target(text.encode(), NameDecoder())
    assert (target.schema, target.name, target.columns) == (schema, name, columns)


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(schema=NAMES, name=NAMES, columns=st.lists(NAMES, max_size=3), chunk_size=st.sampled_from([1, 3, 1 << 20]))
def test_any_names_are_unchanged(schema: str, name: str, columns: list[str], chunk_size: int) -> None:
    quoted_schema, quoted_name, *quoted = ('"' + text.replace('"', '""') + '"' for text in (schema, name, *columns))
    listed = f"({', '.join(quoted)})" if quoted else ""
    text = f"COPY {quoted_schema}.{quoted_name} {listed} FROM stdin;\n1\n\\.\n"
    (kind, statement), data = lex(text, chunk_size)
    assert (kind, data) == ("copy", ("data", b"1\n"))
    target = copy_target(statement, NameDecoder())
    assert (target.schema, target.name, target.columns) == (schema, name, tuple(columns))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT pg_catalog.setval('public.s', 42, true);", ("public", "s", 42, True)),
        ("""SELECT pg_catalog.setval('"it''s"."a"".b"', -1, false);""", ("it's", 'a".b', -1, False)),
        ("SELECT pg_catalog.setval(E'public.\"a\\\\b''c\"', 7, true);", ("public", "a\\b'c", 7, True)),
        ("SELECT setval('s', 1, true);", (None, "s", 1, True)),
        ("SELECT pg_catalog.lo_create('1');", None),
    ],
)
def test_sequence_values(text: str, expected: object) -> None:
    assert setval(text.encode(), NameDecoder()) == expected


@pytest.mark.parametrize(
    ("argument", "database"),
    [
        ("postgres", "postgres"),
        ("""-reuse-previous=on "dbname='we ird""x\\\\y\\'z'\"""", "we ird\"x\\y'z"),
        ("""-reuse-previous=on "dbname='a=b'\"""", "a=b"),
        ('"old style"', "old style"),
    ],
)
def test_the_database_of_connect(argument: str, database: str) -> None:
    assert connected_database(argument.encode(), NameDecoder()) == database


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize(
    ("encoding", "character"),
    [
        ("SJIS", "表"),
        ("SHIFT_JIS_2004", "表"),
        ("BIG5", "功"),
        ("GBK", "乗"),
        ("GB18030", "乗"),
        ("UHC", None),
        ("JOHAB", None),
    ],
)
@pytest.mark.parametrize("value", ["{}", r"{}\\", r"\\{}", r"a\\{}''b", r"\{}", "''{}", r"{}{}\'"])
def test_characters_that_end_with_a_backslash(
    encoding: str, character: str | None, value: str, chunk_size: int
) -> None:
    data = character.encode(encoding) if character else b"\x95\\"
    assert data[1:] == b"\\"
    statement = b"COMMENT ON TABLE t IS E'" + value.encode().replace(b"{}", data) + b"';"
    setting = f"SET client_encoding = '{encoding}';".encode()
    found = lex(setting + b"\n" + statement + b"\nSELECT 1;\n", chunk_size)
    assert found == [("statement", setting), ("statement", statement), ("statement", b"SELECT 1;")]


@pytest.mark.parametrize(
    ("encoding", "data", "text"),
    [
        ("UTF8", "é".encode(), "é"),
        ("LATIN1", b"\xe9", "é"),
        ("WIN1251", b"\xe9", "й"),
        ("SJIS", b"\x83\x5c", "ソ"),
        ("KOI8R", b"\xca", "й"),
        ("SQL_ASCII", b"\xe9", "\udce9"),
        ("EUC_TW", b"a\xe9", "a\udce9"),
    ],
)
def test_names_in_the_encoding_of_the_dump(encoding: str, data: bytes, text: str) -> None:
    decoder = NameDecoder()
    decoder.use(client_encoding(f"SET client_encoding = '{encoding}';".encode()) or "")
    assert decoder.text(data) == text


BEGIN = "CREATE FUNCTION public.begin() RETURNS integer LANGUAGE sql AS 'SELECT 1';\n"


def settings_before_last(text: str, encoding: str = "UTF8") -> bytes:
    source = f"SET client_encoding = '{encoding}';\n{text}\n".encode("utf-8", "surrogateescape")
    lexer = SqlLexer(io.BytesIO(source))
    return [lexer.settings_before(event) for event in lexer][-1]


@pytest.mark.parametrize(
    "text",
    [
        r"SELECT 'a\';",
        r"SELECT 'a\''b';",
        r"SELECT E'a\\';",
        r"SELECT e'a\n';",
        r"COPY t (a) FROM stdin (DELIMITER '\');" "\n\\.\n",
        "SET standard_conforming_strings = off;\n" r"SELECT 'a\\b';",
        r"INSERT INTO t VALUES (1, 'a\');",
        BEGIN,
    ],
)
def test_settings_are_repeated_where_the_end_depends_on_them(text: str) -> None:
    mode = b"off" if text.startswith("SET") else b"on"
    expected = b"\nSET standard_conforming_strings = %s;\nSET client_encoding = 'UTF8';\n" % mode
    assert settings_before_last(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        r"SELECT 'a\\b', '\x00', E'a''b';",
        r"SELECT $$ '\' $$;",
        r"""SELECT "a\";""",
        r"SELECT 1 /* '\' */;",
        "SET standard_conforming_strings = off;\nSELECT B'01', X'1F', 'a';",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;",
        "CREATE PROCEDURE f() BEGIN ATOMIC END;",
        "CREATE TABLE begin (a integer);",
    ],
)
def test_no_settings_are_repeated_elsewhere(text: str) -> None:
    assert settings_before_last(text) == b""


def test_settings_that_are_not_known_cannot_be_repeated() -> None:
    lexer = SqlLexer(io.BytesIO(b"SELECT 'a\\';"))
    with pytest.raises(VerificationFailed, match="no SET client_encoding before the statement at byte 0"):
        [lexer.settings_before(event) for event in lexer]


@pytest.mark.parametrize("encoding", ["SJIS", "mskanji", "Shift_JIS_2004", "windows-949", "JOHAB", "GB18030"])
def test_a_backslash_within_a_character_in_a_function_body(encoding: str) -> None:
    body = "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT E'\udc95\\'; END;"
    assert settings_before_last(body, encoding)


def test_what_psql_does_not_end_cannot_be_followed_by_rows_or_other_settings() -> None:
    for text in (
        "COPY t (a) FROM stdin;\n\\.\n",
        "SET client_encoding = 'SJIS';",
        "SET standard_conforming_strings = off;",
    ):
        with pytest.raises(VerificationFailed, match=r"does not find the end of .CREATE FUNCTION public\.begin"):
            lex("SET client_encoding = 'UTF8';\n" + BEGIN + text)
    assert lex(BEGIN + "SET standard_conforming_strings = on;")


@pytest.mark.parametrize(
    ("old", "new"),
    [("UNICODE", "UTF8"), ("KOI8", "KOI8R"), ("WIN", "WIN1251"), ("ALT", "WIN866"), ("TCVN", "WIN1258")],
)
def test_old_names_of_encodings(old: str, new: str) -> None:
    """An archive has the old name, and what pg_restore prints the new one: the texts of both are compared."""
    data = bytes(range(0x80, 0x100)) if new != "UTF8" else "клиенты".encode()
    texts = []
    for encoding in (old, new):
        decoder = NameDecoder()
        decoder.use(encoding)
        texts.append(decoder.text(data))
    assert texts[0] == texts[1]
