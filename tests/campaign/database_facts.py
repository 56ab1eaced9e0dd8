"""Everything that can be observed of a database, to find what a restore changes.

This compares more than a rehearsal does, and without its code: pg_dump's text of each object, unsorted, what the
catalogs say of it, the rows of every table, and large objects.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.compare.database_reader import SESSION
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts

_NAMED = (
    *("pg_class", "pg_proc", "pg_type", "pg_constraint", "pg_operator", "pg_opclass", "pg_opfamily", "pg_am"),
    *("pg_cast", "pg_collation", "pg_conversion", "pg_attrdef", "pg_rewrite", "pg_trigger", "pg_policy"),
    *("pg_namespace", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_foreign_data_wrapper"),
    *("pg_foreign_server", "pg_user_mapping", "pg_event_trigger", "pg_publication", "pg_publication_rel"),
    *("pg_publication_namespace", "pg_statistic_ext", "pg_transform", "pg_language", "pg_extension", "pg_default_acl"),
    *("pg_amop", "pg_amproc"),
)
# TOAST tables and the triggers of foreign keys have names with OIDs; large objects are compared apart.
_NOT_NAMED = {
    "pg_class": "and relnamespace <> 'pg_toast'::pg_catalog.regnamespace",
    "pg_trigger": "and not tgisinternal",
    "pg_operator": "and oprcode <> 0",
    "pg_namespace": "and nspname !~ '^pg_(toast_)?temp_'",
}
_OBJECTS = "select i.type, i.identity from (\n{}\n) o, pg_catalog.pg_identify_object(o.classid, o.oid, 0) i".format(
    "\nunion all ".join(
        f"select 'pg_catalog.{name}'::pg_catalog.regclass::oid as classid, oid from pg_catalog.{name} "
        f"where oid >= 16384 {_NOT_NAMED.get(name, '')}"
        for name in _NAMED
    )
)

_SHELL_OPERATORS = "select 'shell operator', oid::regoperator::text from pg_operator where oid >= 16384 and oprcode = 0"

_COLUMNS = """
select a.attrelid::regclass::text || '.' || quote_ident(a.attname) as name,
       format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null, a.attgenerated::text as generated,
       a.attidentity::text as identity, a.attstorage::text as storage, a.attcompression::text as compression,
       a.attcollation::regcollation::text as collation, nullif(a.attstattarget, -1) as statistics,
       a.attislocal as local, a.attinhcount as inherited, a.attoptions::text as options,
       a.attfdwoptions::text as fdw_options, a.attacl::text as acl,
       pg_get_expr(d.adbin, d.adrelid) as expression, col_description(a.attrelid, a.attnum) as comment
  from pg_attribute a join pg_class c on c.oid = a.attrelid
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.attrelid >= 16384 and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c', 'i', 'I') and a.attnum > 0
   and not a.attisdropped
"""
_POSITIONS = """
select attrelid::regclass::text as name,
       array_agg(attname order by attnum) filter (where not attisdropped)::text as columns,
       count(*) filter (where attisdropped) as dropped
  from pg_attribute join pg_class c on c.oid = attrelid
 where attrelid >= 16384 and attnum > 0 and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') group by 1
"""
_RELATIONS = """
select c.oid::regclass::text as name, c.relkind::text as kind, c.relpersistence::text as persistence,
       c.relispopulated as populated, c.relrowsecurity as row_security, c.relforcerowsecurity as forced,
       c.relreplident::text as replica_identity, c.relispartition as partition, c.reloptions::text as options,
       pg_get_expr(c.relpartbound, c.oid) as bound, c.relowner::regrole::text as owner, array(select a::text
               from unnest(coalesce(c.relacl, acldefault(case when relkind = 'S' then 's' else 'r' end::"char",
                                                         c.relowner))) a order by 1)::text as acl,
       coalesce(nullif(t.spcname, 'pg_default'), '') as tablespace, am.amname as access_method,
       c.reloftype::regtype::text as of_type, pg_get_partkeydef(c.oid) as partition_key,
       obj_description(c.oid, 'pg_class') as comment
  from pg_class c left join pg_tablespace t on t.oid = c.reltablespace left join pg_am am on am.oid = c.relam
 where c.oid >= 16384 and c.relnamespace <> 'pg_toast'::regnamespace
"""
_CONSTRAINTS = """
select coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text) || ': ' || conname as name,
       contype::text as type, pg_get_constraintdef(oid) as definition, convalidated as validated,
       conislocal as local, coninhcount as inherited, connoinherit as no_inherit, condeferrable as deferrable,
       conparentid <> 0 as derived
  from pg_constraint where oid >= 16384
