"""Masking rules as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from airflow_pgbackup.backup.masking.pattern import ColumnPattern
from airflow_pgbackup.yaml_mapping.problem import Origin

Method = Literal["keep", "null", "fixed", "hash", "fake", "shift", "generalize", "sql"]

FAKES = (
    *("name", "first_name", "last_name", "email", "username", "phone"),
    *("address", "street", "city", "postcode", "state", "country", "company", "job", "text"),
    *("iban", "credit_card", "ip", "uuid", "url"),
)
"""What ``fake`` can make."""

UNITS = ("hour", "day", "week", "month", "quarter", "year", "decade")
"""To what ``generalize`` can round dates and times, as ``date_trunc``."""


@dataclass(frozen=True)
class Rule:
    """What happens to the values of a column.

    :param fake: of ``fake``: one of :data:`FAKES`.
    :param text: of ``fixed``: the value as PostgreSQL reads it; of ``sql``: the expression.
    :param length: of ``hash``: hexadecimal digits; of ``generalize``: characters that are left of a text.
    :param days: of ``shift``: how far at most, in either direction.
    :param by: of ``shift``: the column of the same table whose value decides how far.
    :param unit: of ``generalize``: one of :data:`UNITS`.
    :param bucket: of ``generalize``: the width of a bucket of numbers.
    """

    method: Method
    fake: str = ""
    text: str = ""
    length: int = 0
    days: int = 0
    by: str = ""
    unit: str = ""
    bucket: str = ""

    def __str__(self) -> str:
        """Return ``fake email``, as messages name it."""
        about = self.fake or self.unit or self.bucket
        return f"{self.method} {about}" if about else self.method


@dataclass(frozen=True)
class MaskingRules:
    """The rules of a file.

    :param columns: in the order of the file.
    :param locales: of the fakes, as Faker names them.
    :param keep_large_objects: whether the copy has the large objects, which no rule can mask.
    :param require_tables: whether a table of which no column has a rule is an error.
    :param samples: how many values of each masked column are looked for in the copy; 0: none.
    :param may_contain: columns in which those values may be found.
    :param may_be_unused: patterns that need not fit a column, as of a subset they may fit what is left out.
    :param parents: by partition the table it belongs to, as a subset can have the partition without that table.
    :param origin: the lines of the file.
    """

    columns: tuple[tuple[ColumnPattern, Rule], ...]
    locales: tuple[str, ...] = ("en_US",)
    keep_large_objects: bool = False
    require_tables: bool = False
    samples: int = 100
    may_contain: tuple[ColumnPattern, ...] = ()
    may_be_unused: frozenset[ColumnPattern] = frozenset()
    parents: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict, compare=False, repr=False)
    origin: Origin = field(default_factory=Origin, compare=False, repr=False)

    def matching(self, schema: str, table: str, column: str) -> Iterator[tuple[ColumnPattern, Rule]]:
        """Yield the rules that fit a column."""
        yield from self._exact.get((schema, table, column), ())
        for pattern, rule in self._wildcards:
            if pattern.matches(schema, table, column):
                yield pattern, rule

    @cached_property
    def _exact(self) -> dict[tuple[str, ...], list[tuple[ColumnPattern, Rule]]]:
        """The rules without wildcards, of which a file can have thousands, by column."""
        found: dict[tuple[str, ...], list[tuple[ColumnPattern, Rule]]] = {}
        for pattern, rule in self.columns:
            if pattern.exact:
                found.setdefault(pattern.names, []).append((pattern, rule))
        return found

    @cached_property
    def _wildcards(self) -> list[tuple[ColumnPattern, Rule]]:
        return [(pattern, rule) for pattern, rule in self.columns if not pattern.exact]
