"""Restore an archive in three sections, so that triggers which mask rows exist while the rows are loaded.

Between the sections the caller works on the database: after the definitions of tables (pre-data) and after their rows
(data). Indexes, constraints, triggers of the dump and the contents of materialized views follow (post-data).
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from airflow_pgbackup.backup.checked import Checked
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.progress import counted
from airflow_pgbackup.backup.restore.archive import ArchiveLoader, read_archive
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.new_database import drop_public_schema
from airflow_pgbackup.backup.subset import Subset
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.options import RestoreOptions

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

    :param large_objects: restore large objects. :param jobs: processes of pg_restore for rows and indexes.
    :param subset: what to restore of the archive; None restores all of it.
    :ivar subset: what that is of this archive.
    :raises ClientError, ConfigurationError, OptionError: as :class:`.ArchiveLoader` and :meth:`.Subset.plan`.
    """

    def __init__(
        self,
        run: RestoreContext,
        checked: Checked,
        server: ServerInfo,
        *,
        large_objects: bool = True,
        jobs: int | None = None,
        subset: Subset | None = None,
    ) -> None:
        self._run = run
        archive = read_archive(run, checked)
        self.toc = archive.toc
        self.subset = subset.plan(archive.toc) if subset else None
        # Definitions are in the table of contents: the file of an archive is read once, for the rows.
        head = archive.head
        definitions = replace(archive, source=lambda: nullcontext(io.BytesIO(head))) if head else archive
        self._left_out: set[str] = set()
        chosen = partial(self._chosen, large_objects)

        def loader(section: str, jobs: int | None) -> ArchiveLoader:
            options = RestoreOptions(
                sections=[section],
                jobs=jobs,
                no_owner=True,
                no_privileges=True,
                no_tablespaces=True,
                no_security_labels=True,
            )
            source = archive if section == "data" else definitions
            return ArchiveLoader(run, source, options, server, chosen, may_be_empty=True)

        self._pre_data = loader("pre-data", None)
        self._data = loader("data", jobs)
        self._post_data = loader("post-data", jobs)

    @property
    def dumped_from(self) -> int:
        """Major version of the dumped server."""
        return self._pre_data.dumped_from

    @property
    def entries(self) -> list[TocEntry]:
        """The entries to restore, in order."""
        return [entry for each in (self._pre_data, self._data, self._post_data) for entry in each.entries]

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
        public_exists = drop_public_schema(self._run, params, makes_public=self._pre_data.makes_public)
        self._load(self._pre_data, params, public_exists=public_exists)

    def load_rows(self, params: ConnectionParams) -> None:
        """Restore the section data: rows, sequences, large objects. :raises ToolError: an entry failed."""
        self._load(self._data, params)

    def load_rest(self, params: ConnectionParams) -> None:
        """Restore the section post-data. :raises ToolError: an entry failed."""
        self._load(self._post_data, params)

    @staticmethod
    def _load(loader: ArchiveLoader, params: ConnectionParams, *, public_exists: bool = True) -> None:
        if loader.entries:
            loader.load(params, single_transaction=False, public_exists=public_exists)

    def _chosen(self, large_objects: bool, entries: list[TocEntry]) -> list[TocEntry]:
        kept = []
        for entry in entries:
            why = _NEVER.get(entry.kind) or ("subscriptions" if entry.name.startswith("SUBSCRIPTION ") else None)
            if not large_objects and (entry.kind in _LARGE_OBJECTS or entry.name.startswith("LARGE OBJECT")):
                why = "large objects"
            if why:
                self._left_out.add(why)
            else:
                kept.append(entry)
        return self.subset.select(kept) if self.subset else kept
