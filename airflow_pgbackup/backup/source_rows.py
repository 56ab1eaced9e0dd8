"""Count the rows of the source in the snapshot that is dumped, so that a verification compares archive and source.

A separate session exports the snapshot, which pg_dump uses through ``--snapshot``, and counts the tables while pg_dump
reads them. https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.replay import read_replay
from airflow_pgbackup.backup.databases.selection import select
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.errors import ConnectError, OptionError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.sql.anybytes import Identifier
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.capabilities import Version, loads_enums_through_root
from airflow_pgbackup.repository.manifest import RowCount
from airflow_pgbackup.threads import result_of

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The tables that pg_dump writes rows of, without those of extensions, which have their own rules. The rows of a
# partition may be dumped under the name of its topmost table; always so if the hash of an enum decides to which
# partition of a table above it a row belongs (getPartitioningInfo() in src/bin/pg_dump/pg_dump.c).
_TABLES = """
with by_enum as (
    select partrelid from pg_catalog.pg_partitioned_table
     where (select o.oid from pg_catalog.pg_opclass o join pg_catalog.pg_am a on a.oid = o.opcmethod
             where o.opcname = 'enum_ops' and o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace
               and a.amname = 'hash') = any (partclass)
)
select c.oid, n.oid, n.nspname, c.relname, c.relpersistence = 'u', coalesce(rn.nspname, n.nspname),
       coalesce(r.relname, c.relname),
       c.relispartition and exists (select from by_enum join pg_catalog.pg_partition_ancestors(c.oid) above
                                        on above.relid = partrelid)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
 order by n.nspname, c.relname
