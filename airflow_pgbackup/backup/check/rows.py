"""Rows that violate the constraints of their table, and rows that are too large. Optional, as it reads all tables.

Such rows result from ``session_replication_role = replica``, from indexes corrupted by a new version of a collation, or
from disk faults. Only expressions that use nothing but built-in functions are evaluated: otherwise the owner of a table
could run code with the privileges of the user that checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.check.locks import LOCKED
from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.connection.server_errors import server_message

if TYPE_CHECKING:
    from typing_extensions import LiteralString

LARGE_ROW = 768 << 20
"""Bytes of a row's text. PostgreSQL cannot send a message of 1 GiB, and COPY's escapes make a row longer."""

_MOST_COMPRESSED = 255  # the highest ratio of lz4 (pglz: 91): a smaller TOAST table cannot hold such a row

_NOT_NOW = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.ConfigurationLimitExceeded,
    psycopg.errors.DiskFull,
    psycopg.errors.OutOfMemory,
)

# Corrupt indexes must not be used; with row_security off, a user that row security restricts gets an error.
_SETTINGS: LiteralString = """
select pg_catalog.set_config(name, value, true)
  from (values ('enable_indexscan', 'off'), ('enable_indexonlyscan', 'off'), ('enable_bitmapscan', 'off'),
               ('row_security', 'off'), ('statement_timeout', '0'), ('lock_timeout', '10s')) settings(name, value)
"""
_UNLOCKED: LiteralString = """
with unlocked as (
    select * from pg_catalog.pg_class
     where relkind in ('r', 'p') and relpersistence <> 't' and oid >= 16384 and oid not in ({locked})
)""".replace("{locked}", LOCKED)
_CHECKS: LiteralString = """{unlocked}
select c.oid::int8, c.relnamespace::int8, c.oid::pg_catalog.regclass::text, pg_catalog.quote_ident(x.conname),
       pg_catalog.pg_get_expr(x.conbin, x.conrelid)
  from pg_catalog.pg_constraint x join unlocked c on c.oid = x.conrelid
 where x.contype = 'c' and x.convalidated and c.relkind = 'r'
   and not exists (select from pg_catalog.pg_depend d
                     left join pg_catalog.pg_type t on d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
                      and t.oid = d.refobjid and t.typtype = 'e'
                    where d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = x.oid
                      and d.refclassid <> 'pg_catalog.pg_class'::pg_catalog.regclass and t.oid is null)
 order by 3, 4
""".replace("{unlocked}", _UNLOCKED)
_FOREIGN_KEYS: LiteralString = """{unlocked}
select c.oid::int8, c.relnamespace::int8, c.oid::pg_catalog.regclass::text, pg_catalog.quote_ident(x.conname),
       c.relkind::text, r.oid::pg_catalog.regclass::text, r.relkind::text, x.confmatchtype = 'f',
       array(select pg_catalog.quote_ident(a.attname) from pg_catalog.unnest(x.conkey) with ordinality k(attnum, n)
               join pg_catalog.pg_attribute a on a.attrelid = x.conrelid and a.attnum = k.attnum order by k.n),
       array(select pg_catalog.quote_ident(a.attname) from pg_catalog.unnest(x.confkey) with ordinality k(attnum, n)
               join pg_catalog.pg_attribute a on a.attrelid = x.confrelid and a.attnum = k.attnum order by k.n)
  from pg_catalog.pg_constraint x join unlocked c on c.oid = x.conrelid
  join pg_catalog.pg_class r on r.oid = x.confrelid
 where x.contype = 'f' and x.convalidated and x.conparentid = 0
   and not coalesce((pg_catalog.to_jsonb(x) ->> 'conperiod')::bool, false)  -- since version 18
   and not exists (select from pg_catalog.unnest(x.conpfeqop) o(oid) join pg_catalog.pg_operator p on p.oid = o.oid
                    where p.oprnamespace <> 'pg_catalog'::pg_catalog.regnamespace or p.oprname <> '=')
 order by 3, 4
""".replace("{unlocked}", _UNLOCKED)
_UNIQUE: LiteralString = """{unlocked}
select c.oid::int8, c.relnamespace::int8, c.oid::pg_catalog.regclass::text,
       i.indexrelid::pg_catalog.regclass::text,
       array(select pg_catalog.pg_get_indexdef(i.indexrelid, n, false)
               from pg_catalog.generate_series(1, i.indnkeyatts) n order by n),
       pg_catalog.pg_get_expr(i.indpred, i.indrelid), i.indnullsnotdistinct
  from pg_catalog.pg_index i join unlocked c on c.oid = i.indrelid
 where i.indisunique and i.indisvalid and c.relkind = 'r'
   and not exists (select from pg_catalog.unnest(i.indcollation) used(oid)
                     join pg_catalog.pg_collation l on l.oid = used.oid where not l.collisdeterministic)
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid
                      and d.refclassid not in ('pg_catalog.pg_class'::pg_catalog.regclass,
                                               'pg_catalog.pg_constraint'::pg_catalog.regclass,
                                               'pg_catalog.pg_collation'::pg_catalog.regclass))
 order by 4
