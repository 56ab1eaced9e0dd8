"""Definitions of two dumps, compared while the second one is read."""

from __future__ import annotations

from collections import Counter

from airflow_pgbackup.postgres.archive.toc import TocEntry
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
