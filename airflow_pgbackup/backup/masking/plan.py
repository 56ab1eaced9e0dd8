"""Decide which rule each column of a database gets, and report rules that cannot be applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from airflow_pgbackup.backup.masking.columns import Column, Table, name_text
from airflow_pgbackup.backup.masking.constraints import Constraints, Key
from airflow_pgbackup.backup.masking.expressions import expression
from airflow_pgbackup.backup.masking.masked_column import Masked, Misfit, masks_agree
from airflow_pgbackup.backup.masking.pattern import ColumnPattern
from airflow_pgbackup.backup.masking.rules import MaskingRules, Rule
from airflow_pgbackup.yaml_mapping.problem import Problem

_KEEP = Rule("keep")


@dataclass(frozen=True)
class MaskingPlan:
    """The rules at work.

    :param tables: those that have rows of their own, with the masked columns of each: whose rule is not ``keep``.
    :param columns: the masked columns by name, those of partitioned tables too.
    :param rules: by column; that of a column without one is missing.
    :param explicit: columns whose rule names them without wildcards, or names those of a parent.
    :param unused: patterns that fit no column.
    :param problems: why the rules cannot hold; empty if they can. They include ``unused``.
    """

    tables: Sequence[tuple[Table, Sequence[Masked]]]
    columns: Mapping[Key, Masked]
    rules: Mapping[Key, Rule]
    explicit: AbstractSet[Key]
    unused: Sequence[ColumnPattern]
    problems: Sequence[Problem]

    def masked(self) -> Iterator[Masked]:
        """Yield all masked columns."""
        for _, columns in self.tables:
            yield from columns


def make_plan(rules: MaskingRules, tables: Mapping[int, Table], constraints: Constraints) -> MaskingPlan:
    """Find the rule of every column.

    Of several patterns that fit a column, the most exact one counts. A partition or inherited table has the rules of
    its parents, besides those for its own name.
    """
    return _Planner(rules, tables, constraints).plan()


class _Planner:
    def __init__(self, rules: MaskingRules, tables: Mapping[int, Table], constraints: Constraints) -> None:
        self._rules = rules
        self._tables = tables
        self._by_name = {(table.schema, table.name): table for table in tables.values()}
        self._constraints = constraints
        self._problems: list[Problem] = []
        self._columns: dict[Key, Column] = {}
        self._assigned: dict[Key, Rule] = {}
        self._used: set[ColumnPattern] = set()
        self._explicit: set[Key] = set()

    def plan(self) -> MaskingPlan:
        for table in self._tables.values():
            self._assign(table)
        known = self._used | self._rules.may_be_unused
        unused = [pattern for pattern, _ in self._rules.columns if pattern not in known]
        for pattern in unused:
            self._problem(("columns", pattern.text), "no such column")
        self._check_references()
        masked = self._masked()
        for each in masked.values():
            self._check(each)
        tables = [
            (table, [masked[column.key] for column in table.columns if column.key in masked])
            for table in self._tables.values()
        ]
        return MaskingPlan(
            [(table, columns) for table, columns in tables if columns and not table.partitioned],
            masked,
            self._assigned,
            self._explicit,
            unused,
            self._problems,
        )

    def _problem(self, path: tuple[str | int, ...], text: str) -> None:
        self._problems.append(Problem(path, text))

    def _assign(self, table: Table) -> None:
        generations = self._generations(table)
        found: dict[Column, Rule | None] = {}
        for column in table.columns:
            self._columns[column.key] = column
            # Wildcards are not meant for what the server computes, nor for what an extension brings.
            found[column] = self._rule(column, generations, column.generated or table.exempt)
        if not any(found.values()):
            if self._rules.require_tables and not table.exempt and table.columns:
                self._problem((), f"{table}: no column has a rule, and tables_without_rules is fail")
            return
        for column, rule in found.items():
            if rule is not None:
                self._assigned[column.key] = rule
            elif not column.generated:
                self._problem((), f"{column}: no rule, but other columns of its table have one; add keep or another")

    def _generations(self, table: Table) -> list[list[tuple[str, str]]]:
        """Return the names of a table, of its parents, of their parents."""
        found: list[list[tuple[str, str]]] = []
        seen: set[tuple[str, str]] = set()
        names = [(table.schema, table.name)]
        while names:
            found.append(names)
            seen.update(names)
            above = dict.fromkeys(parent for name in names for parent in self._parents(name))
            names = [name for name in above if name not in seen]
        return found

    def _parents(self, name: tuple[str, str]) -> Iterator[tuple[str, str]]:
        table = self._by_name.get(name)
        for parent in map(self._tables.get, table.parents if table else ()):
            if parent:
                yield (parent.schema, parent.name)
        if name in self._rules.parents:
            yield self._rules.parents[name]

    def _rule(self, column: Column, generations: Iterable[Iterable[tuple[str, str]]], exact_only: bool) -> Rule | None:
        best: list[tuple[ColumnPattern, Rule]] = []
        for names in generations:  # of equal patterns, those for the table itself come before those for its parents
            fitting = [each for schema, table in names for each in self._rules.matching(schema, table, column.name)]
            if exact_only:
                fitting = [each for each in fitting if each[0].exact]
            self._used.update(pattern for pattern, _ in fitting)
            if ahead := [each for each in fitting if all(each[0].counts_before(other) for other, _ in best)]:
                best = [each for each in ahead if not any(other.counts_before(each[0]) for other, _ in ahead)]
        if not best:
            return None
        if best[0][0].exact:
            self._explicit.add(column.key)
        if any(rule != best[0][1] for _, rule in best):
            others = ", ".join(dict.fromkeys(pattern.text for pattern, rule in best if rule != best[0][1]))
            self._problem(("columns", best[0][0].text), f"{column} has another rule by {others}; write one for itself")
        return best[0][1]

    def _check_references(self) -> None:
        """A foreign key holds only if both columns have the same masks."""
        for key, other_key in sorted(self._constraints.references):
            column, other = self._columns.get(key), self._columns.get(other_key)
            if column is None or other is None:
                continue
            rule, other_rule = self._assigned.get(key, _KEEP), self._assigned.get(other_key, _KEEP)
            if rule.method == "null" or rule == other_rule == _KEEP:
                continue
            if rule != other_rule:
                self._problem((), f"{column} ({rule}) refers to {other} ({other_rule}); both need the same rule")
            elif rule.method not in ("fixed", "sql") and not masks_agree(column, other):
                self._problem((), f"{column} refers to {other}, whose type differs, so that their masks would too")

    def _masked(self) -> dict[Key, Masked]:
        lengths = self._lengths()
        # The definition of an index on expressions has words that are no columns.
        indexes = [[key for key in keys if key in self._columns] for keys in self._constraints.unique]
        unique = {key for keys in indexes for key in keys}
        alone = {keys[0] for keys in indexes if len(keys) == 1}
        alone |= {key for key, other in self._constraints.references if other in alone}
        distinct = {rule.fake for key, rule in self._assigned.items() if rule.fake and key in unique}
        return {
            key: Masked(
                self._columns[key],
                rule,
                length=lengths.get(key, self._columns[key].length),
                unique=key in alone,
                distinct=rule.fake in distinct,
            )
            for key, rule in self._assigned.items()
            if rule.method != "keep"
        }

    def _lengths(self) -> dict[Key, int]:
        """Return the shortest length of the columns that foreign keys tie together, as their masks must be equal."""
        lengths = {
            key: self._columns[key].length
            for pair in self._constraints.references
            for key in pair
            if key in self._columns
        }
        changed = True
        while changed:
            changed = False
            for pair in self._constraints.references:
                known = [lengths[key] for key in pair if lengths.get(key)]
                for key in pair:
                    if known and key in lengths and lengths[key] != min(known):
                        lengths[key] = min(known)
                        changed = True
        return lengths

    def _check(self, masked: Masked) -> None:
        rule, column = masked.rule, masked.column
        if rule.method == "sql":
            if column.generated:
                self._problem((), f"{column}: the server computes it; mask the columns that it is computed from")
            return
        by = self._columns.get((column.schema, column.table, rule.by))
        if rule.by and by is None:
            self._problem((), f"{column}: its table has no column {name_text(rule.by)} to shift by")
        if by and by.generated:
            self._problem((), f"{column}: the server computes {name_text(rule.by)} later; shift by another column")
        try:
            expression(masked)
        except Misfit as error:
            self._problem((), f"{column}: {error}")