"""
_INDEXES = """
select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition, indisvalid as valid,
       indisclustered as clustered, indisreplident as replica_identity, indisprimary as primary,
       indimmediate as immediate
  from pg_index where indexrelid >= 16384 and indrelid::regclass::text not like 'pg_toast.%'
"""
_FUNCTIONS = """
select oid::regprocedure::text as name, prokind::text as kind, proowner::regrole::text as owner,
       case when prokind <> 'a' then pg_get_functiondef(oid) end as definition,
       array(select a::text from unnest(coalesce(proacl, acldefault('f', proowner))) a order by 1)::text as acl,
       obj_description(oid, 'pg_proc') as comment
  from pg_proc where oid >= 16384
"""
_INHERITANCE = """
select inhrelid::regclass::text as name, array_agg(inhparent::regclass::text order by inhseqno)::text as parents,
       bool_or(inhdetachpending) as detaching
  from pg_inherits where inhrelid >= 16384 group by 1
"""
_DATABASE = """
select 'database' as name, pg_encoding_to_char(encoding) as encoding, datcollate as collate, datctype as ctype,
       datallowconn as connections, datconnlimit as limit_,
       array(select a::text from unnest(coalesce(datacl, acldefault('d', datdba))) a order by 1)::text as acl,
       (select array_agg(s order by s)::text from pg_db_role_setting r, unnest(setconfig) s
         where setdatabase = d.oid) as settings, shobj_description(oid, 'pg_database') as comment
  from pg_database d where datname = current_database()
"""
_CATALOGS = {
    "column": _COLUMNS,
    "column positions": _POSITIONS,
    "relation": _RELATIONS,
    "constraint": _CONSTRAINTS,
    "index": _INDEXES,
    "function": _FUNCTIONS,
    "inheritance": _INHERITANCE,
    "database": _DATABASE,
}
_TABLES = """
select n.nspname, c.relname, c.relkind::text,
       array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
              and not a.attisdropped order by a.attnum)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid >= 16384 and c.relispopulated and c.relkind in ('r', 'm')
"""
_SEQUENCES = """
select c.oid::regclass::text, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle, seqtypid::regtype::text
  from pg_sequence s join pg_class c on c.oid = s.seqrelid
"""

Key = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table.

    :ivar digest: of their COPY text, in the order of the table.
    :ivar multiset: of the rows in any order.
    """

    columns: tuple[str, ...]
    count: int
    digest: str
    multiset: int


@dataclass
class Facts:
    """What was observed.

    :ivar definitions: pg_dump's text of each object; overloaded functions have several.
    :ivar catalogs: what the catalogs say of each object, by property.
    :ivar objects: how many objects have this type and identity.
    """

    definitions: dict[Key, Counter[str]] = field(default_factory=dict)
    catalogs: dict[Key, dict[str, Any]] = field(default_factory=dict)
    objects: Counter[Key] = field(default_factory=Counter)
    rows: dict[str, Rows] = field(default_factory=dict)
    large_objects: dict[int, str] = field(default_factory=dict)
    sequences: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def relation_kind(self, name: str) -> str | None:
        """Return the ``relkind`` of a relation, named as PostgreSQL quotes it."""
        return self.catalogs.get(("relation", name), {}).get("kind")


@dataclass(frozen=True)
class FactDifference:
    """What differs between two databases.

    :ivar what: the property, or ``definition``, ``rows``, ``missing``, ``added``.
    """

    kind: str
    name: str
    what: str
    before: str
    after: str


