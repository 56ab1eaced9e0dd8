"""Tables whose columns have another order after a restore, so that rows dumped as INSERT must name the columns.

pg_dump creates a child table with INHERITS, so it gets the columns of its parents first. In the source, columns added
to a parent later, or a parent added to the child later, come in another order. COPY names the columns; INSERT does so
only with --column-inserts, see the notes on --inserts in the pg_dump manual page. Without names the rows fail, or
values land in other columns if the types allow it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.wording import parameter

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Partitions keep their order: they are created like other tables, and attached.
_INHERITING: LiteralString = """
select c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
       array(select attname::pg_catalog.text from pg_catalog.pg_attribute
              where attrelid = c.oid and attnum > 0 and not attisdropped order by attnum),
       array(select inhparent from pg_catalog.pg_inherits where inhrelid = c.oid order by inhseqno)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'f') and not c.relispartition
   and exists (select from pg_catalog.pg_inherits where c.oid in (inhrelid, inhparent))
 order by 2
"""
_DATABASES: LiteralString = (
    "select datname from pg_catalog.pg_database where datallowconn and datname <> 'template0' order by 1"
)


def with_column_names(
    options: DumpOptions | DumpAllOptions, connection: ConnectionParams, log: Callable[[str], None]
) -> DumpOptions | DumpAllOptions:
    """Return the options with ``column_inserts`` if rows dumped as INSERT would not fit their restored tables.

    The change is logged.

    :param connection: to the database of the dump, or to any database of the cluster that is dumped.
    """
    if not _inserts_without_names(options):
        return options
    reordered = []
    databases = [connection] if isinstance(options, DumpOptions) else _databases(connection)
    for database in databases:
        prefix = "" if isinstance(options, DumpOptions) else f"{database.dbname}: "
        try:
            with session(database) as found:
                reordered += [prefix + table for table in reordered_tables(found.execute(_INHERITING).fetchall())]
        except (ConnectError, psycopg.Error):
            continue  # the dump reports what it cannot connect to, or excludes it
    if not reordered:
        return options
    log(
        f"warning: dumping with {parameter('column_inserts', True)}, as a restore creates the columns of "
        f"{first_named(reordered)} in another order"
    )
    return dataclasses.replace(options, column_inserts=True)


def _inserts_without_names(options: DumpOptions | DumpAllOptions) -> bool:
    if options.column_inserts or not (options.inserts or options.rows_per_insert):
        return False
    # Rows alone are restored into tables that exist already, perhaps with the columns of the source.
    return not options.data_only


def _databases(connection: ConnectionParams) -> list[ConnectionParams]:
    with session(connection) as found:
        return [connection.with_database(name) for (name,) in found.execute(_DATABASES)]


def reordered_tables(inheriting: list[tuple[Any, ...]]) -> list[str]:
    """Return the tables whose columns have another order after a restore.

    :param inheriting: oid, name, columns and parents of each table that has parents or children.
    """
    tables = {oid: (columns, parents) for oid, _, columns, parents in inheriting}
    orders: dict[int, list[str]] = {}

    def restored(oid: int) -> list[str]:
        if oid not in orders:
            columns, parents = tables[oid]
            inherited = [column for parent in parents if parent in tables for column in restored(parent)]
            orders[oid] = [column for column in dict.fromkeys([*inherited, *columns]) if column in columns]
        return orders[oid]

    return [name for oid, name, columns, _ in inheriting if restored(oid) != columns]
