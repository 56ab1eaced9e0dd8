"""The request for a part of a database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airflow_pgbackup.backup.subset.plan import SubsetPlan
from airflow_pgbackup.backup.subset.selection import TABLE_KINDS, RowSelection, Table
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.archive.toc import Toc
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted
from airflow_pgbackup.postgres.sql.anybytes import is_utf8
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import parameter

_FIELDS = ("where", "schemas", "tables", "exclude_tables")
_COPY = re.compile(rf"COPY ({IDENTIFIER})\.({IDENTIFIER})[ (]")
_MOST = 10_000
_LONGEST_WHERE = 100_000  # characters
_LONGEST_PATTERN = 1_000
_MOST_WILDCARDS = 8


@dataclass(frozen=True)
class Subset:
    """Some schemas and tables of a database, and some of their rows.

    Patterns are those of ``pg_dump --table``: letters outside double quotes are folded to lower case, ``*`` and ``?``
    are wildcards. Those of tables have two parts, ``public.orders``.

    :param where: an SQL expression for each pattern of tables: rows for which it is not true are left out, also in
        partitions and tables that inherit. It sees one row, as it was dumped, before masking; it cannot contain
        subqueries, and names of your own functions and operators need their schema. Rows of other tables that
        reference rows left out, by a foreign key, are left out too, and so on.
    :param schemas: patterns of schemas whose tables are restored.
    :param tables: patterns of tables that are restored, with their partitions. Without `schemas` and `tables`: all.
    :param exclude_tables: patterns of tables that are not restored. To restore a table without rows, give it the
        `where` ``false``.
    :raises ConfigurationError: one of them has the wrong type or form.
    """

    where: Mapping[str, str] = field(default_factory=dict)
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.where, Mapping):
            raise _invalid("where", "a mapping of tables to SQL expressions")
        object.__setattr__(self, "where", dict(self.where))
        for name in ("schemas", "tables", "exclude_tables"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise _invalid(name, "a list of patterns")
            object.__setattr__(self, name, tuple(value))
        for name in _FIELDS:
            patterns = tuple(getattr(self, name))
            if len(patterns) > _MOST:
                raise _invalid(name, f"at most {_MOST:,} patterns")
            for pattern in patterns:
                _regexes(name, pattern)
        for pattern, text in self.where.items():
            if not (
                isinstance(text, str)
                and text.strip()
                and "\0" not in text
                and is_utf8(text)
                and len(text) <= _LONGEST_WHERE
            ):
                raise ConfigurationError(
                    f"the where of {pattern} is not an SQL expression",
                    hint=f'Give text of at most {_LONGEST_WHERE:,} characters, such as "total > 100".',
                )

    @classmethod
    def of(cls, value: Mapping[str, object]) -> Subset:
        """Return the subset for a mapping with the names of the parameters as keys, as operators and files have it.

        :raises ConfigurationError: another key, or an invalid value.
        """
        if unknown := sorted(str(key) for key in value if key not in _FIELDS):
            raise ConfigurationError(
                f"a subset has no {unknown[0]!r}", hint=f"A subset consists of {', '.join(_FIELDS)}."
            )
        return cls(**value)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return any(getattr(self, name) for name in _FIELDS)

    def plan(self, toc: Toc) -> SubsetPlan:
        """Find out what to restore of an archive.

        :raises ConfigurationError: a pattern matches nothing in the archive, or a table has two expressions, or has one
            and is not selected, or rows can be loaded only through a table that is not selected.
        """
        kinds = {Table.of(entry): entry.kind for entry in toc.entries if entry.kind in TABLE_KINDS}
        tables = sorted(kinds)
        matched = {name: self._matched(name, tables) for name in _FIELDS[1:]}
        matched["where"] = self._matched("where", [table for table in tables if kinds[table] == "TABLE"])
        unmatched = [f"{name} {key}" for name in _FIELDS for key, found in matched[name].items() if not found]
        if unmatched:
            raise ConfigurationError(
                f"no table of the backup matches {first_of(unmatched, 10)}",
                hint="Write schema.table, with names in double quotes that have capitals or other special characters; "
                "pg_restore --list shows what the backup has.",
            )
        chosen = set(tables)
        if self.schemas or self.tables:
            chosen = {table for name in ("schemas", "tables") for found in matched[name].values() for table in found}
        excluded = {table for found in matched["exclude_tables"].values() for table in found}
        selection = RowSelection(toc.entries, chosen, excluded)
        _check_roots(selection)
        return SubsetPlan(selection, self._expressions(matched["where"], selection))

    def _expressions(self, matched: Mapping[str, list[Table]], selection: RowSelection) -> dict[Table, str]:
        """Return the expression for each selected table; partitions have that of their table."""
        where: dict[Table, str] = {}
        for pattern, found in matched.items():
            tables = [table for table in found if table in selection.tables]
            if not tables:
                raise ConfigurationError(
                    f"rows of {found[0]} are selected, but the table is not",
                    hint="Select the table too, or remove its expression.",
                )
            for table in tables:
                if selection.partitions.parent(table) in tables:
                    continue
                if table in where:
                    raise ConfigurationError(
                        f"two expressions are given for the rows of {table}", hint="Combine them with AND."
                    )
                where[table] = self.where[pattern]
        return where

    def _matched(self, name: str, tables: list[Table]) -> dict[str, list[Table]]:
        found = {}
        for pattern in getattr(self, name):
            regexes = _regexes(name, pattern)
            found[pattern] = [
                table
                for table in tables
                if all(regex.fullmatch(part) for regex, part in zip(regexes, table, strict=False))
            ]
        return found


def _check_roots(selection: RowSelection) -> None:
    """Check that rows of partitions can be loaded, which a dump can have as rows of their partitioned table.

    :raises ConfigurationError: that table is not selected.
    """
    for entry in selection.entries:
        if entry.dump_id in selection.kept and entry.kind == "TABLE DATA":
            match = _COPY.match(entry.copy_statement or "")
            into = Table(unquoted(match[1]), unquoted(match[2])) if match else None
            if into in selection.missing:
                raise ConfigurationError(
                    f"the backup has the rows of {Table.of(entry)} as rows of {into}, which is not selected",
                    hint=f"Select {into} too: the backup was made with load_via_partition_root.",
                )


def _regexes(name: str, pattern: object) -> list[re.Pattern[str]]:
    """Return the regular expressions of the parts of a pattern.

    :raises ConfigurationError: it has another number of parts.
    """
    parts = 1 if name == "schemas" else 2
    wanted = "a schema" if parts == 1 else "schema.table"
    if not isinstance(pattern, str) or not 0 < len(pattern) <= _LONGEST_PATTERN:
        raise _invalid(name, f"patterns of the form {wanted}")
    try:
        # Without the ^ and $ of the server's expressions: $ also matches before a line end.
        regexes = [re.compile(regex[1:-1], re.DOTALL) for regex in pattern_regexes(pattern)]
    except re.error as error:
        raise ConfigurationError(f"invalid pattern {pattern!r} in {parameter(name)}: {error}") from None
    if (
        len(regexes) != parts
        or sum(map(pattern.count, "*?+{")) > _MOST_WILDCARDS
        or any(regex.pattern == "()" for regex in regexes)
    ):
        raise ConfigurationError(
            f"invalid pattern {pattern!r} in {parameter(name)}",
            hint=f"Write {wanted}, with at most {_MOST_WILDCARDS} wildcards, and with names in double quotes that have "
            "dots, capitals or other special characters.",
        )
    return regexes


def _invalid(name: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"invalid {parameter(name)} of a subset", hint=f"Give {wanted}.")
