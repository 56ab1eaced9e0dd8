"""What else in a database would stop or spoil its backup: locks, settings, patterns of names, missing extensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import named
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Only ACCESS EXCLUSIVE keeps a dump out; also one that is still being waited for, since locks are a queue.
_LOCKS: LiteralString = """
select distinct pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
       coalesce('session ' || l.pid, 'a prepared transaction')
  from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid = l.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
   and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
   and c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
 order by 1, 2
"""
_PREPARED: LiteralString = """
select pg_catalog.quote_literal(gid), pg_catalog.date_trunc('second', pg_catalog.now() - prepared)::text
  from pg_catalog.pg_prepared_xacts
 where database = pg_catalog.current_database() and prepared < pg_catalog.now() - %s::pg_catalog.interval
 order by prepared
"""
OLD_TRANSACTION = "5 minutes"
"""A two-phase commit takes seconds."""

# What a session of this user starts with; this one has set its own.
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
_EXTENSIONS: LiteralString = "select extname from pg_catalog.pg_extension order by 1"


def check_database(
    db: InspectedDatabase,
    options: DumpOptions | DumpAllOptions,
    settings: Settings,
    installed: Mapping[str, str] | None,
) -> None:
    """Look at everything but the rights.

    :param installed: extensions that a rehearsal here would have; None where there can be none at all.
    """
    _timeouts(db)
    _client_encoding(db, options)
    _locked(db, options, settings)
    _prepared(db)
    if isinstance(options, DumpOptions) and options.format == "plain" and not options.create:
        _not_in_plain(db)
    if installed is not None:
        _extensions(db, installed)


def _timeouts(db: InspectedDatabase) -> None:
    timeouts = [text for (text,) in db.rows(_TIMEOUTS)]
    if timeouts:
        db.warning(
            "timeouts",
            f"{db.where}: {', '.join(timeouts)}; pg_dump switches that off for itself, other sessions have it",
            "give the role that dumps a 0 of its own: ALTER ROLE … SET statement_timeout = 0",
            timeouts,
        )


def _client_encoding(db: InspectedDatabase, options: DumpOptions | DumpAllOptions) -> None:
    for client, server in db.rows(_ENCODINGS, options.encoding is None):
        db.warning(
            "client_encoding",
            f"{db.where}: the user's client_encoding is {client}, the database's encoding {server}: "
            "a character that the former lacks ends the dump",
            f"set encoding={server!r}, or ALTER ROLE … RESET client_encoding",
            (client,),
        )


def _locked(db: InspectedDatabase, options: DumpOptions | DumpAllOptions, settings: Settings) -> None:
    locked: dict[str, str] = dict(db.rows(_LOCKS))
    if locked:
        wait = options.lock_wait_timeout
        limit = f"{settings.lock_wait_timeout:g} s" if wait is None else f"{wait} ms" if isinstance(wait, int) else wait
        holders = sorted(set(locked.values()))
        db.warning(
            "locked",
            f"{db.where}: {named(holders)} locks or waits to lock {named(list(locked))}; "
            f"a dump would wait for that, and give up after {limit}",
            "let the schema change finish, or see what that session is waiting for: pg_stat_activity, pg_blocking_pids",
            list(locked),
        )


def _prepared(db: InspectedDatabase) -> None:
    prepared = db.rows(_PREPARED, OLD_TRANSACTION)
    if prepared:
        db.warning(
            "prepared_transactions",
            f"{db.where}: a prepared transaction is left over, the oldest for {prepared[0][1]}: "
            f"{named([gid for gid, _ in prepared])}; it keeps its locks and keeps VACUUM from its work",
            "COMMIT PREPARED or ROLLBACK PREPARED it, after asking whose it is",
            [gid for gid, _ in prepared],
        )


def _not_in_plain(db: InspectedDatabase) -> None:
    properties = [what for (what,) in db.rows(_DATABASE_PROPERTIES)]
    if properties:
        db.warning(
            "database_properties",
            f"{db.where}: a plain dump without create leaves out {', '.join(properties)}",
            "set create=True, or use another format, from which pg_restore --create brings them",
            properties,
        )


def _extensions(db: InspectedDatabase, installed: Mapping[str, str]) -> None:
    missing = [name for (name,) in db.rows(_EXTENSIONS) if name not in installed]
    if missing:
        db.warning(
            "extensions",
            f"{db.where}: a rehearsal here would lack the extensions {named(missing)}",
            "install their packages beside PostgreSQL's on the workers that verify at level restore",
            missing,
        )