"""

# A damaged index may lack rows that the table has, and that pg_dump therefore dumps.
_WITHOUT_INDEXES: tuple[LiteralString, ...] = (
    "set local enable_seqscan = on",
    "set local enable_indexscan = off",
    "set local enable_indexonlyscan = off",
    "set local enable_bitmapscan = off",
)


_FAILS_WITHIN = 5.0
"""Seconds between the end of the snapshot, at an error of the session that counts, and the report of that error."""


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    counted_as: tuple[str, str]


class HeldSource:
    """A snapshot of the database, and the row counts in it.

    :ivar snapshot: its name, for ``--snapshot``; valid until the ``with`` of :func:`hold_source` ends.
    :ivar left_out: tables whose rows the dump leaves out because of its options.
    """

    def __init__(self, snapshot: str, left_out: tuple[str, ...], rows: Future[tuple[RowCount, ...]]) -> None:
        self.snapshot = snapshot
        self.left_out = left_out
        self._rows = rows

    def rows(self) -> tuple[RowCount, ...]:
        """Return the rows of every dumped table, in the snapshot; waits until all are counted.

        :raises ConnectError: the connection was lost.
        """
        return result_of(self._rows)


@contextmanager
def hold_source(
    connection: ConnectionParams,
    options: DumpOptions,
    *,
    client: Version,
    max_replay_lag: float | None = None,
    context: RunContext | None = None,
) -> Iterator[HeldSource]:
    """Take a snapshot, and count its rows in a thread while the ``with`` lasts.

    :param client: version of the pg_dump that dumps.
    :param max_replay_lag: of a standby, in seconds; None for any. It was checked before, but a connection that leads to
        several servers may have reached another one then.
    :param context: its settings limit the wait for one table's lock; its log takes a line for each pattern of the
        options that selects nothing, and the like.
    :raises OptionError: the options set a snapshot of their own.
    :raises ReplayLagError: the server is a standby that is too far behind its primary.
    :raises Canceled: the flag of `context` was set.
    :raises ConnectError: the server is unreachable, or the user lacks a privilege that pg_dump needs, too; or the
        counting failed, and so the body with a ToolError, since the snapshot ended with it.
    """
    context = context or RunContext()
    if options.snapshot or options.serializable_deferrable:
        raise OptionError(
            "count_rows cannot be combined with snapshot or serializable_deferrable",
            hint="Leave one of them out: count_rows exports its own snapshot.",
        )
    with (
        contextlib.closing(connection.open_session(autocommit=False)) as session,
        _ended_by(context.cancel, session),
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="pgbackup-count") as pool,
    ):
        with _translated_errors(connection):
            snapshot = _begin(session, options, context.settings.lock_wait_timeout)
            if max_replay_lag is not None and _is_standby(session):
                read_replay(session).require_at_most(max_replay_lag, connection.label)
            findings = Findings()
            database = InspectedDatabase(session, connection.dbname, findings)
            counted, left_out = _tables(session, database, options, client)
        for finding in findings.sorted():
            context.log(str(finding))
        rows = pool.submit(_count, session, connection, counted)
        try:
            yield HeldSource(snapshot, left_out, rows)
        except ToolError as error:
            cause = _why_without_snapshot(error, rows)
            interrupt(session, last=True)
            if cause is not None:
                raise cause from error
            raise
        except BaseException:
            interrupt(session, last=True)  # the counts are no longer needed
            raise


@contextmanager
def _ended_by(cancel: Cancel, session: psycopg.Connection[Any]) -> Iterator[None]:
    unregister = cancel.on_set(lambda: interrupt(session, last=True))
    try:
        yield
    except ConnectError:
        cancel.check()
        raise
    finally:
        unregister()


def _begin(session: psycopg.Connection[Any], options: DumpOptions, lock_timeout: float) -> str:
    session.execute("set transaction isolation level repeatable read, read only")
    disable_timeouts(session, local=True)
    session.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{int(lock_timeout * 1000)}ms")))
    session.execute("set local row_security = on" if options.enable_row_security else "set local row_security = off")
    if options.role:
        session.execute(sql.SQL("set local role {}").format(Identifier(options.role)))
    row: Any = session.execute("select pg_catalog.pg_export_snapshot()").fetchone()
    return str(row[0])


def _tables(
    session: psycopg.Connection[Any], database: InspectedDatabase, options: DumpOptions, client: Version
) -> tuple[list[_Table], tuple[str, ...]]:
    selection = select(database, options)
    counted, left_out = [], []
    rows: list[Any] = session.execute(_TABLES).fetchall()
    # As pg_dump, since a standby cannot read them.
    takes_unlogged = not (options.no_unlogged_table_data or _is_standby(session))
    for oid, schema_oid, schema, name, unlogged, root_schema, root, by_enum in rows:
        if selection.takes_rows(oid, schema_oid) and (takes_unlogged or not unlogged):
            through_root = options.load_via_partition_root or (by_enum and loads_enums_through_root(client))
            counted.append(_Table(schema, name, (root_schema, root) if through_root else (schema, name)))
        else:
            left_out.append(f"{schema}.{name}")
    return counted, tuple(left_out)


def _is_standby(session: psycopg.Connection[Any]) -> bool:
    (standby,) = session.execute("select pg_catalog.pg_is_in_recovery()").fetchone() or (False,)
    return bool(standby)


def _count(
    session: psycopg.Connection[Any], connection: ConnectionParams, tables: list[_Table]
) -> tuple[RowCount, ...]:
    totals: dict[tuple[str, str], int] = {}
    with _translated_errors(connection):
        for statement in _WITHOUT_INDEXES:
            session.execute(statement)
        for table in tables:
            query = sql.SQL("select count(*) from only {}").format(Identifier(table.schema, table.name))
            row: Any = session.execute(query).fetchone()
            totals[table.counted_as] = totals.get(table.counted_as, 0) + row[0]
    return tuple(RowCount(schema, name, rows) for (schema, name), rows in totals.items())


@contextmanager
def _translated_errors(connection: ConnectionParams) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        said = server_message(error)
        raise ConnectError(f"{connection.label}: counting rows: {said}", hint=hint_for(said)) from None


def _why_without_snapshot(error: ToolError, rows: Future[tuple[RowCount, ...]]) -> BaseException | None:
    """Return why counting failed, if pg_dump failed because it found no snapshot any more; else None."""
    if not any("snapshot" in line for line in error.stderr):
        return None
    wait([rows], timeout=_FAILS_WITHIN)
    return rows.exception() if rows.done() else None
