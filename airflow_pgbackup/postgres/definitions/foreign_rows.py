"""The rows of foreign tables in a dump, which a restore inserts into the foreign servers.

pg_dump writes them with ``--include-foreign-data`` only.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_pgbackup.postgres.archive.script_headers import object_header
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, Event, MetaCommand, Statement
from airflow_pgbackup.postgres.sql.names import NameDecoder, client_encoding, copy_target, foreign_table, insert_target


def foreign_row_entries(entries: Iterable[TocEntry]) -> list[TocEntry]:
    """Return the entries of an archive that have rows of foreign tables."""
    entries = list(entries)
    tables = [entry for entry in entries if entry.kind == "FOREIGN TABLE"]
    ids = {table.dump_id for table in tables}
    names = {(table.schema, table.name) for table in tables}
    return [
        entry
        for entry in entries
        if entry.kind == "TABLE DATA" and ((entry.schema, entry.name) in names or not ids.isdisjoint(entry.depends_on))
    ]


class ForeignRows:
    """Finds the rows of foreign tables in a script. Pass every event of it to :meth:`contains`, in order."""

    def __init__(self) -> None:
        self._decoder = NameDecoder()
        self._tables: set[tuple[str | None, str]] = set()
        self._announced: tuple[str | None, str] | None = None

    def contains(self, event: Event) -> bool:
        """Return whether an event has rows of a foreign table.

        The comment before the rows decides, if there is one: rows of a partition can be for the root of its tree.
        """
        if isinstance(event, MetaCommand) and event.name == b"connect":
            self._tables, self._announced = set(), None
        elif isinstance(event, Comment):
            if header := object_header(self._decoder.text(event.text)):
                name, kind, schema, _ = header
                self._announced = (schema, name) if kind == "TABLE DATA" else None
                if kind == "FOREIGN TABLE":
                    self._tables.add((schema, name))
        elif isinstance(event, CopyData):
            return self._is_foreign(event.statement)
        elif isinstance(event, Statement):
            if event.words[:1] == (b"INSERT",):
                return self._is_foreign(event)
            if event.words[:1] == (b"SET",) and (encoding := client_encoding(event.text)):
                self._decoder.use(encoding)
            elif event.words[:3] == (b"CREATE", b"FOREIGN", b"TABLE"):
                self._tables.add(foreign_table(event.text, self._decoder))
        return False

    def _is_foreign(self, rows: Statement) -> bool:
        if not self._tables:
            return False
        if self._announced:
            return self._announced in self._tables
        find = insert_target if rows.words[:1] == (b"INSERT",) else copy_target
        target = find(rows.text, self._decoder)
        return target is not None and (target.schema, target.name) in self._tables
