"""Whether the order in which a restore fills tables decides if it succeeds, or what it restores.

CHECK constraints, generated columns and partition keys are evaluated for each row that is restored. If they call
functions that read tables, those must have been filled before. One job fills tables in the order of the archive,
several jobs in an order that is left to chance.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.function_body import Name, Token, mentions, tokens

# A CHECK CONSTRAINT entry of its own is created after all rows.
_KINDS = ("TABLE", "DOMAIN")
_EVALUATED = re.compile(r"\bCHECK \(|\bGENERATED ALWAYS AS \(|\bPARTITION BY ")
_LANGUAGE = re.compile(r'\bLANGUAGE "?(\w+)')
_READABLE = ("sql", "plpgsql")
_WITHOUT_SQL = ("c", "internal")
_CATALOGS = ("pg_catalog", "information_schema")


def depends_on_order(entries: Collection[TocEntry]) -> bool:
    """Return whether the dump has functions that read tables, and that it runs for rows while they are restored.

    Names are compared without their schemas. What cannot be known counts as reading: dynamic SQL, and functions in
    languages other than SQL, PL/pgSQL and C.
    """
    evaluated = [
        entry.definition[match.start() :]
        for entry in entries
        if entry.kind in _KINDS and (match := _EVALUATED.search(entry.definition))
    ]
    if not evaluated:
        return False
    functions: dict[str, list[str]] = defaultdict(list)
    waiting = {name for text in evaluated for name in _called(mentions(text).functions)}
    for entry in entries:
        if entry.kind == "FUNCTION":
            functions[_name(entry)].append(entry.definition)
        elif entry.kind in ("OPERATOR", "CAST"):  # an expression may use any of them
            waiting |= {token.text for token in tokens(entry.definition) if token.is_name}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for definition in functions.get(name, ()):
            called = _called_unless_it_reads(definition)
            if called is None:
                return True
            waiting |= called - seen
    return False


def _name(entry: TocEntry) -> str:
    """Return the name of a function, without its arguments."""
    return next(tokens(entry.name), Token("name", "")).text


def _called(names: Collection[Name]) -> set[str]:
    return {name for _, name in names}


def _called_unless_it_reads(definition: str) -> set[str] | None:
    """Return the names of the functions that a function calls; None if it reads a table or may do so."""
    language = _LANGUAGE.search(definition)
    if language and language[1] in _WITHOUT_SQL:
        return set()
    if language is None or language[1] not in _READABLE:
        return None
    called: set[str] = set()
    for text in (definition, *_strings(definition)):
        found = mentions(text)
        if any(schema not in _CATALOGS for schema, _ in found.tables):
            return None
        if any(token.kind == "name" and token.text == "execute" for token in tokens(text)):
            return None
        called |= _called(found.functions)
    return called


def _strings(definition: str) -> Iterator[str]:
    """Yield the contents of strings: one is the body, unless that is in standard SQL (BEGIN ATOMIC)."""
    for token in tokens(definition):
        if token.kind == "string":
            quoted = re.fullmatch(r"[eE]?'(.*)'", token.text, re.DOTALL)
            yield quoted[1].replace("''", "'") if quoted else token.text
