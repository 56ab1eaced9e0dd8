"""Expressions that the server writes in another form after a restore."""

from __future__ import annotations

import time

import pytest

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.expressions import as_restored
from airflow_pgbackup.postgres.definitions.objects import compare_objects, toc_objects


@pytest.mark.parametrize(
    ("dumped", "restored"),
    [
        (
            "CHECK (((v)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))",
            "CHECK (((v)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))",
        ),
        ("(ARRAY[f(a, b), ',]'::t, g[1]])::x(3)[]", "ARRAY[(f(a, b))::x(3), (',]'::t)::x(3), (g[1])::x(3)]"),
        ("(ARRAY[ARRAY[a, b], ARRAY[c, d]])::t[]", "ARRAY[ARRAY[(a)::t, (b)::t], ARRAY[(c)::t, (d)::t]]"),
        ("(ARRAY[(ARRAY[a])::s[], b])::t[]", "ARRAY[(ARRAY[(a)::s])::t, (b)::t]"),
        (
            '(ARRAY[a])::timestamp(3) without time zone[] || (ARRAY[b])::x."y z"[]',
            'ARRAY[(a)::timestamp(3) without time zone] || ARRAY[(b)::x."y z"]',
        ),
        ("ON v = ANY (ARRAY['a'::character varying]::text[])", "ON v = ANY (ARRAY['a'::character varying::text])"),
        ("((((a = b) OR (a = c)) OR (a = d)) OR e)", "((a = b) OR (a = c) OR (a = d) OR e)"),
        ("((a AND b) AND c)", "(a AND b AND c)"),
    ],
)
def test_the_form_after_a_restore(dumped: str, restored: str) -> None:
    assert as_restored(dumped) == restored
    assert as_restored(restored) == restored


@pytest.mark.parametrize(
    "text",
    [
        "(a OR (b OR c))",
        "((a OR b) AND c)",
        "((a AND b) OR c)",
        "'((a OR b) OR c) (ARRAY[a])::t[]'",
        "(ARRAY[a])::domain",
        "ARRAY[a, b] || c::text",
        "(ARRAY[a",
        "CREATE FUNCTION f()\n    AS $$ SELECT ((a OR b) OR c), (ARRAY[a])::t[] $$;",
    ],
)
def test_what_a_restore_does_not_change(text: str) -> None:
    assert as_restored(text) == text


def test_a_definition_of_300_kilobytes_takes_no_time_to_speak_of() -> None:
    start = time.monotonic()
    for text in ("ARRAY[", "(ARRAY[a])::t", "((a OR b) OR ", "(ARRAY[", "'", "E'\\'"):
        as_restored(f"((ARRAY[a])::t[]) OR {text * (300_000 // len(text))}")
    assert time.monotonic() - start < 60


def equal(dumped: str, restored: str, kind: str = "VIEW") -> bool:
    before, after = (toc_objects([TocEntry(1, 0, 0, kind, "public", "x", "app", each)]) for each in (dumped, restored))
    return not list(compare_objects(before, after, definitions=True))


@pytest.mark.parametrize(
    ("dumped", "restored"),
    [
        ("EXISTS ( SELECT 'x'::text\n FROM t)", "EXISTS ( SELECT 'x'::text AS text\n FROM t)"),
        ("SELECT 'x'::text,\n    NULL::text", "SELECT 'x'::text AS text,\n    NULL::text AS \"?column?\""),
        ("SELECT a,\n    '-1'::integer\n FROM t", "SELECT a,\n    '-1'::integer AS int4\n FROM t"),
        ("SELECT ( SELECT 'x'::text)", "SELECT ( SELECT 'x'::text AS text) AS text"),
        ("SELECT ('x'::text COLLATE \"C\")", "SELECT ('x'::text COLLATE \"C\") AS text"),
        ("SELECT DISTINCT ON (a, b) 'x'::c(1)", "SELECT DISTINCT ON (a, b) 'x'::c(1) AS c"),
        ("INSERT INTO t RETURNING 'x'::text", "INSERT INTO t RETURNING 'x'::text AS text"),
    ],
)
def test_names_of_columns_to_which_nothing_refers_are_no_difference(dumped: str, restored: str) -> None:
    assert equal(dumped, restored)
    assert not equal(restored, dumped)
    assert not equal(dumped, restored.replace("'x'", "'y'").replace("-1", "-2"))
    assert not equal(dumped, restored + ";")


@pytest.mark.parametrize(
    ("dumped", "restored"),
    [
        ("SELECT t.a FROM t", "SELECT t.a AS b FROM t"),
        ("SELECT 'x'::text AS a", "SELECT 'x'::text AS b"),
        ("SELECT 'x'::text,\n    t.a", "SELECT 'x'::text,\n    t.a AS b"),
        ("SELECT f('x'::text)", "SELECT f('x'::text) AS b"),
        ("FROM a JOIN b USING (x)", "FROM a JOIN b USING (x) AS c"),
        ("f()\n    AS $$ SELECT 'x'::text $$", "f()\n    AS $$ SELECT 'x'::text AS text $$"),
        ("f()\n    AS ' SELECT 1::text '", "f()\n    AS ' SELECT 1::text AS text '"),
    ],
)
def test_other_names_are_a_difference(dumped: str, restored: str) -> None:
    assert not equal(dumped, restored)


def test_lists_of_values_in_each_kind_of_definition() -> None:
    dumped, restored = (
        "(ARRAY['b'::character varying, 'a'::character varying])::text[]",
        "ARRAY[('b'::character varying)::text, ('a'::character varying)::text]",
    )
    for kind in ("TABLE", "PUBLICATION TABLE", "STATISTICS", "INDEX"):
        definition = "ON public.t (\n    b,\n    CHECK ((v = ANY ({})))\n)"
        assert equal(definition.format(dumped), definition.format(restored), kind)
        assert not equal(definition.format(dumped), definition.format(restored.replace("'b'", "'c'")), kind)
    reordered = definition.format("v").replace("\n    b,", "").replace(")))\n", "))),\n    b\n")
    assert equal(definition.format("v"), reordered, "TABLE")
