"""Objects that only a superuser can restore, beside event triggers, publications and C functions; and tablespaces.

Whoever owns the target database can create everything else in it, trusted extensions included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.database import has_database_properties
from airflow_pgbackup.backup.check.restorability_problems import PROBLEMS, report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Parameters that every role may set, or some role that is not a superuser. pg_settings lacks `role`, and parameters of
# libraries that the session has not loaded: only a superuser may set those for a database or function.
_SETTABLE: LiteralString = """
settable(name) as materialized (
    select pg_catalog.lower(name) from pg_catalog.pg_settings where context in ('user', 'backend')
    union all select parname from pg_catalog.pg_parameter_acl
    union all select 'role'
)
"""
# pg_dump omits members of extensions (e), and what comes with another object (i): array types, constructors of ranges.
_OBJECTS: LiteralString = """
with {settable}, made(kind, schema, class, oid, name) as (
    select case when p.proleakproof then 'LEAKPROOF function'
                when p.prosupport <> 0 then 'function with SUPPORT'
                when p.prokind = 'a' then 'aggregate with state type internal'
                when not l.lanpltrusted then 'function in language ' || pg_catalog.quote_ident(l.lanname)
                else 'function with SET of a superuser''s parameter' end,
           p.pronamespace, p.tableoid, p.oid, p.oid::pg_catalog.regprocedure::text
      from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
     where p.proleakproof or p.prosupport <> 0
        or case when p.prokind = 'a'
                then exists (select from pg_catalog.pg_aggregate a
                              where a.aggfnoid = p.oid
                                and 'internal'::pg_catalog.regtype in (a.aggtranstype, a.aggmtranstype))
                else not l.lanpltrusted and l.lanname <> 'c' end
        or exists (select from pg_catalog.unnest(p.proconfig) entry
                    where pg_catalog.lower(pg_catalog.split_part(entry, '=', 1)) not in (select name from settable))
    union all
    select 'base type', typnamespace, tableoid, oid, oid::pg_catalog.regtype::text
      from pg_catalog.pg_type where typtype = 'b' or not typisdefined
    union all
    select 'operator class', n.oid, c.tableoid, c.oid,
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.opcname)
      from pg_catalog.pg_opclass c join pg_catalog.pg_namespace n on n.oid = c.opcnamespace
    union all
    select 'operator family', n.oid, f.tableoid, f.oid,
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(f.opfname)
      from pg_catalog.pg_opfamily f join pg_catalog.pg_namespace n on n.oid = f.opfnamespace
     where not exists (select from pg_catalog.pg_opclass c where c.opcfamily = f.oid)
    union all
    select 'text search parser', n.oid, p.tableoid, p.oid,
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.prsname)
      from pg_catalog.pg_ts_parser p join pg_catalog.pg_namespace n on n.oid = p.prsnamespace
    union all
    select 'text search template', n.oid, t.tableoid, t.oid,
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.tmplname)
      from pg_catalog.pg_ts_template t join pg_catalog.pg_namespace n on n.oid = t.tmplnamespace
    union all
    select 'cast', 0, c.tableoid, c.oid,
           pg_catalog.format_type(c.castsource, null) || ' AS ' || pg_catalog.format_type(c.casttarget, null)
      from pg_catalog.pg_cast c
     where c.castmethod = 'b'
        or not exists (select from pg_catalog.pg_type t
                        where t.oid in (c.castsource, c.casttarget) and t.oid >= 16384
                          and not exists (select from pg_catalog.pg_depend d
                                           where d.classid = t.tableoid and d.objid = t.oid and d.deptype = 'e'))
    union all
    select 'foreign-data wrapper', 0, tableoid, oid, pg_catalog.quote_ident(fdwname)
      from pg_catalog.pg_foreign_data_wrapper
    union all
    select 'language', 0, tableoid, oid, pg_catalog.quote_ident(lanname) from pg_catalog.pg_language
    union all
    select 'access method', 0, tableoid, oid, pg_catalog.quote_ident(amname) from pg_catalog.pg_am
    union all
    select 'untrusted extension', 0, e.tableoid, e.oid, pg_catalog.quote_ident(e.extname)
      from pg_catalog.pg_extension e
      join pg_catalog.pg_available_extensions a on a.name = e.extname
      join pg_catalog.pg_available_extension_versions v on v.name = a.name and v.version = a.default_version
     where v.superuser and not v.trusted
)
select kind, schema::int8, name from made
 where oid >= 16384 and not exists (select from pg_catalog.pg_depend d
                                     where d.classid = made.class and d.objid = made.oid and d.deptype in ('e', 'i'))
