"""The names in the text of a function."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.postgres.sql.function_body import MOST_TEXT, changing, mentions, tokens

PIECES = [
    "'",
    '"',
    "$a$",
    "$",
    "/*",
    "*/",
    "--",
    "\n",
    "(",
    ")",
    ";",
    "from ",
    "t",
    ".",
    ",",
    "E'\\",
    "now()",
    "é",
    "::",
]


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_any_text_is_read(text: str) -> None:
    mentions(text)
    changing(list(tokens(text)))


@pytest.mark.parametrize(
    "piece", [*PIECES, "from a, ", "a<now() and ", "$a$ $b$ ", "with a as (", "a.b.", "((", "E'\\'"]
)
def test_time_is_linear(piece: str) -> None:
    text = piece * (MOST_TEXT // 8 // len(piece))
    started = time.thread_time()
    mentions(text)
    assert time.thread_time() - started < 2  # seconds; linear time takes 0.1 s, quadratic time a minute


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT 1 FROM a, b x, ONLY c JOIN s.d ON true", {(None, "a"), (None, "b"), (None, "c"), ("s", "d")}),
        ("SELECT (SELECT 1 FROM a), b FROM c", {(None, "a"), (None, "c")}),
        ('SELECT FROM "Odd ""name""", A', {(None, 'Odd "name"'), (None, "a")}),
        ("INSERT INTO a (x) SELECT 1; UPDATE b SET x = 1; DELETE FROM c", {(None, "a"), (None, "b"), (None, "c")}),
        ("INSERT INTO s.a VALUES (1) ON CONFLICT DO UPDATE SET x = 1", {("s", "a")}),
        ("SELECT x INTO a FROM db.s.b FOR UPDATE OF b", {("s", "b")}),
        ("DECLARE r a%ROWTYPE; c b.x%TYPE; d s.c.x%TYPE", set()),
        ("WITH a AS MATERIALIZED (SELECT 1), b AS (SELECT 1) SELECT FROM a, b, c", {(None, "c")}),
        ("SELECT trim(both FROM a), x IS DISTINCT FROM b, extract(year FROM c)", set()),
        ("SELECT FROM f(1), g(2) x, LATERAL h(3), a", {(None, "a")}),
    ],
)
def test_tables(text: str, tables: set[tuple[str | None, str]]) -> None:
    assert mentions(text).tables == tables


def test_functions_types_and_operators() -> None:
    found = mentions(
        "SELECT f(1), s.g(2), 'x'::mood, CAST(y AS s.kind), a <~> b, a OPERATOR(s.<#>) b, w.* FROM t AS x(y)"
    )
    assert found.functions >= {(None, "f"), ("s", "g")}
    assert (None, "x") not in found.functions
    assert found.types == {(None, "mood"), ("s", "kind")}
    assert "<~>" in found.operators
    assert "<#>" not in found.operators


def test_the_types_of_variables() -> None:
    assert mentions("DECLARE r a%ROWTYPE; c b.x%TYPE; d s.c.x%TYPE").types == {(None, "a"), (None, "b"), ("s", "c")}


def test_a_body_that_sets_its_own_search_path() -> None:
    assert mentions("BEGIN PERFORM set_config('search_path', 'app', true); END").sets_path
    assert mentions("BEGIN SET LOCAL search_path = app; END").sets_path
    assert not mentions("SELECT 1").sets_path
