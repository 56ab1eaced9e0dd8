"""Settings, locks and extensions of a database that would prevent or compromise its backup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.quantities import counted, noun
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.wording import parameter

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# ACCESS EXCLUSIVE is the only lock that blocks a dump. One that is waited for blocks it too, as locks are a queue. The
# lock of a prepared transaction on its own id leads to its name.
_LOCKS: LiteralString = """
select distinct c.oid::int8, n.oid::int8, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
       coalesce('session ' || l.pid::text, 'prepared transaction ' || pg_catalog.quote_literal(p.gid),
                'a prepared transaction')
  from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid = l.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join (pg_catalog.pg_locks x join pg_catalog.pg_prepared_xacts p on p.transaction = x.transactionid)
    on l.pid is null and x.pid is null and x.virtualtransaction = l.virtualtransaction
 where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
   and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
   and c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
 order by 3, 4
"""
_PREPARED: LiteralString = """
select pg_catalog.quote_literal(gid), pg_catalog.date_trunc('second', pg_catalog.now() - prepared)::text
  from pg_catalog.pg_prepared_xacts
 where database = pg_catalog.current_database() and prepared < pg_catalog.now() - %s::pg_catalog.interval
 order by prepared
"""
OLD_TRANSACTION = "5 minutes"
"""Age after which a prepared transaction is reported: a two-phase commit takes seconds."""

# reset_val is what a new session of this user starts with; this session has changed the settings.
_TIMEOUTS: LiteralString = """
select name || ' = ' || reset_val || ' ms' from pg_catalog.pg_settings
 where name in ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
   and reset_val <> '0' order by name
"""
_ENCODINGS: LiteralString = """
select distinct pg_catalog.substr(entry, 17), pg_catalog.current_setting('server_encoding')
  from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) entry
 where entry like 'client\\_encoding=%%'
   and s.setrole in (0, (select oid from pg_catalog.pg_roles where rolname = session_user))
   and s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
   and pg_catalog.pg_char_to_encoding(pg_catalog.substr(entry, 17)::pg_catalog.name)
       <> pg_catalog.pg_char_to_encoding(pg_catalog.current_setting('server_encoding')::pg_catalog.name)
   and %s
"""
_DATABASE_PROPERTIES: LiteralString = """
select what from (
    select 'ALTER DATABASE ... SET' as what, exists (select from pg_catalog.pg_db_role_setting
                                                    where setdatabase = d.oid and setrole = 0) as given
      from pg_catalog.pg_database d where datname = pg_catalog.current_database()
    union all
    select 'ALTER ROLE ... IN DATABASE ... SET', exists (select from pg_catalog.pg_db_role_setting
                                                      where setdatabase = d.oid and setrole <> 0)
      from pg_catalog.pg_database d where datname = pg_catalog.current_database()
    union all
    select 'privileges of the database', datacl is not null
      from pg_catalog.pg_database d where datname = pg_catalog.current_database()
) properties where given
"""
_CONNECTION_LIMIT: LiteralString = """
select pg_catalog.quote_ident(datname), datconnlimit from pg_catalog.pg_database
 where datname = pg_catalog.current_database() and datconnlimit between 0 and %s
   and not (select rolsuper from pg_catalog.pg_roles where rolname = session_user)
