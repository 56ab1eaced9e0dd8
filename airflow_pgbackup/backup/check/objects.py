"""Objects that can be restored only under some conditions: one catalog query for each kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.locks import LOCKED
from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The first columns are the table and its schema, so that tables outside of the selection can be skipped.
_NOT_VALID: LiteralString = """
select c.oid::int8, c.relnamespace::int8,
       pg_catalog.quote_ident(x.conname) || ' on ' || c.oid::pg_catalog.regclass::text,
       x.contype = 'n' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)
  from pg_catalog.pg_constraint x join pg_catalog.pg_class c on c.oid = x.conrelid
 where not x.convalidated and x.conislocal and x.conparentid = 0 and c.relpersistence <> 't'
   and coalesce((pg_catalog.to_jsonb(x) ->> 'conenforced')::bool, true)  -- since version 18
union all
select 0, x.connamespace::int8,
       pg_catalog.quote_ident(x.conname) || ' on ' || x.contypid::pg_catalog.regtype::text, false
  from pg_catalog.pg_constraint x
 where not x.convalidated and x.contypid <> 0
 order by 3
"""
# pg_dump skips invalid indexes, except those of partitioned tables. An index that is being built is not valid yet.
_INVALID_INDEXES: LiteralString = """
select c.oid::int8, c.relnamespace::int8, i.indexrelid::pg_catalog.regclass::text
  from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indrelid
 where not (i.indisvalid and i.indisready) and c.relkind in ('r', 'm') and c.relpersistence <> 't'
   and c.relnamespace <> 'pg_toast'::pg_catalog.regnamespace
   and not exists (select from pg_catalog.pg_stat_progress_create_index p where p.index_relid = i.indexrelid)
 order by 3
"""
# COPY looks up the names: of indexes, which are created later, of overloaded functions, of roles, which are not dumped.
_REG_COLUMNS: LiteralString = """
with recursive reg(type, name) as (
    select oid, typname::text from pg_catalog.pg_type
     where typnamespace = 'pg_catalog'::pg_catalog.regnamespace
       and typname in ('regclass', 'regproc', 'regoper', 'regrole')
    union
    select t.oid, r.name
      from reg r join pg_catalog.pg_type t
        on (t.typcategory = 'A' and t.typelem = r.type) or (t.typtype = 'd' and t.typbasetype = r.type)
        or (t.typtype = 'c' and exists (select from pg_catalog.pg_attribute a
                                         where a.attrelid = t.typrelid and a.atttypid = r.type and not a.attisdropped))
)
select c.oid::int8, c.relnamespace::int8, c.oid::pg_catalog.regclass::text || '.' || pg_catalog.quote_ident(a.attname),
       bool_or(r.name = 'regrole'), bool_or(r.name <> 'regrole')
  from reg r join pg_catalog.pg_attribute a on a.atttypid = r.type join pg_catalog.pg_class c on c.oid = a.attrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
   and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   and case when c.oid in ({locked}) then false else pg_catalog.pg_relation_size(c.oid) > 0 end
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = c.tableoid and d.objid = c.oid and d.deptype = 'e')
 group by 1, 2, 3 order by 3
""".replace("{locked}", LOCKED)
_FOREIGN_VIEWS: LiteralString = """
with recursive reads(view, relation) as (
    select oid, oid from pg_catalog.pg_class where relkind = 'm' and relispopulated
    union
    select r.view, c.oid
      from reads r join pg_catalog.pg_rewrite w on w.ev_class = r.relation
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
       and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      join pg_catalog.pg_class c on c.oid = d.refobjid and c.relkind in ('v', 'f')
)
select c.oid::int8, c.relnamespace::int8, c.oid::pg_catalog.regclass::text
  from reads r join pg_catalog.pg_class c on c.oid = r.view
 where exists (select from pg_catalog.pg_class f where f.oid = r.relation and f.relkind = 'f')
    or exists (select from pg_catalog.pg_rewrite w
                 join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                  and d.objid = w.oid and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                 join pg_catalog.pg_depend m on m.classid = d.refclassid and m.objid = d.refobjid and m.deptype = 'e'
                 join pg_catalog.pg_extension e on e.oid = m.refobjid
                where w.ev_class = r.relation and e.extname = 'dblink')
 group by c.oid order by 3