def observe(connection: ConnectionParams, bin_dir: Path, columns: dict[str, Rows] | None = None) -> Facts:
    """Return everything that can be observed of a database, as a superuser.

    :param columns: rows of the database to compare with: tables are read with the columns in its order.
    """
    facts = Facts(definitions=dict(_definitions(connection, bin_dir)))
    with connection.connect() as session:
        disable_timeouts(session)
        for statement in SESSION:
            session.execute(statement)
        session.execute("SET extra_float_digits = 3")
        for query in (_OBJECTS, _SHELL_OPERATORS):
            facts.objects.update(session.execute(query).fetchall())  # type: ignore[arg-type]
        # Names are qualified: nothing but pg_catalog is in the search path.
        for kind, query in _CATALOGS.items():
            found = session.cursor(row_factory=psycopg.rows.dict_row).execute(query)  # type: ignore[arg-type]
            for row in found:
                facts.catalogs[kind, row.pop("name")] = row
        for schema, name, _, names in session.execute(_TABLES).fetchall():  # type: ignore[misc]
            label = f"{schema}.{name}"
            wanted = columns[label].columns if columns and label in columns else tuple(names)
            if set(wanted) <= set(names):
                facts.rows[label] = _rows(session, sql.Identifier(schema, name), wanted)
        for oid, digest in session.execute(
            "select oid, pg_catalog.encode(pg_catalog.sha256(pg_catalog.lo_get(oid)), 'hex') "
            "from pg_catalog.pg_largeobject_metadata"
        ):
            facts.large_objects[oid] = digest
        for name, *parameters in session.execute(_SEQUENCES).fetchall():  # type: ignore[misc]
            value = session.execute(f"select last_value, is_called from {name}").fetchone()  # type: ignore[arg-type]
            facts.sequences[name] = (*parameters, *(value or ()))
    return facts


def _rows(session: psycopg.Connection[Any], table: sql.Identifier, columns: tuple[str, ...]) -> Rows:
    """Return the rows of a table without those of its children, generated columns included."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(names, table)
    text, lines, total = hashlib.sha256(), 0, 0
    with session.cursor() as cursor, cursor.copy(query) as copy:
        for data in copy:  # one row each
            line = bytes(data)
            text.update(line)
            lines += 1
            total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return Rows(columns, lines, text.hexdigest(), total % (1 << 128))


def _definitions(connection: ConnectionParams, bin_dir: Path) -> Iterator[tuple[Key, Counter[str]]]:
    with client_environment(connection) as env:
        done = subprocess.run(
            [bin_dir / "pg_dump", "--no-password", "--format=custom", "--schema-only"],
            env=env,
            check=True,
            stdout=subprocess.PIPE,
        )
    found: dict[Key, Counter[str]] = {}
    for entry in read_toc(io.BytesIO(done.stdout), what="the dump")[0].entries:
        if entry.kind in ("DATABASE", "DATABASE PROPERTIES", "BLOBS", "BLOB METADATA"):
            continue  # it contains the name
        text = f"{entry.definition}\nowner {entry.owner}\ntablespace {entry.tablespace}\nam {entry.access_method}"
        key = (entry.kind, f"{entry.schema}.{entry.name}" if entry.schema else entry.name)
        found.setdefault(key, Counter())[text] += 1
    yield from found.items()


def differences(before: Facts, after: Facts) -> Iterator[FactDifference]:
    """Yield everything that differs between two databases."""
    for key in before.definitions.keys() | after.definitions.keys():
        old, new = before.definitions.get(key, Counter()), after.definitions.get(key, Counter())
        if old != new:
            what = "definition" if old and new else "missing from pg_dump" if old else "added to pg_dump"
            yield FactDifference(*key, what, _text(old - new), _text(new - old))
    for key in before.objects.keys() | after.objects.keys():
        if before.objects[key] != after.objects[key]:
            what = "number of objects" if before.objects[key] and after.objects[key] else "object"
            yield FactDifference(*key, what, str(before.objects[key]), str(after.objects[key]))
    for key in before.catalogs.keys() & after.catalogs.keys():  # missing objects are listed above
        old_row, new_row = before.catalogs[key], after.catalogs[key]
        for column in old_row:
            if old_row[column] != new_row[column]:
                yield FactDifference(*key, column, str(old_row[column]), str(new_row[column]))
    for name in before.rows.keys() | after.rows.keys():
        old_rows, new_rows = before.rows.get(name), after.rows.get(name)
        if old_rows != new_rows:
            order = old_rows and new_rows and old_rows.multiset == new_rows.multiset
            counts = [f"{rows.count} rows" if rows else "missing" for rows in (old_rows, new_rows)]
            yield FactDifference("rows", name, "order of rows" if order else "rows", *counts)
    for oid in before.large_objects.keys() | after.large_objects.keys():
        values = [str(facts.large_objects.get(oid)) for facts in (before, after)]
        if values[0] != values[1]:
            yield FactDifference("large object", str(oid), "contents", *values)
    for name in before.sequences.keys() | after.sequences.keys():
        values = [str(facts.sequences.get(name)) for facts in (before, after)]
        if values[0] != values[1]:
            yield FactDifference("sequence", name, "value", *values)


def _text(texts: Counter[str]) -> str:
    return "\n".join(sorted(texts.elements()))
