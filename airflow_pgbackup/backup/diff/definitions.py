"""Definitions by object, as two tables of contents have them."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_pgbackup.backup.diff.contents import Contents
from airflow_pgbackup.backup.diff.result import ADDED, CHANGED, DROPPED, DefinitionChange, NotCompared
from airflow_pgbackup.postgres.definitions.objects import (
    OF_PLPGSQL,
    Key,
    Objects,
    changed_lines,
    may_show,
    same_but_names,
)
from airflow_pgbackup.quantities import counted

Texts = tuple[str, ...]

_ORDER = (DROPPED, ADDED, CHANGED)
_LINES = 5  # shown of each object, removed and added
_LINE = 200
_TABLES = ("TABLE", "FOREIGN TABLE")
_OF_DATABASE = ("DATABASE", "DATABASE PROPERTIES")


@dataclass(frozen=True)
class Definitions:
    """The differences of definitions.

    :param unchanged: how many are equal; None where they were not compared.
    """

    changes: tuple[DefinitionChange, ...]
    unchanged: int | None
    not_compared: tuple[NotCompared, ...]


def compare_definitions(
    before: Contents | str, after: Contents | str, versions: tuple[str, str], *, exactly: bool = True
) -> Definitions:
    """Compare every object that the tables of contents define.

    :param versions: major versions of the client and the server of each backup, for people. If they differ, only kinds
        and names are compared, because two major versions of pg_dump write the same definition differently.
    :param exactly: the order of columns and white space count; a restore may change them.
    """
    reasons = list(dict.fromkeys(toc for toc in (before, after) if isinstance(toc, str)))
    if isinstance(before, str) or isinstance(after, str):
        return Definitions((), None, (NotCompared("definitions", "; ".join(reasons)),))
    skipped: list[NotCompared] = []
    old, new = before.objects, after.objects
    if before.database != after.database:
        reason = f"the databases have different names, {before.database} and {after.database}"
        skipped.append(NotCompared("definition of the database itself", reason))
        old, new = _without_database(old, before.database), _without_database(new, after.database)
    texts = versions[0] == versions[1]
    if not texts:
        reason = f"dumped with {versions[0]} and {versions[1]}, which word the same definition differently"
        skipped.append(NotCompared("text of definitions", reason))
    changes = []
    for key in old.keys() | new.keys():
        if change := _compare(key, old.get(key), new.get(key), texts):
            changes.append(change)
        elif texts and exactly and old.get(key) == new.get(key) and before.digests.get(key) != after.digests.get(key):
            detail = "the order of its columns" if key[1] in _TABLES else "the order of its words, or white space"
            changes.append(DefinitionChange(CHANGED, *key[1:], detail))
    changes.sort(key=lambda one: (_ORDER.index(one.change), one.kind, one.schema or "", one.name))
    return Definitions(tuple(changes), len(old.keys() | new.keys()) - len(changes), tuple(skipped))


def _compare(key: Key, old: Texts | None, new: Texts | None, texts: bool) -> DefinitionChange | None:
    _, kind, schema, name = key
    if old is None or new is None:
        if key[1:] in OF_PLPGSQL:
            return None  # every new database has it, in its dump or not
        return DefinitionChange(ADDED if old is None else DROPPED, kind, schema, name)
    if old == new or (not texts and len(old) == len(new)):
        return None
    if not texts:
        return DefinitionChange(CHANGED, kind, schema, name, f"{len(old)} of this name, now {len(new)}")
    if same_but_names(kind, old, new) or same_but_names(kind, new, old):
        return None  # one of them was dumped after a restore
    return DefinitionChange(CHANGED, kind, schema, name, _detail(kind, old, new))


def _detail(kind: str, old: Texts, new: Texts) -> str:
    removed, added = changed_lines(old, new)
    count = max(removed.total(), added.total(), 1)
    if not may_show(kind):  # functions, user mappings and subscriptions may hold passwords
        return f"{counted(count, 'line')} changed"
    lines = [f"- {line.strip()[:_LINE]}" for line in list(removed.elements())[:_LINES]]
    lines += [f"+ {line.strip()[:_LINE]}" for line in list(added.elements())[:_LINES]]
    more = sum(max(0, side.total() - _LINES) for side in (removed, added))
    return "\n".join([*lines, *([f"… and {more} more lines"] if more else [])]) or "the order of its lines"


def _without_database(objects: Objects, name: str) -> Objects:
    quoted = name.replace('"', '""')
    own = (f"DATABASE {name}", f'DATABASE "{quoted}"')
    return {
        key: texts
        for key, texts in objects.items()
        if key[1] not in _OF_DATABASE and not (key[2] is None and key[3] in own)
    }