"""
_COLLATIONS: LiteralString = """
select 'database ' || pg_catalog.quote_ident(datname) from pg_catalog.pg_database
 where datname = pg_catalog.current_database()
   and datcollversion is not null
   and datcollversion is distinct from pg_catalog.pg_database_collation_actual_version(oid)
union all
select 'collation ' || used.collation::pg_catalog.regcollation::text
  from (select distinct refobjid as collation from pg_catalog.pg_depend
         where refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass and deptype = 'n') used
  join pg_catalog.pg_collation c on c.oid = used.collation
 where c.collversion is not null and c.collversion is distinct from pg_catalog.pg_collation_actual_version(c.oid)
"""
_EVENT_TRIGGERS: LiteralString = """
select pg_catalog.quote_ident(evtname) from pg_catalog.pg_event_trigger t
 where not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass and d.objid = t.oid
                      and d.deptype = 'e')
 order by 1
"""
_PUBLICATIONS: LiteralString = """
select pg_catalog.quote_ident(pubname) from pg_catalog.pg_publication p
 where puballtables or exists (select from pg_catalog.pg_publication_namespace n where n.pnpubid = p.oid)
 order by 1
"""
_SUBSCRIPTIONS: LiteralString = """
select pg_catalog.quote_ident(subname) from pg_catalog.pg_subscription
 where subenabled and (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
   and subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
 order by 1
"""
_LIBRARIES: LiteralString = """
select distinct pg_catalog.quote_literal(p.probin)
  from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
 where l.lanname = 'c' and p.oid >= 16384
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
 order by 1
"""
# Options that name files in share/tsearch_data; the files of stop words come with PostgreSQL.
_DICTIONARIES: LiteralString = """
select t.oid::pg_catalog.regdictionary::text from pg_catalog.pg_ts_dict t
 where t.oid >= 16384 and dictinitoption ~* '\\m(dictfile|afffile|synonyms|rules)\\M'
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_ts_dict'::pg_catalog.regclass and d.objid = t.oid
                      and d.deptype = 'e')
 order by 1
"""


def check_objects(db: InspectedDatabase, selection: Selection, options: DumpOptions | DumpAllOptions) -> None:
    """Check constraints, indexes, columns, collations, and objects that only a superuser can restore.

    The session's search_path must be empty, so that all names are qualified.
    """
    constraints = [row for row in db.optional_rows(_NOT_VALID) if selection.takes(row[0], row[1])]
    report_problem(db, "not_valid", [name for _, _, name, inherited in constraints if not inherited])
    report_problem(db, "not_null_not_valid", [name for _, _, name, inherited in constraints if inherited])
    report_problem(db, "invalid_index", _taken(db.optional_rows(_INVALID_INDEXES), selection))
    columns = [row for row in db.optional_rows(_REG_COLUMNS) if selection.takes_rows(row[0], row[1])]
    report_problem(db, "reg_columns", [name for _, _, name, _, other in columns if other])
    report_problem(db, "role_columns", [name for _, _, name, role, _ in columns if role])
    report_problem(db, "foreign_views", _taken(db.optional_rows(_FOREIGN_VIEWS), selection) if selection.rows else ())
    report_problem(db, "collation_version", _names(db.optional_rows(_COLLATIONS)))
    if selection.schemas is None and selection.tables is None:
        report_problem(db, "event_triggers", _names(db.optional_rows(_EVENT_TRIGGERS)))
        report_problem(db, "libraries", _names(db.optional_rows(_LIBRARIES)))
        report_problem(db, "dictionary_files", _names(db.optional_rows(_DICTIONARIES)))
        report_problem(db, "publications", () if options.no_publications else _names(db.optional_rows(_PUBLICATIONS)))
        report_problem(
            db, "subscriptions_disabled", () if options.no_subscriptions else _names(db.optional_rows(_SUBSCRIPTIONS))
        )


def _taken(rows: Iterable[tuple[int, int, str]], selection: Selection) -> list[str]:
    return [name for table, schema, name in rows if selection.takes(table, schema)]


def _names(rows: Iterable[tuple[str]]) -> list[str]:
    return [name for (name,) in rows]
