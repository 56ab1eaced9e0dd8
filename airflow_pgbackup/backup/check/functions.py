"""Functions that a restore runs: in generated columns, constraints, indexes, materialized views and partition keys.

A restore runs them with an empty ``search_path``, table by table, and at another time. What they depend on is read from
their text by :mod:`airflow_pgbackup.postgres.sql.function_body`. An unqualified name counts only if a user's schema has
an object of that name and ``pg_catalog`` has none. Nothing is executed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.locks import LOCKED
from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.sql.function_body import Mentions, Name, changing, mentions, tokens

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The expressions that a restore evaluates, with their dependencies. These lead through views, by their rules, but not
# through tables and materialized views, whose rows are stored. Partitions have the expressions of their parent. Locked
# tables are skipped: pg_get_expr() would wait for the lock.
_USES: LiteralString = """
with recursive relations(oid, relkind, name, relispopulated) as (
    select c.oid, c.relkind, c.oid::pg_catalog.regclass::text, c.relispopulated
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and not c.relispartition
       and c.oid not in ({locked})
), roots(kind, name, relation, classid, objid) as (
    select 'generated column', c.name || '.' || pg_catalog.quote_ident(a.attname), c.oid,
           'pg_catalog.pg_attrdef'::pg_catalog.regclass::oid, d.oid
      from relations c join pg_catalog.pg_attrdef d on d.adrelid = c.oid
      join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
     where a.attgenerated = 's'
    union all
    select 'constraint', pg_catalog.quote_ident(x.conname) || ' on ' || c.name, c.oid,
           'pg_catalog.pg_constraint'::pg_catalog.regclass::oid, x.oid
      from relations c join pg_catalog.pg_constraint x on x.conrelid = c.oid
     where x.contype = 'c' and x.conislocal
    union all
    select 'constraint', pg_catalog.quote_ident(conname) || ' on ' || pg_catalog.format_type(contypid, null), 0,
           'pg_catalog.pg_constraint'::pg_catalog.regclass::oid, oid
      from pg_catalog.pg_constraint where contype = 'c' and contypid <> 0 and oid >= 16384
    union all
    select 'partition key of', name, oid, 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid
      from relations where relkind = 'p'
    union all
    select 'index', c.name, i.indrelid, 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid
      from relations c join pg_catalog.pg_index i on i.indexrelid = c.oid
     where i.indexprs is not null or i.indpred is not null
    union all
    select 'materialized view', c.name, c.oid, 'pg_catalog.pg_rewrite'::pg_catalog.regclass::oid, r.oid
      from relations c join pg_catalog.pg_rewrite r on r.ev_class = c.oid
     where c.relkind = 'm' and c.relispopulated
), uses(kind, name, relation, classid, objid) as (
    select * from roots
    union
    select u.kind, u.name, u.relation,
           case when v.oid is null then d.refclassid else 'pg_catalog.pg_rewrite'::pg_catalog.regclass end,
           coalesce(v.oid, d.refobjid)
      from uses u
      join pg_catalog.pg_depend d on d.classid = u.classid and d.objid = u.objid and d.deptype in ('n', 'a')
      left join (pg_catalog.pg_rewrite v join pg_catalog.pg_class c on c.oid = v.ev_class and c.relkind = 'v')
        on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and v.ev_class = d.refobjid
     where v.oid is not null
        or d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
        or (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            and u.classid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_rewrite'::pg_catalog.regclass)
            and u.kind = 'constraint')
)
select u.kind, u.name, u.relation::int8, coalesce(r.relnamespace, 0)::int8,
       case u.classid when 'pg_catalog.pg_proc'::pg_catalog.regclass then u.objid::int8 end,
       case u.classid when 'pg_catalog.pg_constraint'::pg_catalog.regclass
            then pg_catalog.pg_get_expr(x.conbin, x.conrelid) end,
       u.kind = 'constraint' and u.classid in ('pg_catalog.pg_class'::pg_catalog.regclass,
                                               'pg_catalog.pg_rewrite'::pg_catalog.regclass)
  from uses u left join pg_catalog.pg_class r on r.oid = u.relation
  left join pg_catalog.pg_constraint x
    on u.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and x.oid = u.objid
 where u.classid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass)
    or u.kind = 'constraint'
 order by 1, 2
