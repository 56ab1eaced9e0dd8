"""Definitions of two dumps, compared while the second one is read."""

from __future__ import annotations

from collections import Counter

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.objects import compare_objects, take_equal, toc_objects


def entry(name: str, definition: str, kind: str = "VIEW") -> TocEntry:
    return TocEntry(1, 0, 0, kind, "public", name, "app", definition)


def differences(dumped: list[TocEntry], restored: list[TocEntry]) -> dict[str, str]:
    """Return name and detail of each difference, the same whether equal objects are taken out before or not."""
    archived = toc_objects(dumped)
    found = {each.name: each.detail for each in compare_objects(archived, toc_objects(restored), definitions=True)}
    left, _ = take_equal(archived, restored)
    assert {each.name: each.detail for each in compare_objects(archived, left, definitions=True)}.keys() == found.keys()
    return found


def test_equal_objects_are_taken_from_both_sides() -> None:
    dumped = [entry("a", "SELECT 1"), entry("t", "x", "TABLE"), entry("t", "rows", "TABLE DATA")]
    archived = toc_objects(dumped)
    assert take_equal(archived, dumped) == ({}, Counter({"VIEW": 1, "TABLE": 1}))
    assert archived == {}


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