""".replace("{settable}", _SETTABLE)
_SETTINGS: LiteralString = """
with {settable}
select distinct 'setting of the database', 0, name
  from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) entry, pg_catalog.split_part(entry, '=', 1) name
 where s.setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
   and pg_catalog.lower(name) not in (select name from settable)
""".replace("{settable}", _SETTABLE)
# Since version 16 also members of pg_create_subscription, if a password is required. Only a superuser may read all of
# pg_subscription, and pg_dump dumps it only then.
_SUBSCRIPTIONS: LiteralString = """
select 'subscription', 0, pg_catalog.quote_ident(subname) from pg_catalog.pg_subscription s
 where not coalesce((pg_catalog.to_jsonb(s) ->> 'subpasswordrequired')::bool, false)
   and subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
"""
_TABLESPACES: LiteralString = """
select coalesce(i.indrelid, c.oid)::int8, c.relnamespace::int8, pg_catalog.quote_ident(t.spcname)
  from pg_catalog.pg_tablespace t join pg_catalog.pg_class c on c.reltablespace = t.oid
  left join pg_catalog.pg_index i on i.indexrelid = c.oid
 where t.oid >= 16384 and c.relpersistence <> 't' and c.relnamespace <> 'pg_toast'::pg_catalog.regnamespace
"""
_DATABASE_TABLESPACE: LiteralString = """
select pg_catalog.quote_ident(t.spcname)
  from pg_catalog.pg_database d join pg_catalog.pg_tablespace t on t.oid = d.dattablespace
 where d.datname = pg_catalog.current_database() and t.oid >= 16384
"""


def check_superuser_objects(db: InspectedDatabase, selection: Selection, options: DumpOptions | DumpAllOptions) -> None:
    """Check for objects that only a superuser can restore.

    The session's search_path must be empty, so that all names are qualified.
    """
    # pg_dump --extension leaves out what is in no schema.
    complete = selection.takes(0, 0) and not getattr(options, "extensions", ())
    rows = [row for row in db.optional_rows(_OBJECTS) if (selection.takes(0, row[1]) if row[1] else complete)]
    if has_database_properties(options):
        rows += db.optional_rows(_SETTINGS)
    if complete and not options.no_subscriptions:
        rows += db.optional_rows(_SUBSCRIPTIONS)
    kinds: dict[str, list[str]] = {}
    for kind, _, name in sorted(rows):
        kinds.setdefault(kind, []).append(name)
    shown = ", ".join(f"{kind} {first_named(names)}" for kind, names in kinds.items())
    report_problem(
        db,
        "superuser_only",
        [f"{kind} {name}" for kind, names in kinds.items() for name in names],
        message=PROBLEMS["superuser_only"].message.format(shown),
    )


def check_tablespaces(db: InspectedDatabase, selection: Selection, options: DumpOptions | DumpAllOptions) -> None:
    """Check for tablespaces that a server must have for a restore."""
    plain = isinstance(options, DumpAllOptions) or options.format == "plain"
    if plain and options.no_tablespaces:  # pg_dump ignores it for archives
        return
    names = {name for table, schema, name in db.optional_rows(_TABLESPACES) if selection.takes(table, schema)}
    if has_database_properties(options):
        names |= {name for (name,) in db.optional_rows(_DATABASE_TABLESPACE)}
    report_problem(db, "tablespaces", sorted(names))
