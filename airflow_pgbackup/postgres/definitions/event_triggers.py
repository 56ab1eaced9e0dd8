"""Event triggers that run during a restore: it creates them before it fills materialized views.

REFRESH MATERIALIZED VIEW then fires them. They can log it in a table, which gets rows that the source never had, or
reject it. See RestorePass in src/bin/pg_dump/pg_backup_archiver.h.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_pgbackup.postgres.archive.toc import TocEntry


def fires_event_triggers(entries: Iterable[TocEntry]) -> bool:
    """Return whether a restore of archive entries fires their event triggers."""
    return {entry.kind for entry in entries} >= {"EVENT TRIGGER", "MATERIALIZED VIEW DATA"}