""".replace("{unlocked}", _UNLOCKED)
_LARGE: LiteralString = """{unlocked}
select c.oid::int8, c.relnamespace::int8, c.oid::pg_catalog.regclass::text,
       array(select case when a.atttypid in ('text'::pg_catalog.regtype, 'varchar'::pg_catalog.regtype)
                         then 'coalesce(pg_catalog.octet_length('
                         when a.atttypid = 'bytea'::pg_catalog.regtype
                         then '2 * coalesce(pg_catalog.octet_length('
                         else 'coalesce(pg_catalog.pg_column_size(' end
                    || pg_catalog.quote_ident(a.attname) || '), 0)::int8'
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attlen = -1)
  from unlocked c
 where c.relkind = 'r' and c.reltoastrelid <> 0
   and pg_catalog.pg_relation_size(c.reltoastrelid) > %s
 order by 3
""".replace("{unlocked}", _UNLOCKED)


def check_rows(db: InspectedDatabase, selection: Selection) -> None:
    """Read every selected table, several times.

    The session's search_path must be empty, so that all names are qualified. Tables that the user may not read, or only
    in part, are skipped: :mod:`.grants` reports them.
    """
    db.optional_rows(_SETTINGS)
    rows = _Rows(db)

    def selected(query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return [row[2:] for row in db.optional_rows(query, *values) if selection.takes_rows(row[0], row[1])]

    checks = [
        f"{constraint} on {table}"
        for table, constraint, expression in selected(_CHECKS)
        if rows.any(table, f"select from only {table} where not ({expression}) limit 1")
    ]
    report_problem(db, "violated_check", checks)
    keys = [_ForeignKey(*row) for row in selected(_FOREIGN_KEYS)]
    violated = [f"{key.name} on {key.table}" for key in keys if rows.any(key.table, _orphans(key))]
    report_problem(db, "violated_foreign_key", violated)
    unique = [index for table, index, *of in selected(_UNIQUE) if rows.any(table, _duplicates(table, *of))]
    report_problem(db, "violated_unique", unique)
    large = [
        table
        for table, sizes in selected(_LARGE, LARGE_ROW // 2 // _MOST_COMPRESSED)
        if rows.any(table, f"select from only {table} where {' + '.join(sizes)} > {LARGE_ROW} limit 1")
    ]
    report_problem(db, "large_rows", large)
    if tables := list(rows.skipped):
        db.warning(
            "not_scanned",
            f"{db.where}: cannot scan {first_named(tables)}: {'; '.join(dict.fromkeys(rows.skipped.values()))}",
            "Check again when the schema change has ended, or raise temp_file_limit.",
            tables,
        )
    tables, messages = list(rows.unreadable), "; ".join(dict.fromkeys(rows.unreadable.values()))
    report_problem(db, "unreadable_rows", tables, message=f"cannot read {first_named(tables)}: {messages}")


class _Rows:
    """Runs the queries.

    :ivar unreadable: tables that cannot be read to the end, each with the server's message.
    :ivar skipped: tables for which the server lacked time or space, each with its message.
    """

    def __init__(self, db: InspectedDatabase) -> None:
        self._db = db
        self.unreadable: dict[str, str] = {}
        self.skipped: dict[str, str] = {}

    def any(self, table: str, query: str) -> bool:
        try:
            return self._db.has_row(query)
        except _NOT_NOW as error:
            self.skipped[table] = server_message(error)
            return False
        except psycopg.DataError:
            return True  # the expression fails, as it will when COPY evaluates it
        except (psycopg.InternalError, psycopg.errors.IoError, psycopg.errors.UndefinedFile) as error:
            self.unreadable[table] = server_message(error)
            return False


@dataclass(frozen=True)
class _ForeignKey:
    table: str
    name: str
    kind: str  # relkind
    referenced: str
    referenced_kind: str
    match_full: bool
    columns: list[str]
    referenced_columns: list[str]


def _orphans(key: _ForeignKey) -> str:
    """Return the query of RI_Initial_Check in ``src/backend/utils/adt/ri_triggers.c``."""
    only = "" if key.kind == "p" else "only "
    referenced_only = "" if key.referenced_kind == "p" else "only "
    pairs = zip(key.referenced_columns, key.columns, strict=True)
    on = " and ".join(f"p.{referenced} operator(pg_catalog.=) f.{column}" for referenced, column in pairs)
    given = (" or " if key.match_full else " and ").join(f"f.{column} is not null" for column in key.columns)
    return (
        f"select from {only}{key.table} f left join {referenced_only}{key.referenced} p on {on} "
        f"where p.{key.referenced_columns[0]} is null and ({given}) limit 1"
    )


def _duplicates(table: str, columns: list[str], predicate: str | None, nulls_too: bool) -> str:
    conditions = [f"({predicate})"] if predicate else []
    conditions += [] if nulls_too else [f"({column}) is not null" for column in columns]
    where = f"where {' and '.join(conditions)} " if conditions else ""
    return (
        f"select from only {table} {where}group by {', '.join(f'({c})' for c in columns)} having count(*) > 1 limit 1"
    )
