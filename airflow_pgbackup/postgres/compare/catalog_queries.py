"""The queries of the catalogs with which a database is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The types with values of another type: its arrays, domains and ranges, and composite types.
_PARTS: LiteralString = """
with recursive parts (part, whole) as (
  select typelem, oid from pg_catalog.pg_type where typelem <> 0
  union all
  select typbasetype, oid from pg_catalog.pg_type where typbasetype <> 0
  union all
  select rngsubtype, rngtypid from pg_catalog.pg_range
  union all
  select rngtypid, (pg_catalog.to_jsonb(r)->>'rngmultitypid')::oid from pg_catalog.pg_range r
  union all
  select a.atttypid, c.reltype from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
   where a.attnum > 0 and c.reltype <> 0
)
"""
# Of the types given by name, only cube is one of an extension.
_RELATIONS: LiteralString = """
, unstable (reason, oid) as (
  select given.key, t.oid
    from pg_catalog.jsonb_each(%s::jsonb) given cross join pg_catalog.jsonb_array_elements_text(given.value) name
    join pg_catalog.pg_type t on t.typname = name
     and (t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace or name = 'cube')
  union
  select u.reason, p.whole from unstable u join parts p on p.part = u.oid
), reasons (oid, found) as (
  select oid, pg_catalog.array_agg(reason order by reason) from unstable group by oid
)
select n.nspname, c.relname, c.relkind::text,
       exists (select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'),
       array(select a.attname::text from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
       c.relispopulated, case when c.relispartition then c.oid::int8 else 0 end,
       coalesce(u.found, array[]::text[]), c.relpersistence = 'u',
       c.relkind = 'p' and exists (select from pg_catalog.pg_partition_tree(c.oid) t
                                     join pg_catalog.pg_class f on f.oid = t.relid where f.relkind = 'f')
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join reasons u on u.oid = c.reltype
 where c.relkind in ('r', 'p', 'f', 'm', 'v', 'S')
"""
RELATIONS: LiteralString = _PARTS + _RELATIONS

_WITH_ROWS_OF: LiteralString = """
, containing (schema, name, oid) as (
  select given.schema, given.name, c.reltype
    from rows from (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) given (schema, name)
    join pg_catalog.pg_namespace n on n.nspname = given.schema
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = given.name
  union
  select i.schema, i.name, p.whole from containing i join parts p on p.part = i.oid
)
select distinct n.nspname, c.relname, i.schema, i.name from containing i
  join pg_catalog.pg_class c on c.reltype = i.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and (n.nspname, c.relname) <> (i.schema, i.name)
 order by 1, 2, 3, 4
"""
WITH_ROWS_OF: LiteralString = _PARTS + _WITH_ROWS_OF
# The views that a materialized view with data reads, directly or through other views, with all that their rules use:
# sequences too that nextval() gets as constants. Only what comes with the server is not in pg_depend.
DRAWING: LiteralString = """
with recursive reading (oid, class, object) as (
  select oid, 'pg_catalog.pg_class'::regclass::oid, oid from pg_catalog.pg_class where relkind = 'm' and relispopulated
  union
  select r.ev_class, d.refclassid, d.refobjid from reading
    join pg_catalog.pg_rewrite r on r.ev_class = reading.object and reading.class = 'pg_catalog.pg_class'::regclass
    join pg_catalog.pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
), views (definition) as (
  select pg_catalog.pg_get_viewdef(oid) from (select distinct oid from reading) v
)
select array(select distinct n.nspname || '.' || c.relname
               from reading join pg_catalog.pg_class c on c.oid = reading.object and c.relkind = 'S'
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where reading.class = 'pg_catalog.pg_class'::regclass
                and exists (select from views where definition like '%nextval(%')),
       exists (select from reading where class = any ('{pg_catalog.pg_proc, pg_catalog.pg_operator}'::regclass[]))
       or exists (select from views where definition ~ 'nextval[(](?!''[^''])')
"""
STEPS: LiteralString = """
select n.nspname, c.relname, s.seqincrement, s.seqcycle from pg_catalog.pg_sequence s
  join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
"""
