"""Plan a subset of an archive: what it takes, what it leaves out, and how its rows are selected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.sessions import Session
from airflow_pgbackup.backup.subset.foreign_keys import ForeignKey
from airflow_pgbackup.backup.subset.orphans import count_rows, delete_orphans, shrink
from airflow_pgbackup.backup.subset.row_filter import RowFilter
from airflow_pgbackup.backup.subset.selection import TABLE_KINDS, RowSelection, Table
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_of

_NAMED = 10
_LINES = 20
_BELONGING = frozenset(
    {
        *("TABLE", "FOREIGN TABLE", "TABLE DATA", "TABLE ATTACH", "INDEX ATTACH", "MATERIALIZED VIEW DATA"),
        *("SEQUENCE OWNED BY", "SEQUENCE SET", "DEFAULT", "ACL", "COMMENT", "SECURITY LABEL", "STATISTICS DATA"),
        *("PUBLICATION TABLE", "FK CONSTRAINT"),
    }
)
"""Kinds of entries that are left out without a line of their own; those of tables and foreign keys say more."""
_PARTS = frozenset(
    {
        *("CONSTRAINT", "CHECK CONSTRAINT", "INDEX", "POLICY", "ROW SECURITY", "RULE", "SEQUENCE", "STATISTICS"),
        "TRIGGER",
    }
)
"""Kinds of entries that have a line only if their table is restored."""


@dataclass(frozen=True)
class TableCount:
    """The rows of a table, with its partitions.

    :param before: in the archive.
    :param after: in the copy.
    """

    table: str
    before: int
    after: int


class SubsetPlan:
    """A subset of one archive.

    Restore the entries of the section pre-data, then :meth:`install`; restore the rows, then :meth:`reduce`; then the
    section post-data.

    :ivar lines: what is selected and what is left out, a line each, at most 20 of each kind.
    :ivar tables: that are restored, those without rows included.
    :ivar missing: that are not.
    :ivar parents: by restored partition the table it belongs to, restored or not; also of that table, and so on.
    :ivar left_out: the foreign keys that the copy lacks, ``orders_customer_fkey of public.orders``, all of them.
    """

    def __init__(self, selection: RowSelection, where: Mapping[Table, str]) -> None:
        self._selection = selection
        self.tables = frozenset(selection.tables | selection.without_rows)
        self.missing = frozenset(selection.missing)
        self.parents = selection.partitions.above(selection.tables)
        self._where = dict(where)
        keys, unknown = _foreign_keys(selection)
        root = selection.partitions.root
        roots = {root(table) for table in where}
        # References to a partitioned table of which a partition is not restored can have lost their row.
        roots |= {root(table) for table in selection.missing if root(table) in selection.tables}
        self._start = frozenset(roots)
        followed: dict[ForeignKey, None] = {}
        while more := [k for k in keys if k.checked and root(k.referenced) in roots and k not in followed]:
            followed |= dict.fromkeys(more)
            roots |= {root(key.table) for key in more}
        self._followed = list(followed)
        self._unchecked = [key for key in keys if not key.checked and root(key.referenced) in roots]
        self._unknown = [
            entry for entry in unknown if any(root(table) in roots for table in _tables_of(entry, selection))
        ]
        self._kept = selection.kept - {entry.dump_id for entry in self._unknown}
        self._filter = RowFilter(where)
        self.left_out = [name for name, _ in self._keys_left_out()]
        self.lines = list(self._lines())

    def select(self, entries: Iterable[TocEntry]) -> list[TocEntry]:
        """Return those of the archive's entries that are restored."""
        return [entry for entry in entries if entry.dump_id in self._kept]

    def install(self, connection: Session) -> None:
        """Let the tables ignore rows that are not selected, from now on. Call it before masking is installed.

        :param connection: to the database with its definitions and without rows, in autocommit mode.
        :raises ConfigurationError: an expression that PostgreSQL refuses, or one that uses a generated column.
        :raises RestoreError: a statement failed.
        """
        self._filter.install(connection)

    def reduce(self, connection: Session) -> list[TableCount]:
        """Delete the rows whose referenced rows were left out, until every foreign key holds, and remove what
        :meth:`install` created.

        :param connection: to the database with its rows and without its constraints, in autocommit mode.
        :return: the rows of each table that has a `where` or lost rows in this way.
        :raises RestoreError: a statement failed.
        :raises Canceled: it was canceled.
        """
        ignored = self._filter.remove(connection)
        root = self._selection.partitions.root
        tables = {key.table for key in self._followed} | set(self._where)
        loaded = count_rows(connection, tables)
        deleted_from = delete_orphans(connection, self._followed, self._start, root)
        remaining = count_rows(connection, deleted_from)
        shrink(connection, loaded, remaining)
        counts: dict[Table, list[int]] = {}
        for table, rows in loaded.items():
            count = counts.setdefault(root(table), [0, 0])
            count[0] += rows + ignored.get(table, 0)
            count[1] += remaining.get(table, rows)
        return [TableCount(str(table), *count) for table, count in sorted(counts.items())]

    def _lines(self) -> Iterator[str]:
        selection = self._selection
        if selection.missing:
            yield (
                f"restoring {counted(len(selection.tables), 'table')}; left out: "
                f"{counted(len(selection.missing), 'table')}: {_named(selection.missing)}"
            )
        if selection.without_rows:
            yield f"restored without rows, as selected tables depend on them: {_named(selection.without_rows)}"
        yield from _bounded(
            f"left out: {entry.label}, which depends on a table that is not restored"
            for entry in selection.entries
            if entry.dump_id not in selection.kept and self._has_line(entry)
        )
        yield from _bounded(
            f"restored as a table of its own: {table}, a partition of {parent}, which is not restored"
            for table in sorted(selection.tables)
            if (parent := selection.partitions.parent(table)) and parent not in selection.tables
        )
        yield from _bounded(f"left out: foreign key {name}, {why}" for name, why in self._keys_left_out())
        if self._where:
            yield f"rows are selected by an expression in {_named(self._where)}"
        if self._followed:
            followed = {key.table for key in self._followed}
            yield f"rows whose referenced rows are left out are left out too, in {_named(followed)}"
        yield from _bounded(
            f"not followed: foreign key {key}, which is NOT VALID or NOT ENFORCED: referenced rows may be missing"
            for key in self._unchecked
        )

    def _has_line(self, entry: TocEntry) -> bool:
        """Return whether an entry that is left out has a line."""
        if entry.kind in _PARTS:
            return any(table in self._selection.tables for table in _tables_of(entry, self._selection))
        return entry.kind not in _BELONGING

    def _keys_left_out(self) -> Iterator[tuple[str, str]]:
        selection = self._selection
        for entry in selection.entries:
            if entry.kind != "FK CONSTRAINT" or entry.dump_id in selection.kept:
                continue
            key = ForeignKey.parse(entry)
            if key is None:
                if any(table in selection.tables for table in _tables_of(entry, selection)):
                    yield f"{entry.name} in {entry.schema}", "between tables of which one is not restored with its rows"
            elif key.table in selection.tables:
                yield str(key), f"as {key.referenced} is not restored with its rows"
        for entry in self._unknown:
            yield f"{entry.name} in {entry.schema}", "which has a period or another form that is not followed"


def _foreign_keys(selection: RowSelection) -> tuple[list[ForeignKey], list[TocEntry]]:
    """Return the foreign keys that are restored, and the entries of those with an unknown form."""
    keys, unknown = [], []
    for entry in selection.entries:
        if entry.kind == "FK CONSTRAINT" and entry.dump_id in selection.kept:
            if key := ForeignKey.parse(entry):
                keys.append(key)
            else:
                unknown.append(entry)
    return keys, unknown


def _tables_of(entry: TocEntry, selection: RowSelection) -> list[Table]:
    found = (selection.by_id[number] for number in entry.depends_on if number in selection.by_id)
    return [Table.of(each) for each in found if each.kind in TABLE_KINDS]


def _named(tables: Iterable[Table]) -> str:
    return first_of(sorted(map(str, tables)), _NAMED)


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    every = list(lines)
    yield from every[:_LINES]
    if len(every) > _LINES:
        yield f"... and {len(every) - _LINES} more like that"
