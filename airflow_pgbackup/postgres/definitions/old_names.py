"""The names that pg_dump before version 11 gave to objects, for those that newer versions name otherwise.

It named a constraint without its table (until 9.5), a privilege without the kind of its object (until 10), and the
types of arguments without their schema (until 10.2). And it wrote what every new database has: the extension plpgsql
with its comment, and the privileges on schema public.
"""

from __future__ import annotations

import re

from airflow_pgbackup.postgres.definitions.objects import OF_PLPGSQL, Key, Objects

LAST = 10
"""The last major version of pg_dump with such names."""

_AFTER_TABLE_OR_KIND = frozenset(
    {"ACL", "CHECK CONSTRAINT", "CONSTRAINT", "DEFAULT", "FK CONSTRAINT", "POLICY", "RULE", "TRIGGER"}
)
_QUALIFIER = re.compile(r'(?<=[(, ])(?:"(?:[^"]|"")+"|[\w$]+)\.')
_OF_EVERY_DATABASE = OF_PLPGSQL | {("ACL", None, "public")}


def in_new_names(archived: Objects, restored: Objects) -> Objects:
    """Return the objects of an old dump under the names that the dump of its restore gives them.

    :param restored: the objects in the dump of its restore. What has none of their names keeps its own.
    """
    missing = [key for key in archived if key not in restored and key[1:] not in _OF_EVERY_DATABASE]
    wanted: dict[Key, list[Key]] = {key: [] for key in missing}
    for key in restored.keys() - archived.keys():
        for name in _old_names(key[1], key[3]):
            if (old := (key[0], key[1], key[2], name)) in wanted:
                wanted[old].append(key)
    found = {key: texts for key, texts in archived.items() if key in restored}
    for old, keys in wanted.items():
        # Names without their table may be several objects, as a trigger of the same name for each table.
        complete = keys and sum(len(restored[key]) for key in keys) >= len(archived[old])
        found |= dict.fromkeys(keys, ("",)) if complete else {old: archived[old]}
    return found


def _old_names(kind: str, name: str) -> set[str]:
    """Return what an old name may have been; a name may itself contain spaces."""
    names = {name}
    if kind in _AFTER_TABLE_OR_KIND:
        names |= {name[space.end() :] for space in re.finditer(" ", name)}
    return names | {_QUALIFIER.sub("", each) for each in names if "(" in each}
