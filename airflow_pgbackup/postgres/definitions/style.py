"""The options of pg_dump that change how definitions are written, found in what it wrote.

A dump of a restored copy is compared with the original dump, and so needs the same options. Of a dump that was made
without this package they are not known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted

DATABASE_NAME = "current_(database|catalog)"
"""A pattern, regardless of case, for what returns the name of the database: the meaning of a definition that contains
it changes if the database is restored under another name."""

_DATABASE_NAME = re.compile(DATABASE_NAME, re.IGNORECASE)
_CREATED = re.compile(
    r"CREATE (?:UNLOGGED |FOREIGN |MATERIALIZED )?"
    r"(?:AGGREGATE|DOMAIN|FUNCTION|PROCEDURE|SCHEMA|SEQUENCE|TABLE|TYPE|VIEW) "
    rf"(?P<first>{IDENTIFIER})(?:\.(?P<second>{IDENTIFIER}))?(?: \(\n    (?P<column>{IDENTIFIER}) )?"
)
_NEEDS_NO_QUOTES = re.compile(r'"[a-z_][a-z0-9_$]*"')
_TABLE = re.compile(r"CREATE (?:UNLOGGED )?TABLE ")
_MONEY = re.compile(rf'(?:\n\s+{IDENTIFIER}|\ACREATE DOMAIN .* AS) (?:"?pg_catalog"?\.)?"?money\b')
# dumpFunc() in src/bin/pg_dump/pg_dump.c; functions in C have the names of a file and a symbol.
_QUOTED_BODY = re.compile(r"CREATE (?:FUNCTION|PROCEDURE) .*?\n    LANGUAGE (?!\"?c\"?\b)[^\n]*\n    AS '", re.DOTALL)


@dataclass
class DumpStyle:
    """How a dump is written. Give it each definition.

    :ivar drops: it drops objects, roles or databases.
    :ivar if_exists: with IF EXISTS.
    :ivar owners: it has the owner of an object.
    :ivar comments: it has comments on objects.
    :ivar old_strings: it has a backslash twice in each string, for ``standard_conforming_strings = off``.
    :ivar money: the names of tables with columns of type money, '' for other types that contain it.
    :ivar generated: a table has a generated column.
    :ivar uses_database_name: a definition, such as a view or a function, uses the name of the database.
    :ivar quoted_bodies: the body of a function is in quotes, not in dollar quotes.
    """

    drops: bool = False
    if_exists: bool = False
    owners: bool = False
    comments: bool = False
    quoted_bodies: bool = False
    generated: bool = False
    uses_database_name: bool = False
    old_strings: bool = False
    money: set[str] = field(default_factory=set)
    _quoted: bool = False
    _bare: bool = False

    @property
    def quotes_every_name(self) -> bool:
        """Whether it quotes names that need no quotes. A keyword needs them, so one bare name decides."""
        return self._quoted and not self._bare

    def add_owner(self, owner: str) -> None:
        """Take the owner in the comment before an object; ``-`` stands for none."""
        self.owners |= owner not in ("", "-")

    def add(self, text: str) -> None:
        """Take a statement, or the definition of an entry in a table of contents."""
        self.uses_database_name = self.uses_database_name or _DATABASE_NAME.search(text) is not None
        if text.startswith("DROP "):
            self.drops = True
            self.if_exists |= " IF EXISTS " in text
        elif text.startswith("COMMENT ON "):
            self.comments = True
        elif text.startswith("SET standard_conforming_strings = "):
            self.old_strings |= "off" in text
        elif match := _CREATED.match(text):
            names = [name for name in match.group("first", "second", "column") if name]
            self._bare |= any(not name.startswith('"') for name in names)
            self._quoted |= any(map(_NEEDS_NO_QUOTES.fullmatch, names))
            if _MONEY.search(text):
                self.money.add(unquoted(match["second"] or match["first"]) if _TABLE.match(text) else "")
            self.generated |= " GENERATED ALWAYS AS (" in text
            self.quoted_bodies = self.quoted_bodies or _QUOTED_BODY.match(text) is not None