""".replace("{locked}", LOCKED)
# A body in standard SQL (BEGIN ATOMIC) is parsed when the function is created, so its names are resolved already.
_FUNCTIONS: LiteralString = """
select p.oid::int8, n.nspname, p.proname, p.oid::pg_catalog.regprocedure::text,
       case when l.lanname in ('sql', 'plpgsql') and p.prosqlbody is null then p.prosrc end,
       exists (select from pg_catalog.unnest(p.proconfig) entry where entry like 'search\\_path=%%'),
       (select pg_catalog.quote_ident(e.extname)
          from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
         where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  join pg_catalog.pg_language l on l.oid = p.prolang
 where n.nspname not in ('pg_catalog', 'information_schema') and (p.oid = any (%s::oid[]) or p.proname = any (%s))
"""
_TABLES: LiteralString = """
select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relname = any (%s) and c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_(toast|temp)'
"""
_TYPES: LiteralString = """
select n.nspname, t.typname from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
 where t.typname = any (%s) and n.nspname !~ '^pg_(toast|temp)'
"""
_OPERATORS: LiteralString = """
select n.nspname, o.oprname from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
 where o.oprname = any (%s)
"""
_BUILT_IN_CALLS: LiteralString = """
select proname from pg_catalog.pg_proc where pronamespace = 'pg_catalog'::pg_catalog.regnamespace and proname = any (%s)
union all select word from pg_catalog.pg_get_keywords() where catcode in ('R', 'C') and word = any (%s)
"""
_QUOTED: LiteralString = "select pg_catalog.quote_ident(name) from pg_catalog.unnest(%s::text[]) name"
_DEEPEST = 10  # levels of nested calls


@dataclass
class _Function:
    schema: str
    name: str
    signature: str
    body: str | None
    sets_path: bool
    extension: str | None
    mentions: Mentions = field(default_factory=Mentions)
    schemas: set[str] = field(default_factory=set)  # schemas of the names that it does not qualify
    reads: bool = False  # whether it reads a table

    def __post_init__(self) -> None:
        if self.body is not None:
            self.mentions = mentions(self.body)
        self.sets_path = self.sets_path or self.mentions.sets_path


def check_functions(db: InspectedDatabase, selection: Selection) -> None:
    """Check the functions that constraints, generated columns, indexes, materialized views and partition keys run.

    The session's search_path must be empty, so that all names are qualified.
    """
    uses: dict[tuple[str, str], set[int]] = defaultdict(set)
    reading, varying, generated = set(), {}, set()
    for kind, name, relation, schema, function, expression, reads in db.optional_rows(_USES):
        if relation and not selection.takes(relation, schema):
            continue
        if function is not None:
            uses[kind, name].add(function)
        if expression and (clock := changing(list(tokens(expression)))):
            varying[name] = clock
        if reads:
            reading.add(name)
    functions = _Functions(db)
    functions.load({oid for oids in uses.values() for oid in oids})
    unqualified: dict[str, list[str]] = defaultdict(list)
    for (kind, name), oids in uses.items():
        for function in functions.reached(oids):
            if function.schemas and not function.sets_path:
                unqualified[function.signature].append(f"{kind} {name}")
            if kind == "constraint" and function.reads:
                reading.add(name)
            if kind == "generated column" and function.reads:
                generated.add(name)
            if kind == "constraint" and function.mentions.changes:
                varying[name] = function.mentions.changes
    if unqualified:
        _report_unqualified(db, functions, unqualified)
    report_problem(db, "check_reads_tables", sorted(reading))
    report_problem(db, "generated_reads_tables", sorted(generated))
    clocks = first_named(sorted(set(varying.values())))
    report_problem(
        db,
        "check_changes",
        sorted(varying),
        message=f"CHECK constraints depend on {clocks}: {first_named(sorted(varying))}",
    )


def _report_unqualified(db: InspectedDatabase, functions: _Functions, unqualified: dict[str, list[str]]) -> None:
    signatures = sorted(unqualified)
    users = sorted({name for names in unqualified.values() for name in names})
    by_signature = {one.signature: one for one in functions.by_oid.values()}
    statements = []
    for one in (by_signature[signature] for signature in signatures[:3]):
        if one.extension:  # a restore creates its functions with CREATE EXTENSION
            statements.append(f"ALTER EXTENSION {one.extension} UPDATE, to a version whose functions set it")
        else:
            path = [name for (name,) in db.optional_rows(_QUOTED, sorted(one.schemas))]
            statements.append(f"ALTER FUNCTION {one.signature} SET search_path = {', '.join(['pg_catalog', *path])}")
    report_problem(
        db,
        "function_search_path",
        signatures,
        message=f"functions use names without a schema and do not set search_path: {first_named(signatures)}, "
        f"used by {first_named(users)}",
        hint=f"Run {'; '.join(statements)}; then dump again.",
    )


class _Functions:
    """Functions and those that they call, with the schemas that their names resolve to."""

    def __init__(self, db: InspectedDatabase) -> None:
        self._db = db
        self.by_oid: dict[int, _Function] = {}
        self._by_name: dict[Name, list[int]] = defaultdict(list)
        self._asked: set[str] = set()

    def load(self, oids: set[int]) -> None:
        """Read functions and those that they call, and resolve the names in their bodies."""
        names: set[str] = set()
        for _ in range(_DEEPEST):
            new = self._read(oids, names)
            self._asked |= names
            oids, names = set(), {name for one in new for _, name in one.mentions.functions} - self._asked
            if not names:
                break
        self._resolve()

    def _read(self, oids: set[int], names: set[str]) -> list[_Function]:
        new = []
        for oid, *columns in self._db.optional_rows(_FUNCTIONS, sorted(oids), sorted(names)):
            if oid not in self.by_oid:
                self.by_oid[oid] = function = _Function(*columns)
                self._by_name[function.schema, function.name].append(oid)
                self._by_name[None, function.name].append(oid)
                new.append(function)
        return new

    def _resolve(self) -> None:
        every = [one.mentions for one in self.by_oid.values()]
        tables = self._schemas(_TABLES, {name for one in every for _, name in one.tables})
        types = self._schemas(_TYPES, {name for one in every for _, name in one.types})
        operators = self._schemas(_OPERATORS, {name for one in every for name in one.operators})
        calls = sorted({name for one in every for _, name in one.functions})
        built_in = {name for (name,) in self._db.optional_rows(_BUILT_IN_CALLS, calls, calls)} if calls else set()
        for function in self.by_oid.values():
            found = function.mentions
            for names, schemas in ((found.tables, tables), (found.types, types)):
                for schema, name in names:
                    if schema is None and "pg_catalog" not in schemas[name]:
                        function.schemas |= schemas[name]
            for name in found.operators:
                if "pg_catalog" not in operators[name]:
                    function.schemas |= operators[name]
            for schema, name in found.functions:
                if schema is None and name not in built_in:
                    function.schemas |= {self.by_oid[oid].schema for oid in self._by_name[None, name]}
            function.reads = any(
                tables[name] - {"pg_catalog", "information_schema"} if schema is None else schema in tables[name]
                for schema, name in found.tables
                if schema not in ("pg_catalog", "information_schema")
            )

    def _schemas(self, query: LiteralString, names: set[str]) -> dict[str, set[str]]:
        schemas: dict[str, set[str]] = defaultdict(set)
        for schema, name in self._db.optional_rows(query, sorted(names)) if names else ():
            schemas[name].add(schema)
        return schemas

    def reached(self, oids: set[int]) -> list[_Function]:
        """Return functions with those that they call, unless the caller sets search_path."""
        seen: set[int] = set()
        waiting = [oid for oid in oids if oid in self.by_oid]
        while waiting:
            oid = waiting.pop()
            if oid in seen:
                continue
            seen.add(oid)
            function = self.by_oid[oid]
            if not function.sets_path:
                waiting += [other for name in function.mentions.functions for other in self._by_name.get(name, ())]
        return [self.by_oid[oid] for oid in sorted(seen)]
