"""The schemas that the objects of a dump use, and those that it creates: a dump of some tables does not create them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted

_BUILT_IN = frozenset({"", "public", "pg_catalog", "information_schema"})
_CREATED = re.compile(rf"CREATE SCHEMA ({IDENTIFIER});")
_OF_EXTENSION = re.compile(rf"CREATE EXTENSION (?:IF NOT EXISTS )?{IDENTIFIER} WITH SCHEMA ({IDENTIFIER});")
_QUALIFYING = re.compile(rf"({IDENTIFIER})\.")
_LINE_BREAK = re.compile(r"[\r\n]")
_NAMED_WITHIN = 1000  # characters of a statement


class SchemaUse:
    """Collects the schemas in a plain dump, from the comments before its objects and from its statements."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._created: set[str] = set()
        self._commented = ""

    def comment(self, schema: str) -> None:
        """Take the schema in the comment before an object, in which line breaks are spaces; '' without one."""
        self._add(self._commented)
        self._commented = schema

    def statement(self, text: str) -> None:
        """Take a statement."""
        if match := _CREATED.match(text):
            self._created.add(unquoted(match[1]))
        elif match := _OF_EXTENSION.match(text):
            self._add(unquoted(match[1]))
        elif " " in self._commented:
            for found in _QUALIFYING.finditer(text[:_NAMED_WITHIN]):
                name = unquoted(found[1])
                if _LINE_BREAK.sub(" ", name) == self._commented:
                    self._add(name)
                    self._commented = ""
                    break

    def missing(self) -> set[str]:
        """Return the schemas that are used and not created."""
        self._add(self._commented)
        return self._used - self._created

    @property
    def names(self) -> int:
        """Number of the names that are held."""
        return len(self._used) + len(self._created)

    def _add(self, schema: str) -> None:
        if schema not in _BUILT_IN:
            self._used.add(schema)


def schemas_missing_from(entries: Iterable[TocEntry]) -> set[str]:
    """Return the schemas that the objects of an archive use, and that it does not create."""
    used: set[str] = set()
    created: set[str] = set()
    for entry in entries:
        if entry.kind == "SCHEMA":
            created.add(entry.name)
        elif entry.kind == "EXTENSION" and (match := _OF_EXTENSION.match(entry.definition)):
            used.add(unquoted(match[1]))
        used.add(entry.schema or "")
    return used - created - _BUILT_IN
