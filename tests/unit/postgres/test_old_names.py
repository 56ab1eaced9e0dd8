"""The names of objects in dumps by pg_dump before version 11."""

from __future__ import annotations

import pytest

from airflow_pgbackup.postgres.definitions.objects import Objects, compare_objects
from airflow_pgbackup.postgres.definitions.old_names import in_new_names

TRIGGERS = ("on actor", "on film")


def differing(archived: Objects, restored: Objects) -> list[str]:
    found = compare_objects(in_new_names(archived, restored), restored, definitions=False)
    return [f"{each.kind} {each.label}" for each in found]


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("CONSTRAINT", "film_pkey", "film film_pkey"),
        ("FK CONSTRAINT", "a key", "a table a key"),
        ("ACL", "film", "TABLE film"),
        ("FUNCTION", "f(mood, integer)", "f(public.mood, integer)"),
        ("ACL", "f(mood)", 'FUNCTION f("Odd schema".mood)'),
        ("COMMENT", "FUNCTION f(mood)", "FUNCTION f(public.mood)"),
        ("TABLE", "film", "film"),
    ],
)
def test_an_old_name(kind: str, old: str, new: str) -> None:
    archived, restored = ({(None, kind, "public", name): ("text",)} for name in (old, new))
    assert differing(archived, restored) == []
    assert differing(archived, {}) == [f"{kind} public.{old}"]


def test_triggers_of_the_same_name() -> None:
    archived: Objects = {(None, "TRIGGER", "public", "changed"): TRIGGERS}
    restored: Objects = {(None, "TRIGGER", "public", f"{table} changed"): ("",) for table in ("actor", "film")}
    assert differing(archived, restored) == []
    restored.popitem()
    assert differing(archived, restored) == ["TRIGGER public.changed"]


def test_what_every_new_database_has() -> None:
    names = [("EXTENSION", "plpgsql"), ("COMMENT", "EXTENSION plpgsql"), ("ACL", "public")]
    assert differing({(None, kind, None, name): ("text",) for kind, name in names}, {}) == []


def test_a_table_is_not_another_one() -> None:
    archived: Objects = {(None, "TABLE", "public", "film"): ("",)}
    assert differing(archived, {(None, "TABLE", "public", "old film"): ("",)}) == ["TABLE public.film"]
