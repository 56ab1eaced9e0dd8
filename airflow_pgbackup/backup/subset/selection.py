"""Choose the entries of an archive that restore some of its tables, with everything that does not need the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from airflow_pgbackup.postgres.archive.toc import TocEntry

TABLE_KINDS = frozenset({"TABLE", "FOREIGN TABLE"})
_INDEXES = frozenset({"INDEX", "CONSTRAINT"})


class Table(NamedTuple):
    """The name of a table, foreign tables included."""

    schema: str
    name: str

    @classmethod
    def of(cls, entry: TocEntry) -> Table:
        """Return the table that an entry creates, or whose rows it has."""
        return cls(entry.schema or "", entry.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Partitions:
    """Which tables are partitions of others, by the entries TABLE ATTACH."""

    def __init__(self, entries: Iterable[TocEntry], by_id: dict[int, TocEntry]) -> None:
        self._parents: dict[Table, Table] = {}
        self._children: dict[Table, list[Table]] = defaultdict(list)
        for entry in entries:
            if entry.kind != "TABLE ATTACH":
                continue
            child = Table.of(entry)
            for number in entry.depends_on:
                if number in by_id and by_id[number].kind in TABLE_KINDS and Table.of(by_id[number]) != child:
                    self._parents[child] = Table.of(by_id[number])
                    self._children[Table.of(by_id[number])].append(child)

    def parent(self, table: Table) -> Table | None:
        """Return the table of which a table is a partition."""
        return self._parents.get(table)

    def above(self, tables: Iterable[Table]) -> dict[tuple[str, str], Table]:
        """Return the parents of the tables, of their parents, and so on, by partition."""
        found: dict[tuple[str, str], Table] = {}
        left = list(tables)
        while left:
            table = left.pop()
            if table not in found and (parent := self._parents.get(table)):
                found[table] = parent
                left.append(parent)
        return found

    def root(self, table: Table) -> Table:
        """Return the table at the top: `table` itself if it is not a partition."""
        seen = {table}
        while (parent := self._parents.get(table)) and parent not in seen:  # a damaged archive may have a cycle
            table = parent
            seen.add(table)
        return table

    def with_partitions(self, tables: Iterable[Table]) -> set[Table]:
        """Return the tables and all their partitions."""
        found: set[Table] = set()
        left = list(tables)
        while left:
            table = left.pop()
            if table not in found:
                found.add(table)
                left += self._children.get(table, ())
        return found


class RowSelection:
    """The entries of an archive that are restored for some of its tables.

    All other objects are restored too, but those that depend on a table that is not. What a chosen table itself depends
    on is restored: a table from which it inherits, or whose row type it has in a column, without its rows.

    :param chosen, excluded: tables; partitions follow the table they belong to.
    :ivar kept: dump IDs.
    :ivar tables: the chosen tables.
    :ivar missing: tables that are not restored.
    :ivar without_rows: tables that chosen tables depend on.
    """

    def __init__(self, entries: Sequence[TocEntry], chosen: Iterable[Table], excluded: Iterable[Table]) -> None:
        self.entries = entries
        self.by_id = {entry.dump_id: entry for entry in entries}
        self.partitions = Partitions(entries, self.by_id)
        every = {Table.of(entry) for entry in entries if entry.kind in TABLE_KINDS}
        self.tables = self.partitions.with_partitions(chosen) - self.partitions.with_partitions(excluded)
        needed = self._needed()
        self.without_rows = {
            Table.of(entry) for entry in map(self.by_id.__getitem__, needed) if entry.kind in TABLE_KINDS
        } - self.tables
        self.missing = every - self.tables - self.without_rows
        self.kept = self._kept(needed)

    def _needed(self) -> set[int]:
        """Return what the chosen tables and the defaults of their columns depend on, and the tables themselves."""
        found: set[int] = set()
        tables = {e.dump_id for e in self.entries if e.kind in TABLE_KINDS and Table.of(e) in self.tables}
        left = [
            *tables,
            *(e.dump_id for e in self.entries if e.kind == "DEFAULT" and tables.intersection(e.depends_on)),
        ]
        while left:
            number = left.pop()
            if number in self.by_id and number not in found:
                found.add(number)
                # A sequence is created without the column that owns it.
                if not self.by_id[number].definition.startswith("CREATE SEQUENCE "):
                    left += self._dependencies(self.by_id[number])
        return found

    def _kept(self, needed: Collection[int]) -> set[int]:
        dependents: dict[int, list[int]] = defaultdict(list)
        for entry in self.entries:
            for number in self._dependencies(entry):
                dependents[number].append(entry.dump_id)
        dropped: set[int] = set()
        left = [number for number, entry in self.by_id.items() if number not in needed and self._is_missing(entry)]
        while left:
            number = left.pop()
            if number not in dropped and number not in needed:
                dropped.add(number)
                left += dependents[number]
        return self.by_id.keys() - dropped

    def _is_missing(self, entry: TocEntry) -> bool:
        """Return whether an entry creates a missing table, or has rows of a table without rows, or is about one."""
        if entry.kind in TABLE_KINDS:
            return Table.of(entry) in self.missing
        if entry.kind == "TABLE DATA":
            return Table.of(entry) not in self.tables
        if entry.kind == "SEQUENCE OWNED BY":  # depends on the sequence only, which depends on its table
            numbers = [n for number in entry.depends_on if number in self.by_id for n in self.by_id[number].depends_on]
            return any(n in self.by_id and self._is_missing(self.by_id[n]) for n in numbers)
        if entry.kind == "FK CONSTRAINT":
            ends = [self.by_id[n] for n in entry.depends_on if n in self.by_id and self.by_id[n].kind in TABLE_KINDS]
            return any(Table.of(end) not in self.tables for end in ends)
        return False

    def _dependencies(self, entry: TocEntry) -> list[int]:
        """Return the dump IDs without which an entry cannot be restored.

        Some dependencies only order the entries: of a partition and its indexes on their parents, which an entry of its
        own attaches; of a foreign key on the attached indexes.
        """
        found = [number for number in entry.depends_on if number in self.by_id]
        if entry.kind in TABLE_KINDS and (parent := self.partitions.parent(Table.of(entry))):
            return [n for n in found if self.by_id[n].kind not in TABLE_KINDS or Table.of(self.by_id[n]) != parent]
        if entry.kind in _INDEXES:
            return [n for n in found if self.by_id[n].kind not in _INDEXES]
        if entry.kind == "FK CONSTRAINT":
            return [n for n in found if self.by_id[n].kind != "INDEX ATTACH"]
        return found
