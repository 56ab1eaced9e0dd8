"""Restore an archive in three sections, so that triggers which mask rows exist while the rows are loaded.

Between the sections the caller works on the database: after the definitions of tables (pre-data) and after their rows
(data). Indexes, constraints, triggers of the dump and the contents of materialized views follow (post-data), and event
triggers at the end.
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.restore.archive import ArchiveLoader, read_archive
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.new_database import prepare_public_schema
from airflow_pgbackup.backup.subset import Subset
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.foreign_rows import foreign_row_entries
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.quantities import counted

_LARGE_OBJECTS = frozenset({"BLOB", "BLOBS", "BLOB COMMENTS", "BLOB METADATA"})
# Statistics hold sample values. A user mapping holds a password of the source, and a subscription would replicate.
_NEVER = {
    "STATISTICS DATA": "planner statistics",
    "USER MAPPING": "user mappings",
    "SUBSCRIPTION": "subscriptions",
    "SUBSCRIPTION TABLE": "subscriptions",
}


class SectionLoader:
    """Restores the sections of an archive into a new database, one after the other.

    :param large_objects: restore large objects.
    :param jobs: processes of pg_restore for rows and indexes.
    :param subset: what to restore of the archive; None restores all of it.
    :param masked: rows are masked while they are loaded, so messages must not show values of them.
    :ivar subset: the plan of that subset for this archive; None without one.
    :ivar unpopulated: materialized views that are restored without rows, as they read a foreign table.
    :ivar foreign_rows: foreign tables whose rows in the archive are left out: a restore would write them to the foreign
        server, unmasked.
    :raises ClientError, ConfigurationError, OptionError: as :class:`.ArchiveLoader` and :meth:`.Subset.plan`.
    """

    def __init__(
        self,
        run: RestoreContext,
        checked: CheckedArtifact,
        server: ServerInfo,
        *,
        large_objects: bool = True,
        jobs: int | None = None,
        subset: Subset | None = None,
        masked: bool = False,
    ) -> None:
        self._run = run
        archive = read_archive(run, checked)
        self.toc = archive.toc
        self.subset = subset.plan(archive.toc) if subset else None
        # Definitions are in the table of contents: the file of an archive is read once, for the rows.
        head = archive.head
        definitions = replace(archive, source=lambda: nullcontext(io.BytesIO(head))) if head else archive
        self._left_out: set[str] = set()
        self._masked = masked
        self._foreign = _reading_foreign_tables(archive.toc.entries)
        self.unpopulated: list[str] = []
        self._foreign_rows = {entry.dump_id for entry in foreign_row_entries(archive.toc.entries)}
        self.foreign_rows: list[str] = []

        def loader(section: str, jobs: int | None, *, event_triggers: bool = False) -> ArchiveLoader:
            options = RestoreOptions(
                sections=[section],
                jobs=jobs,
                no_owner=True,
                no_privileges=True,
                no_tablespaces=True,
                no_security_labels=True,
            )
            source = archive if section == "data" else definitions
            hide_values = masked and section == "data"
            chosen = partial(self._chosen, large_objects, event_triggers)
            return ArchiveLoader(run, source, options, server, chosen, may_be_empty=True, hide_values=hide_values)

        self._pre_data = loader("pre-data", None)
        self._data = loader("data", jobs)
        self._post_data = loader("post-data", jobs)
        self._event_triggers = loader("post-data", None, event_triggers=True)

    @property
    def dumped_from(self) -> int:
        """Major version of the dumped server."""
        return self._pre_data.dumped_from

    @property
    def entries(self) -> list[TocEntry]:
        """The entries to restore, in order."""
        loaders = (self._pre_data, self._data, self._post_data, self._event_triggers)
        return [entry for each in loaders for entry in each.entries]

    @property
    def event_triggers(self) -> int:
        """The number of event triggers."""
        return sum(entry.kind == "EVENT TRIGGER" for entry in self._event_triggers.entries)

    @property
    def needs(self) -> Requirements:
        return Requirements.of_entries(self.entries, owners=False, privileges=False, tablespaces=False)

    def lines(self) -> list[str]:
        """Return lines for the log: what is restored, and what is left out."""
        tables = sum(entry.kind == "TABLE DATA" for entry in self._data.entries)
        lines = [
            f"{counted(len(self._pre_data.entries), 'definition')}, the rows of {counted(tables, 'table')}, then "
            f"{counted(len(self._post_data.entries), 'index, constraint or trigger', 'indexes, constraints, triggers')}"
        ]
        lines += self.subset.lines if self.subset else []
        return lines + ([f"left out: {', '.join(sorted(self._left_out))}"] if self._left_out else [])

    def load_definitions(self, params: ConnectionParams) -> None:
        """Restore the section pre-data.

        :raises ToolError: an entry failed.
        """
        public_exists = prepare_public_schema(self._run, params, self._pre_data.public)
        self._load(self._pre_data, params, public_exists=public_exists)

    def load_rows(self, params: ConnectionParams) -> None:
        """Restore the section data: rows, sequences, large objects. :raises ToolError: an entry failed."""
        self._load(self._data, params)

    def load_rest(self, params: ConnectionParams) -> None:
        """Restore the section post-data, without event triggers. :raises ToolError: an entry failed."""
        self._load(self._post_data, params)

    def load_event_triggers(self, params: ConnectionParams) -> None:
        """Restore the event triggers, which may refuse each later change, and each later session.

        :raises ToolError: an entry failed.
        """
        self._load(self._event_triggers, params)

    @staticmethod
    def _load(loader: ArchiveLoader, params: ConnectionParams, *, public_exists: bool = True) -> None:
        if loader.entries:
            loader.load(params, single_transaction=False, public_exists=public_exists)

    def _chosen(self, large_objects: bool, event_triggers: bool, entries: list[TocEntry]) -> list[TocEntry]:
        kept = []
        for entry in entries:
            if (entry.kind == "EVENT TRIGGER" or entry.is_about("EVENT TRIGGER")) != event_triggers:
                continue
            why = _NEVER.get(entry.kind) or ("subscriptions" if entry.is_about("SUBSCRIPTION") else None)
            if not large_objects and (entry.kind in _LARGE_OBJECTS or entry.is_about("LARGE OBJECT")):
                why = "large objects"
            if event_triggers and self._masked and entry.kind == "COMMENT":
                why = "comments on event triggers"  # restored after the search for unmasked values
            if entry.kind == "MATERIALIZED VIEW DATA" and entry.dump_id in self._foreign:
                if not self.subset or self.subset.select([entry]):
                    self.unpopulated.append(f"{entry.schema}.{entry.name}")
            elif entry.dump_id in self._foreign_rows:
                if not self.subset or self.subset.select([entry]):
                    self.foreign_rows.append(f"{entry.schema}.{entry.name}")
            elif why:
                self._left_out.add(why)
            else:
                kept.append(entry)
        return self.subset.select(kept) if self.subset else kept


def _reading_foreign_tables(entries: list[TocEntry]) -> set[int]:
    """Return the dump IDs of foreign tables and of all that depends on them."""
    dependents: dict[int, list[int]] = {}
    for entry in entries:
        for dump_id in entry.depends_on:
            dependents.setdefault(dump_id, []).append(entry.dump_id)
    found: set[int] = set()
    waiting = [entry.dump_id for entry in entries if entry.kind == "FOREIGN TABLE"]
    while waiting:
        dump_id = waiting.pop()
        if dump_id not in found:
            found.add(dump_id)
            waiting += dependents.get(dump_id, [])
    return found
