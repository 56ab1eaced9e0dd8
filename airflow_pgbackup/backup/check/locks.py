"""The size of the lock table: a dump locks every table, a restore in a single transaction every object it creates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-MAX-LOCKS-PER-TRANSACTION
_CAPACITY: LiteralString = """
select pg_catalog.current_setting('max_locks_per_transaction')::int8
       * (pg_catalog.current_setting('max_connections')::int8
          + pg_catalog.current_setting('max_prepared_transactions')::int8),
       pg_catalog.current_setting('max_locks_per_transaction')::int8
"""
# CREATE TABLE also locks the TOAST table with its index, the indexes, and the tables of foreign keys; as counted in
# postgres/definitions/requirements.py.
_RELATIONS: LiteralString = """
select c.oid::int8, c.relnamespace::int8, c.relkind in ('r', 'p'),
       case when c.relkind in ('r', 'p', 'm') then 3 else 1 end
       + (select count(*) from pg_catalog.pg_index i where i.indrelid = c.oid)
       + (select count(*) from pg_catalog.pg_constraint x where x.conrelid = c.oid and x.contype = 'f')
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
   and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
"""
_LARGE_OBJECTS: LiteralString = "select count(*) from pg_catalog.pg_largeobject_metadata"

LOCKED: LiteralString = """
    select l.relation from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.database
     where d.datname = pg_catalog.current_database() and l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
"""
"""A subquery: relations of this database with an ACCESS EXCLUSIVE lock, for which a session would wait."""


def check_locks(db: InspectedDatabase, selection: Selection) -> None:
    """Compare the number of locks that a dump and its restore take with the size of the lock table."""
    rows = [row for row in db.optional_rows(_RELATIONS) if selection.takes(row[0], row[1])]
    tables, objects = sum(is_table for _, _, is_table, _ in rows), sum(int(locks) for *_, locks in rows)
    if selection.large_objects:
        objects += sum(int(count) for (count,) in db.optional_rows(_LARGE_OBJECTS))
    for capacity, setting in db.optional_rows(_CAPACITY):
        for code, who, needed in (
            ("dump_locks", "the dump", tables),
            ("restore_locks", "a restore in one transaction", objects),
        ):
            if needed > capacity:
                enough = -(-needed * setting // capacity)
                report_problem(
                    db,
                    code,
                    [f"max_locks_per_transaction = {setting}"],
                    message=f"{who} takes about {needed:,} locks at once, but the lock table of a server like this "
                    f"holds {capacity:,}",
                    hint=f"Run ALTER SYSTEM SET max_locks_per_transaction = {enough} there and restart the server"
                    + ("." if code == "dump_locks" else ", or restore into a new database (mode create)."),
                )
