"""Describe a restore for the person who decides about it: the backup, and what the target would lose."""

from __future__ import annotations

from datetime import datetime

from airflow_pgbackup.backup.databases.sessions import session, translated_errors
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.quantities import counted, human_age, human_bytes, human_time
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.verification import last_count
from airflow_pgbackup.text import first_of

_NAMED = 5
_REPLACING = ("replace", "into_existing")

# The statistics give an approximate number of rows, and reading them takes no lock. Tables of extensions are not in a
# dump.
_TABLES = """
SELECT n.nspname, c.relname, coalesce(s.n_live_tup, 0)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_stat_user_tables AS s ON s.relid = c.oid
 WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e'
                      AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
"""


def describe_backup(evidence: Evidence, now: datetime) -> list[str]:
    """Return the time, age, level, size and rows of a backup, as lines for people."""
    manifest, tables = evidence.require_manifest(), _tables(evidence)
    level = evidence.backup.level
    rows = (
        "rows not counted"
        if tables is None
        else f"{counted(sum(tables.values()), 'row')} in {counted(len(tables), 'table')}"
    )
    return [
        f"taken {human_time(manifest.started_at, seconds=True)}, {human_age(now - manifest.started_at)} ago",
        f"{f'verified at level {level}' if level else evidence.backup.standing}",
        f"{human_bytes(manifest.artifact.size)} in {manifest.artifact.format} format, {rows}",
    ]


def describe_loss(run: RestoreContext, evidence: Evidence, target: RestoreTarget) -> list[str]:
    """Return what the target would lose by a restore, as lines for people; empty if the restore replaces nothing.

    Rows of the target are those of its statistics, so they are not exact.

    :raises ConnectError: the target cannot be reached.
    """
    manifest = evidence.require_manifest()
    if target.mode not in _REPLACING or target.into_schema is not None or manifest.kind == "cluster":
        return []
    with session(target.connection, run.cancel) as connection, translated_errors("reading the target's statistics"):
        found = {(schema, name): int(rows) for schema, name, rows in connection.execute(_TABLES).fetchall()}
        (size,) = connection.execute(
            "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())"
        ).fetchone() or (0,)
    held = f"{counted(len(found), 'table')}, about {counted(sum(found.values()), 'row')}, {human_bytes(size)} on disk"
    lines = [
        f'database "{target.database}" holds {held}',
        f"what was written since {human_time(manifest.started_at, seconds=True)} is not in the backup",
    ]
    tables = _tables(evidence)
    if tables is None:
        return lines
    if new := sorted(".".join(key) for key in found.keys() - tables.keys()):
        lines.append(f"not in the backup: {counted(len(new), 'table')}: {first_of(new, _NAMED)}")
    gained = {key: rows - tables[key] for key, rows in found.items() if key in tables and rows > tables[key]}
    for key in sorted(gained, key=lambda key: -gained[key])[:_NAMED]:
        lines.append(f"{'.'.join(key)}: about {counted(found[key], 'row')}, {tables[key]:,} in the backup")
    if len(gained) > _NAMED:
        lines.append(f"{counted(len(gained) - _NAMED, 'more table')} with more rows than the backup")
    return lines


def _tables(evidence: Evidence) -> dict[tuple[str, str], int] | None:
    """Return the rows of each table as the last verification that counted them did; None if none has."""
    if (seen := last_count(evidence.verifications)) is None:
        return None
    rows: dict[tuple[str, str], int] = {}
    for table in seen.tables:
        rows[table.schema, table.name] = rows.get((table.schema, table.name), 0) + table.rows
    return rows