"""
_EXTENSIONS: LiteralString = "select extname from pg_catalog.pg_extension order by 1"


def check_database(
    db: InspectedDatabase,
    selection: Selection,
    options: DumpOptions | DumpAllOptions,
    settings: Settings,
    installed: Mapping[str, str] | None,
) -> None:
    """Check a database for all problems other than missing privileges.

    :param installed: the extensions that a rehearsal on this machine would have; None if it cannot rehearse at all.
    """
    _connection_limit(db, options)
    _timeouts(db)
    _client_encoding(db, options)
    _locked(db, selection, options, settings)
    _prepared(db)
    if not has_database_properties(options):
        _not_in_plain(db)
    if installed is not None:
        _extensions(db, installed)


def has_database_properties(options: DumpOptions | DumpAllOptions) -> bool:
    """Return whether the dump contains the settings, privileges and tablespace of the database itself."""
    return isinstance(options, DumpAllOptions) or options.format != "plain" or options.create


def _connection_limit(db: InspectedDatabase, options: DumpOptions | DumpAllOptions) -> None:
    sessions = 1 + (options.jobs or 0) if isinstance(options, DumpOptions) else 1
    for name, limit in db.rows(_CONNECTION_LIMIT, sessions - 1):
        db.error(
            "connection_limit",
            f"{db.where} is limited to {counted(limit, 'connection')}, but this dump needs {sessions}",
            f"Run ALTER DATABASE {name} CONNECTION LIMIT {sessions + 2}, or use fewer jobs.",
            (name,),
        )


def _timeouts(db: InspectedDatabase) -> None:
    timeouts = [text for (text,) in db.rows(_TIMEOUTS)]
    if timeouts:
        db.warning(
            "timeouts",
            f"{db.where}: sessions of this user start with {', '.join(timeouts)}; pg_dump turns these timeouts off, "
            "other programs do not",
            "Turn them off for the role that dumps: ALTER ROLE ... SET statement_timeout = 0.",
            timeouts,
        )


def _client_encoding(db: InspectedDatabase, options: DumpOptions | DumpAllOptions) -> None:
    for client, server in db.rows(_ENCODINGS, options.encoding is None):
        db.warning(
            "client_encoding",
            f"{db.where}: the user's client_encoding is {client}, but the database's encoding is {server}: "
            "the dump fails at the first character that the former lacks",
            f"Dump with {parameter('encoding', server)}, or run ALTER ROLE ... RESET client_encoding.",
            (client,),
        )


def _locked(
    db: InspectedDatabase, selection: Selection, options: DumpOptions | DumpAllOptions, settings: Settings
) -> None:
    locked = {table: holder for oid, schema, table, holder in db.rows(_LOCKS) if selection.takes(oid, schema)}
    if locked:
        wait = options.lock_wait_timeout
        limit = f"{settings.lock_wait_timeout:g} s" if wait is None else f"{wait} ms" if isinstance(wait, int) else wait
        holders = sorted(set(locked.values()))
        db.warning(
            "locked",
            f"{db.where}: {first_named(holders)} holds or waits for an ACCESS EXCLUSIVE lock on "
            f"{first_named(list(locked))}; a dump would wait for the lock, and fail after {limit}",
            "Let the schema change finish, or find out what that session waits for: see pg_stat_activity and "
            "pg_blocking_pids(). A prepared transaction holds its locks until COMMIT PREPARED or ROLLBACK PREPARED.",
            list(locked),
        )


def _prepared(db: InspectedDatabase) -> None:
    prepared = db.rows(_PREPARED, OLD_TRANSACTION)
    if prepared:
        db.warning(
            "prepared_transactions",
            f"{db.where}: {counted(len(prepared), 'old prepared transaction')}, the oldest prepared "
            f"{prepared[0][1]} ago: {first_named([gid for gid, _ in prepared])}; they hold their locks and "
            "hold back VACUUM",
            "Find out whose they are, then run COMMIT PREPARED or ROLLBACK PREPARED.",
            [gid for gid, _ in prepared],
        )


def _not_in_plain(db: InspectedDatabase) -> None:
    properties = [what for (what,) in db.rows(_DATABASE_PROPERTIES)]
    if properties:
        db.warning(
            "database_properties",
            f"{db.where}: a plain dump without {parameter('create')} does not contain {', '.join(properties)}",
            f"Dump with {parameter('create', True)}, or in another format: pg_restore --create restores them.",
            properties,
        )


def _extensions(db: InspectedDatabase, installed: Mapping[str, str]) -> None:
    missing = [name for (name,) in db.rows(_EXTENSIONS) if name not in installed]
    if missing:
        db.warning(
            "extensions",
            f"{db.where}: a rehearsal on this machine would lack {noun(len(missing), 'extension')} "
            f"{first_named(missing)}",
            "Install their packages on the workers that verify at level restore.",
            missing,
        )
