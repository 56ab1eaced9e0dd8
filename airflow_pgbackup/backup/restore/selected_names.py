"""Names in the options of a restore that select nothing, because the archive has no such object."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.options import RestoreOptions

# What the options select: _tocEntryRequired() in src/bin/pg_dump/pg_backup_archiver.c.
_RELATIONS = frozenset(
    {
        "TABLE", "TABLE DATA", "VIEW", "FOREIGN TABLE", "MATERIALIZED VIEW", "MATERIALIZED VIEW DATA", "SEQUENCE",
        "SEQUENCE SET",
    }
)  # fmt: skip
_ROUTINES = frozenset({"FUNCTION", "AGGREGATE", "PROCEDURE"})


def unmatched_names(entries: Sequence[TocEntry], options: RestoreOptions) -> list[str]:
    """Return the names that no entry has, for people: ``table "actro"``.

    Names in filter files are not read.

    :param entries: all of the archive: a name that only other options leave out is not returned.
    """
    schemas = {entry.name if entry.kind == "SCHEMA" else entry.schema for entry in entries}
    unmatched = [f'schema "{name}"' for name in options.schemas if name not in schemas]
    where = " in the selected schemas" if options.schemas else ""
    for what, kinds, names in (
        ("table", _RELATIONS, options.tables),
        ("function", _ROUTINES, options.functions),
        ("index", frozenset({"INDEX"}), options.indexes),
        ("trigger", frozenset({"TRIGGER"}), options.triggers),
    ):
        found = {e.name for e in entries if e.kind in kinds and (not options.schemas or e.schema in options.schemas)}
        unmatched += [f'{what} "{name}"{where}' for name in names if name not in found]
    return unmatched
