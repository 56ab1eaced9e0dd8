"""Which sequences must have a value in a dump, by the options of the dump.

pg_dump writes the value of each sequence that it dumps, whether a table owns it or not, unless an option excludes all
data or a pattern of ``--exclude-table-data`` matches the sequence itself (``makeTableDataInfo`` in
``src/bin/pg_dump/pg_dump.c``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from airflow_pgbackup.postgres.sql.patterns import pattern_regexes

# Filter files are not in the manifest, and extra_args are of newer clients.
_UNKNOWN = ("filters", "extra_args")
_ESCAPED = re.compile(r"\\[|*+?()\[\]{}.^$\\]")
_WILDCARD = re.compile(r"\.\*?")
_OTHER_SYNTAX = frozenset("|*+?()[]{}^\\")


def requires_value(options: Mapping[str, object], *, adopted: bool) -> Callable[[str, str], bool]:
    """Return a function of schema and name that returns whether the dump must have the value of a sequence.

    It returns False also if the options do not decide that.

    :param options: of the dump's manifest.
    :param adopted: another program made the dump, and its options are not known.
    """
    sections = options.get("sections")
    without_data = options.get("schema_only") or options.get("no_data")
    if (
        adopted
        or any(options.get(name) for name in _UNKNOWN)
        or options.get("statistics_only")
        or (isinstance(sections, list) and sections and "data" not in sections)
        or (without_data and not options.get("sequence_data"))
    ):
        return lambda schema, name: False
    excluded = [_matcher(pattern) for pattern in _excluding(options)]
    return lambda schema, name: not any(matches(schema, name) for matches in excluded)


def _excluding(options: Mapping[str, object]) -> Iterator[str]:
    for name in ("exclude_table_data", "exclude_table_data_and_children"):
        patterns = options.get(name)
        yield from map(str, patterns if isinstance(patterns, (list, tuple)) else [patterns] if patterns else [])


def _matcher(pattern: str) -> Callable[[str, str], bool]:
    """Return a function that returns whether a pattern can match a schema and a name.

    Without a schema, the pattern matches names in the search path of the dump, which may be any schema.
    """
    regexes = pattern_regexes(pattern)
    if any(_OTHER_SYNTAX & set(_WILDCARD.sub("", _ESCAPED.sub("", regex[2:-2]))) for regex in regexes):
        return lambda schema, name: True  # only PostgreSQL reads its regular expressions
    *schemas, names = (re.compile(regex[2:-2], re.DOTALL | re.IGNORECASE) for regex in regexes)

    def matches(schema: str, name: str) -> bool:
        return bool(names.fullmatch(name)) and (not schemas or bool(schemas[-1].fullmatch(schema)))

    return matches
