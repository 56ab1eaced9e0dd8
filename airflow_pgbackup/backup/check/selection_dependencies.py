"""Find objects that a dump of selected schemas or tables depends on but does not contain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.options import DumpOptions

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_RELATIONS: LiteralString = """
select c.oid::int8, n.oid::int8 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
   and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
"""
_SCHEMAS: LiteralString = """
select oid::int8 from pg_catalog.pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
"""
# The parameters: the relations in the dump, which bring their indexes, defaults, constraints, triggers, rules and
# policies; and the schemas whose functions and types are in the dump.
_NEEDED: LiteralString = """
with taken(relation) as (select pg_catalog.unnest(%s::oid[])),
schemas(schema) as (select pg_catalog.unnest(%s::oid[])),
dumped(classid, objid) as (
    select 'pg_catalog.pg_class'::pg_catalog.regclass::oid, relation from taken
    union all
    select 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid
      from pg_catalog.pg_index join taken on indrelid = relation
    union all
    select x.tableoid, x.oid from pg_catalog.pg_attrdef x join taken on adrelid = relation
    union all
    select x.tableoid, x.oid from pg_catalog.pg_constraint x join taken on conrelid = relation
    union all
    select x.tableoid, x.oid from pg_catalog.pg_trigger x join taken on tgrelid = relation where not tgisinternal
    union all
    select x.tableoid, x.oid from pg_catalog.pg_rewrite x join taken on ev_class = relation
    union all
    select x.tableoid, x.oid from pg_catalog.pg_policy x join taken on polrelid = relation
    union all
    select x.tableoid, x.oid from pg_catalog.pg_proc x join schemas on pronamespace = schema
    union all
    select x.tableoid, x.oid from pg_catalog.pg_type x join schemas on typnamespace = schema
), needed(classid, objid) as (
    select distinct d.refclassid, d.refobjid from dumped x
      join pg_catalog.pg_depend d on d.classid = x.classid and d.objid = x.objid and d.deptype in ('n', 'a')
), found(classid, objid) as (
    -- An array type is dumped with its element type, a row type with its table.
    select case when t.typrelid <> 0 and c.relkind <> 'c' then 'pg_catalog.pg_class'::pg_catalog.regclass::oid
                else n.classid end,
           case when t.typrelid <> 0 and c.relkind <> 'c' then t.typrelid
                when t.typcategory = 'A' and t.typelem <> 0 then t.typelem else n.objid end
      from needed n
      left join pg_catalog.pg_type t on n.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and t.oid = n.objid
      left join pg_catalog.pg_class c on c.oid = t.typrelid
)
select distinct coalesce('extension ' || pg_catalog.quote_ident(e.extname), object.type || ' ' || object.identity),
       e.extname is not null
  from found f
  cross join lateral pg_catalog.pg_identify_object(f.classid, f.objid, 0) object
  left join pg_catalog.pg_namespace n on pg_catalog.quote_ident(n.nspname) = object.schema
  left join pg_catalog.pg_depend m on m.classid = f.classid and m.objid = f.objid and m.deptype = 'e'
  left join pg_catalog.pg_extension e on e.oid = m.refobjid
 where object.schema is not null and object.schema not in ('pg_catalog', 'information_schema', 'pg_toast')
   and case when f.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            then f.objid not in (select relation from taken)
                 and (select relkind from pg_catalog.pg_class where oid = f.objid) in ('r', 'p', 'v', 'm', 'f', 'S')
            else e.extname is not null or n.oid not in (select schema from schemas) end
 order by 1
"""


def check_selection_dependencies(db: InspectedDatabase, selection: Selection, options: DumpOptions) -> None:
    """Report objects that dumped objects depend on but the dump omits. A dump of a complete database omits none."""
    if selection.schemas is None and selection.tables is None and not (selection.no_tables or selection.no_schemas):
        return
    taken = [table for table, schema in db.optional_rows(_RELATIONS) if selection.takes(table, schema)]
    schemas = []
    if selection.tables is None:
        every = {schema for (schema,) in db.optional_rows(_SCHEMAS)}
        schemas = sorted((every if selection.schemas is None else selection.schemas) - selection.no_schemas)
    # pg_dump omits extensions if schemas or tables are selected, unless --extension is given.
    with_extensions = (selection.schemas is None and selection.tables is None) or bool(options.extensions)
    needed = [
        name
        for name, of_extension in db.optional_rows(_NEEDED, taken, schemas)
        if not (of_extension and with_extensions)
    ]
    report_problem(
        db,
        "outside_selection",
        needed,
        message=f"the selected objects depend on objects that are not selected: {first_named(needed)}",
    )
