"""Unique columns and foreign keys: of a live database, or as the definitions of an archive name them.

An archive's constraints are restored after its data, so while rows are masked the catalog does not have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.postgres.definitions.identifiers import unquoted

if TYPE_CHECKING:
    import psycopg

Key = tuple[str, str, str]
"""Schema, table and column."""

_NAME = r'(?:"(?:[^"]|"")+"|[^\s".,();]+)'
_QUALIFIED = rf"({_NAME})\.({_NAME})"
_LIST = r"\(((?:[^()\"]|\"(?:[^\"]|\"\")*\")*)\)"
_CONSTRAINT = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_QUALIFIED}\s+ADD CONSTRAINT ({_NAME}) "
    rf"(?:UNIQUE(?: NULLS NOT DISTINCT)?|PRIMARY KEY) {_LIST}"
)
_FOREIGN_KEY = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_QUALIFIED}\s+ADD CONSTRAINT ({_NAME}) FOREIGN KEY {_LIST} REFERENCES {_QUALIFIED}{_LIST}"
)
_UNIQUE_INDEX = re.compile(rf"CREATE UNIQUE INDEX ({_NAME}) ON (?:ONLY )?{_QUALIFIED} USING {_NAME} \((.*)", re.DOTALL)
_EXCLUSION = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_QUALIFIED}\s+ADD CONSTRAINT ({_NAME}) EXCLUDE USING {_NAME} \((.*)", re.DOTALL
)
_WORD = re.compile(r"'(?:[^']|'')*'|" + f"({_NAME})")

_UNIQUE_QUERY = """
    SELECT n.nspname, t.relname, i.relname,
        array(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = x.indrelid AND a.attnum > 0
            AND (a.attnum = ANY (x.indkey[0:x.indnkeyatts - 1]) OR EXISTS (
                SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid = x.indrelid AND d.refobjsubid = a.attnum
                AND x.indexprs IS NOT NULL)))
    FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE x.indisunique AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_FOREIGN_KEY_QUERY = """
    SELECT n.nspname, t.relname, f.conname,
        array(SELECT a.attname FROM unnest(f.conkey) WITH ORDINALITY k(n, i)
            JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.n ORDER BY i),
        m.nspname, r.relname,
        array(SELECT a.attname FROM unnest(f.confkey) WITH ORDINALITY k(n, i)
            JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.n ORDER BY i)
    FROM pg_constraint f JOIN pg_class t ON t.oid = f.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_class r ON r.oid = f.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
    WHERE f.contype = 'f' AND t.relpersistence <> 't'
"""
_CHECK_QUERY = """
    SELECT n.nspname, t.relname, c.conname, a.attname
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (c.conkey)
    WHERE c.contype = 'c'
    UNION ALL
    SELECT n.nspname, t.relname, c.conname, a.attname
    FROM pg_constraint c JOIN pg_attribute a ON a.atttypid = c.contypid JOIN pg_class t ON t.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE c.contypid <> 0 AND t.relkind IN ('r', 'p')
"""


@dataclass
class Constraints:
    """What must hold for masked rows too.

    :ivar unique: the columns of each unique index or constraint.
    :ivar references: for each column of a foreign key the one that it refers to.
    :ivar named: the columns of each constraint and unique index by its name, for the hint of an error.
    """

    unique: set[tuple[Key, ...]] = field(default_factory=set)
    references: set[tuple[Key, Key]] = field(default_factory=set)
    named: dict[str, set[Key]] = field(default_factory=dict)

    def add_unique(self, name: str, columns: Iterable[Key]) -> None:
        keys = tuple(columns)
        self.unique.add(keys)
        self.named.setdefault(name, set()).update(keys)

    def add_reference(self, name: str, columns: Iterable[tuple[Key, Key]]) -> None:
        for pair in columns:
            self.references.add(pair)
            self.named.setdefault(name, set()).update(pair)

    def read_database(self, connection: psycopg.Connection[Any]) -> None:
        """Add those of a database's catalog."""
        for schema, table, name, columns in connection.execute(_UNIQUE_QUERY):
            self.add_unique(name, [(schema, table, column) for column in columns])
        for schema, table, name, columns, other_schema, other, others in connection.execute(_FOREIGN_KEY_QUERY):
            ours = [(schema, table, column) for column in columns]
            theirs = [(other_schema, other, column) for column in others]
            self.add_reference(name, zip(ours, theirs, strict=True))
        for schema, table, name, column in connection.execute(_CHECK_QUERY):
            self.named.setdefault(name, set()).add((schema, table, column))

    def read_definitions(self, definitions: Iterable[str]) -> None:
        """Add those of SQL as pg_dump writes it for ``CONSTRAINT``, ``INDEX`` and ``FK CONSTRAINT`` entries."""
        for text in definitions:
            if match := _CONSTRAINT.search(text):
                schema, table, name = map(unquoted, match.groups()[:3])
                self.add_unique(name, [(schema, table, each) for each in _names(match[4])])
            elif match := _FOREIGN_KEY.search(text):
                schema, table, name, columns, other_schema, other, others = match.groups()
                ours = [(unquoted(schema), unquoted(table), each) for each in _names(columns)]
                theirs = [(unquoted(other_schema), unquoted(other), each) for each in _names(others)]
                self.add_reference(unquoted(name), zip(ours, theirs, strict=False))
            elif match := _UNIQUE_INDEX.search(text):
                name, schema, table = map(unquoted, match.groups()[:3])
                # Of an expression all words; those that are no columns of the table do no harm.
                self.add_unique(name, [(schema, table, each) for each in _words(match[4])])
            elif match := _EXCLUSION.search(text):
                schema, table, name = map(unquoted, match.groups()[:3])
                self.named.setdefault(name, set()).update((schema, table, each) for each in _words(match[4]))


def _names(text: str) -> list[str]:
    return [unquoted(match[1]) for match in re.finditer(rf"({_NAME})(?:\s[^,]*)?", text)]


def _words(text: str) -> list[str]:
    return [unquoted(each[1]) for each in _WORD.finditer(_in_parentheses(text)) if each[1]]


def _in_parentheses(text: str) -> str:
    """Return `text` up to the parenthesis that closes a group which was opened just before `text`."""
    depth = 1
    for match in re.finditer(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()]""", text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return text[: match.start()]
    return text
