"""Definitions of two dumps, compared while the second one is read."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_pgbackup.postgres.archive.toc import TocEntry, is_about
from airflow_pgbackup.postgres.definitions.objects import Objects, compare_objects, toc_objects, unequal


def entry(name: str, definition: str, kind: str = "VIEW") -> TocEntry:
    return TocEntry(1, 0, 0, kind, "public", name, "app", definition)


def differences(dumped: list[TocEntry], restored: list[TocEntry]) -> dict[str, str]:
    """Return name and detail of each difference, the same objects whether equal ones are taken out before or not."""
    both = toc_objects(dumped), toc_objects(restored)
    whole = {each.name: each.detail for each in compare_objects(*both, definitions=True)}
    archived, only_restored, _ = unequal(dumped, restored)
    found = {each.name: each.detail for each in compare_objects(archived, only_restored, definitions=True)}
    assert found.keys() == whole.keys()
    return found


def test_equal_objects_are_counted_and_held_by_neither_side() -> None:
    dumped = [entry("a", "SELECT 1"), entry("t", "x", "TABLE"), entry("t", "rows", "TABLE DATA")]
    expected: tuple[Objects, Objects, Counter[str]] = ({}, {}, Counter({"VIEW": 1, "TABLE": 1}))
    assert unequal(dumped, dumped) == expected
    assert unequal(dumped, reversed(dumped)) == expected


def test_objects_that_differ_are_missing_or_new_remain() -> None:
    dumped = [entry("same", "SELECT 1"), entry("differs", "SELECT 1"), entry("missing", "SELECT 1")]
    restored = [entry("new", "SELECT 1"), entry("same", "SELECT 1"), entry("differs", "SELECT 2")]
    found = differences(dumped, restored)
    assert found.keys() == {"differs", "missing", "new"}
    assert found["missing"] == "is missing after the restore"


def test_a_second_definition_after_an_equal_one_is_a_difference() -> None:
    one, two = entry("f", "SELECT 1"), entry("f", "SELECT 2")
    assert differences([one], [one, two]).keys() == {"f"}
    assert differences([one], [two, one]).keys() == {"f"}
    assert differences([one], [one, one]).keys() == {"f"}
    assert differences([one, two], [one]).keys() == {"f"}
    assert differences([one, two], [two, one]) == {}


@pytest.mark.parametrize(
    ("what", "kind", "schema", "name", "expected"),
    [
        ("DATABASE", "COMMENT", None, "DATABASE app", True),
        ("DATABASE", "TABLE", "public", "DATABASE app", False),
        ("DATABASE", "ACL", "public", "DATABASE app", False),  # the name in a dump by pg_dump 9 is the table's
        ("DATABASE", "SCHEMA", None, "DATABASE app", False),
        ("LARGE OBJECT", "ACL", None, "LARGE OBJECTS 1..3", True),
        ("LARGE OBJECT", "SECURITY LABEL", None, "LARGE OBJECT 1", True),
        ("LARGE OBJECT", "TABLE DATA", "public", "LARGE OBJECTS", False),
    ],
)
def test_what_an_entry_is_about(what: str, kind: str, schema: str | None, name: str, expected: bool) -> None:
    assert is_about(what, kind, schema, name) == expected


@pytest.mark.parametrize(
    ("dumped", "restored", "only_money"),
    [
        ("price money DEFAULT '$1.23'::money", "price money DEFAULT '$123.00'::money", True),
        ("""CHECK (price > '$1.23'::"money")""", """CHECK (price > '1,23 €'::"money")""", True),
        ("'a'::text, '{$1.23,$2.00}'::money[]", "'a'::text, '{$123.00,$200.00}'::money[]", True),
        (
            "\n    b money DEFAULT '$9.00'::money,\n    b int",
            "\n    b money DEFAULT '$900.00'::money,\n    b int",
            True,
        ),
        ("'a'::text, '$1.23'::money", "'b'::text, '$123.00'::money", False),
        ("'$1.23'::money", "'$1.23'::text", False),
        ("'$1.23'::moneys", "'$123.00'::moneys", False),
        ("DEFAULT 1", "DEFAULT 2", False),
    ],
)
@pytest.mark.parametrize("kind", ["TABLE", "DEFAULT"])
def test_definitions_that_differ_in_values_of_type_money(
    dumped: str, restored: str, only_money: bool, kind: str
) -> None:
    before, after = (toc_objects([entry("film", text, kind)]) for text in (dumped, restored))
    (found,) = compare_objects(before, after, definitions=True)
    assert found.only_money is only_money


@pytest.mark.parametrize(
    ("dumped", "restored", "money", "only_money"),
    [
        ("FROM ('$1.23') TO ('$2.00')", "FROM ('$123.00') TO ('$200.00')", "film", True),
        ("IN (NULL, '-$1.23')", "IN (NULL, '-$123.00')", "film", True),
        ("FROM ('$1.23', 1) TO ('$2.00', 1)", "FROM ('$123.00', 1) TO ('$200.00', 2)", "film", False),
        ("FROM ('$1.23') TO ('$2.00')", "FROM ('$123.00') TO (MAXVALUE)", "film", False),
        ("FROM ('$1.23') TO ('$2.00')", "FROM ('$123.00') TO ('$200.00')", "other", False),
    ],
)
def test_bounds_that_differ_in_values_of_type_money(dumped: str, restored: str, money: str, only_money: bool) -> None:
    attach = "ALTER TABLE ONLY public.p ATTACH PARTITION public.film FOR VALUES {};"
    before, after = (toc_objects([entry("film", attach.format(text), "TABLE ATTACH")]) for text in (dumped, restored))
    (found,) = compare_objects(before, after, definitions=True, money={(None, "public", money)})
    assert found.only_money is only_money


@pytest.mark.parametrize(
    ("dumped", "restored", "same"),
    [
        ("a int NOT NULL", "a int CONSTRAINT t_a_not_null1 NOT NULL", True),
        ('\n"a b" int NOT NULL,\nc int', '\nc int,\n"a b" int CONSTRAINT "t_a b_not_null12" NOT NULL', True),
        ("a int CONSTRAINT t_a_not_null1 NOT NULL", "a int NOT NULL", False),
        ("a int NOT NULL", "a int CONSTRAINT mine NOT NULL", False),
        ("a int", "a int CONSTRAINT t_a_not_null1 NOT NULL", False),
        ("a int NOT NULL", "a text CONSTRAINT t_a_not_null1 NOT NULL", False),
    ],
)
def test_names_that_the_server_gives_to_not_null_constraints(dumped: str, restored: str, same: bool) -> None:
    before, after = ([entry("t", text, "TABLE")] for text in (dumped, restored))
    assert (differences(before, after) == {}) is same
