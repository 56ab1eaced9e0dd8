"""The locale and the tablespace in a CREATE DATABASE statement of a dump, and the same statement with others.

Locales are names of the operating system or of ICU, and not every server knows those of another one: a dump made on
Windows has ``LC_COLLATE = 'English_United States.1252'``. dumpDatabase() in src/bin/pg_dump/pg_dump.c writes them.
"""

from __future__ import annotations

import re
from dataclasses import replace

from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted

_OPTION = re.compile(
    r" (LOCALE_PROVIDER|LOCALE|LC_COLLATE|LC_CTYPE|ICU_LOCALE|ICU_RULES|BUILTIN_LOCALE)"
    r" = (?:E?'((?:[^']|'')*)'|(\w+))"
)
_NOT_NAMES = ("LOCALE_PROVIDER", "ICU_RULES")
_TABLESPACE = re.compile(rf" TABLESPACE = ({IDENTIFIER});?\s*\Z")  # the last option
_OWNER_AND_PLACE = re.compile(r' (?:OWNER|TABLESPACE) = (?:"(?:[^"]|"")+"|\w+)')


def locale_options(create: DatabaseStatement) -> dict[str, str]:
    """Return the options of a CREATE DATABASE that set its locale, with their values."""
    return {match[1]: match[3] or match[2].replace("''", "'") for match in _OPTION.finditer(create.rest)}


def locale_name(create: DatabaseStatement) -> str:
    """Return the locale of a CREATE DATABASE as a message names it; '' if it has none."""
    names = [value for option, value in locale_options(create).items() if option not in _NOT_NAMES]
    return ", ".join(dict.fromkeys(names))


def in_locale_c(create: DatabaseStatement) -> DatabaseStatement:
    """Return the statement with locale C instead, which exists on every server and works with every encoding."""
    options = _OPTION.sub("", create.rest).rstrip().rstrip(";")
    provider = " LOCALE_PROVIDER = libc" * ("LOCALE_PROVIDER" in locale_options(create))  # since version 15
    return replace(create, rest=f"{options}{provider} LC_COLLATE = 'C' LC_CTYPE = 'C';")


def without_owner_and_tablespace(create: DatabaseStatement) -> DatabaseStatement:
    """Return a CREATE DATABASE that needs no role and no tablespace."""
    return replace(create, rest=_OWNER_AND_PLACE.sub("", create.rest))


def tablespace(create: DatabaseStatement) -> str | None:
    """Return the default tablespace of a CREATE DATABASE; None if it names none."""
    match = _TABLESPACE.search(create.rest)
    return match and unquoted(match[1])


def without_tablespace(create: DatabaseStatement) -> DatabaseStatement:
    """Return a CREATE DATABASE that needs no tablespace."""
    return replace(create, rest=_TABLESPACE.sub(";", create.rest))
