"""How a dump is written: which options of pg_dump its definitions show."""

from __future__ import annotations

import pytest

from airflow_pgbackup.postgres.definitions.style import DumpStyle

BARE = "CREATE TABLE public.film (\n    id integer NOT NULL\n);"
QUOTED = 'CREATE TABLE "public"."film" (\n    "id" integer NOT NULL\n);'


def style(*texts: str) -> DumpStyle:
    found = DumpStyle()
    for text in texts:
        found.add(text)
    return found


@pytest.mark.parametrize(
    ("texts", "quoted"),
    [
        ([BARE], False),
        ([QUOTED], True),
        (['CREATE SCHEMA "s";', 'CREATE TYPE "s"."mood" AS ENUM (\n);'], True),
        (['CREATE UNLOGGED TABLE "s"."film" (\n    "id" integer\n);'], True),
        # Keywords, and names that need quotes.
        (['CREATE TABLE public."select" (\n    "from" integer\n);'], False),
        (['CREATE SCHEMA "user";', 'CREATE TABLE "user"."select" (\n    id integer\n);'], False),
        (['CREATE SCHEMA "Odd";', 'CREATE TABLE "Odd"."Table" (\n);'], False),
        ([QUOTED, BARE], False),
        ([], False),
    ],
)
def test_quotes_around_names_that_need_none(texts: list[str], quoted: bool) -> None:
    assert style(*texts).quotes_every_name is quoted


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql\n    AS 'select 1';", True),
        ("CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql IMMUTABLE\n    AS $$select 1$$;", False),
        ("CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE c STRICT\n    AS '$libdir/x', 'f';", False),
        ("CREATE PROCEDURE s.p()\n    LANGUAGE plpgsql\n    AS 'begin end';", True),
        ("CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql\n    AS $$select\n    AS '$$;", False),
    ],
)
def test_bodies_in_quotes(text: str, quoted: bool) -> None:
    assert style(text).quoted_bodies is quoted


def test_drops_comments_and_owners() -> None:
    found = style("DROP TABLE public.film;", "COMMENT ON TABLE public.film IS 'DROP TABLE IF EXISTS x';")
    assert (found.drops, found.if_exists, found.comments, found.owners) == (True, False, True, False)
    found = style("DROP DATABASE IF EXISTS app;")
    found.add_owner("-")
    assert (found.drops, found.if_exists, found.comments, found.owners) == (True, True, False, False)
    found.add_owner("alice")
    assert found.owners


@pytest.mark.parametrize(
    ("text", "money"),
    [
        ("CREATE TABLE public.film (\n    id integer,\n    price money NOT NULL\n);", {"film"}),
        ('CREATE TABLE "public"."film" (\n    "price" "money"\n);', {"film"}),
        ("CREATE UNLOGGED TABLE public.film (\n    prices money[]\n)\nPARTITION BY RANGE (id);", {"film"}),
        ("CREATE DOMAIN public.price AS money\n\tCONSTRAINT cheap CHECK ((VALUE < (5)::money));", {""}),
        ("CREATE TYPE public.priced AS (\n\tprice money\n);", {""}),
        ("CREATE TABLE public.film (\n    money numeric DEFAULT 5\n);", set()),
        ("CREATE VIEW public.v AS\n SELECT money\n   FROM public.film;", set()),
    ],
)
def test_values_of_type_money(text: str, money: set[str]) -> None:
    assert style(text).money == money
