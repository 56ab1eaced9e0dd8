"""Objects that the connection's user may not read, and that would therefore fail the dump or be missing from it.

``pg_dump`` stops at the first of them; check reports all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import SHOWN, first_named
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.postgres.tools.capabilities import lock_table_privileges
from airflow_pgbackup.quantities import counted, noun
from airflow_pgbackup.wording import parameter

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Members of an extension are not dumped, except for the rows of its configuration tables.
# The parameters: the privileges that allow LOCK TABLE ... IN ACCESS SHARE MODE; the foreign servers that are dumped.
_RELATIONS: LiteralString = """
select c.oid::int8, n.oid::int8, n.nspname, pg_catalog.quote_ident(n.nspname),
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relkind::text,
       pg_catalog.has_schema_privilege(n.oid, 'usage'),
       pg_catalog.has_table_privilege(c.oid, 'select'),
       pg_catalog.has_table_privilege(c.oid,
           %s),
       c.relkind = 'r' and pg_catalog.row_security_active(c.oid),
       c.relpersistence = 'u',
       exists (select from pg_catalog.pg_foreign_table f join pg_catalog.pg_foreign_server s on s.oid = f.ftserver
                where f.ftrelid = c.oid
                  and s.srvname operator(pg_catalog.~) any (%s::text[]))
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'S', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   and (c.oid in (select pg_catalog.unnest(extconfig) from pg_catalog.pg_extension)
        or not exists (select from pg_catalog.pg_depend d
                        where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                          and d.deptype = 'e'))
 order by 5
"""
_LARGE_OBJECTS: LiteralString = """
select l.oid::text from pg_catalog.pg_largeobject_metadata l
 where not pg_catalog.current_setting('lo_compat_privileges')::bool
   and not pg_catalog.pg_has_role(l.lomowner, 'usage')
   and not exists (select from pg_catalog.aclexplode(l.lomacl) a
                    where a.privilege_type = 'SELECT' and (a.grantee = 0 or pg_catalog.pg_has_role(a.grantee, 'usage')))
 order by l.oid
"""
# The reverse of the condition under which the view pg_user_mappings shows the options.
_USER_MAPPINGS: LiteralString = """
select pg_catalog.quote_ident(m.usename) || ' on ' || pg_catalog.quote_ident(m.srvname)
  from pg_catalog.pg_user_mappings m join pg_catalog.pg_foreign_server s on s.oid = m.srvid
 where m.umoptions is null
   and not (m.umuser <> 0 and m.usename = current_user
            and (pg_catalog.pg_has_role(s.srvowner, 'usage') or pg_catalog.has_server_privilege(s.oid, 'usage')))
   and not (m.umuser = 0 and pg_catalog.pg_has_role(s.srvowner, 'usage'))
   and not (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
 order by 1
"""
_SUBSCRIPTIONS: LiteralString = """
select pg_catalog.quote_ident(s.subname) from pg_catalog.pg_subscription s
 where s.subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
   and not (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
 order by 1
"""
_ME: LiteralString = "select pg_catalog.quote_ident(current_user), pg_catalog.pg_is_in_recovery()"


@dataclass(frozen=True)
class _Relation:
    oid: int
    schema_oid: int
    schema: str
    quoted_schema: str
    name: str  # qualified and quoted
    kind: str
    usage: bool
    select: bool
    lock: bool
    filtered: bool
    unlogged: bool
    fetched: bool  # a foreign table whose rows are dumped


def check_grants(db: InspectedDatabase, selection: Selection, options: DumpOptions | DumpAllOptions) -> None:
    """Report everything in a database that the user may not read, or would read only in part."""
    me = db.rows(_ME)
    if not me:
        return
    ((user, in_recovery),) = me
    servers = [pattern_regexes(pattern)[-1] for pattern in getattr(options, "include_foreign_data", ())]
    found = db.rows(_RELATIONS, lock_table_privileges(db.server_major), servers)
    relations = [_Relation(*row) for row in found]
    relations = [one for one in relations if selection.takes(one.oid, one.schema_oid)]
    with_rows = [one for one in relations if selection.takes_rows(one.oid, one.schema_oid)]
    _tables(db, user, relations, with_rows)
    _row_security(db, user, with_rows, getattr(options, "enable_row_security", False))
    if selection.large_objects:
        _large_objects(db, user)
    if selection.schemas is None and selection.tables is None and not getattr(options, "extensions", ()):
        _omitted(db, user, options)
    _foreign(db, [one.name for one in with_rows if one.kind == "f" and not one.fetched])
    if in_recovery and (unlogged := [one.name for one in with_rows if one.unlogged and one.kind == "r"]):
        db.warning(
            "standby_unlogged",
            f"{db.where}: unlogged tables are empty on a standby: {first_named(unlogged)}",
            "Dump from the primary, or accept that the dump lacks their rows.",
            unlogged,
        )


def _tables(db: InspectedDatabase, user: str, relations: list[_Relation], with_rows: list[_Relation]) -> None:
    everything = f"GRANT pg_read_all_data TO {user}"
    rows = {one.oid for one in with_rows}
    needed = [one for one in relations if one.kind in "rp" or (one.oid in rows and (one.kind == "S" or one.fetched))]
    schemas = sorted({one.quoted_schema for one in needed if not one.usage})
    if schemas:
        db.error(
            "schema_usage",
            f"{db.where}: {user} lacks USAGE on {noun(len(schemas), 'schema')} {first_named(schemas)}",
            f"Run GRANT USAGE ON SCHEMA {', '.join(schemas)} TO {user}, or {everything}, or dump with "
            f"{parameter('exclude_schemas')}.",
            schemas,
        )
    unread = [one for one in needed if one.kind != "S" and not (one.select if one.oid in rows else one.lock)]
    tables = [one.name for one in unread]
    if tables:
        db.error(
            "table_select",
            f"{db.where}: {user} lacks SELECT on {noun(len(tables), 'table')} {first_named(tables)}",
            f"Run GRANT SELECT ON {_all('TABLES', unread)} TO {user}, or {everything}, or dump with "
            f"{parameter('exclude_tables')}; ALTER DEFAULT PRIVILEGES covers future tables.",
            tables,
        )
    unread = [one for one in needed if one.kind == "S" and not one.select]
    sequences = [one.name for one in unread]
    if sequences:
        db.error(
            "sequence_select",
            f"{db.where}: {user} lacks SELECT on {noun(len(sequences), 'sequence')} {first_named(sequences)}",
            f"Run GRANT SELECT ON {_all('SEQUENCES', unread)} TO {user}, or {everything}, or dump with "
            f"{parameter('exclude_tables')}, which excludes sequences too.",
            sequences,
        )


def _all(kind: str, relations: list[_Relation]) -> str:
    """Return what a GRANT names, which a statement with the first few would not do."""
    if len(relations) > SHOWN:
        return f"ALL {kind} IN SCHEMA {', '.join(sorted({one.quoted_schema for one in relations}))}"
    return ("SEQUENCE " if kind == "SEQUENCES" else "") + ", ".join(one.name for one in relations)


def _row_security(db: InspectedDatabase, user: str, with_rows: list[_Relation], enabled: bool) -> None:
    filtered = [one.name for one in with_rows if one.filtered]
    if filtered and enabled:
        db.warning(
            "row_security",
            f"{db.where}: with {parameter('enable_row_security')}, the dump contains only those rows of "
            f"{first_named(filtered)} that {user} may see",
            f"Run ALTER ROLE {user} BYPASSRLS, and dump without {parameter('enable_row_security')}.",
            filtered,
        )
    elif filtered:
        db.error(
            "row_security",
            f"{db.where}: row-level security hides rows of {first_named(filtered)} from {user}, so pg_dump would fail",
            f"Run ALTER ROLE {user} BYPASSRLS, or dump as the tables' owner. With "
            f"{parameter('enable_row_security')}, the dump would contain only the visible rows.",
            filtered,
        )


def _large_objects(db: InspectedDatabase, user: str) -> None:
    oids = [oid for (oid,) in db.rows(_LARGE_OBJECTS)]
    if oids:
        some = ", ".join(oids[:SHOWN]) + (", ..." if len(oids) > SHOWN else "")
        db.error(
            "large_objects",
            f"{db.where}: {user} lacks SELECT on {counted(len(oids), 'large object')}: {first_named(oids)}",
            f"Run GRANT SELECT ON LARGE OBJECT {some} TO {user} (pg_read_all_data does not cover them), dump as a "
            "superuser, or set large_objects=False.",
            oids,
        )


def _omitted(db: InspectedDatabase, user: str, options: DumpOptions | DumpAllOptions) -> None:
    """Report what pg_dump omits without an error."""
    mappings = [name for (name,) in db.rows(_USER_MAPPINGS)]
    if mappings:
        db.warning(
            "user_mappings",
            f"{db.where}: {user} may not read the options of user mappings: {first_named(mappings)}; the dump contains "
            "the mappings without options, so without passwords",
            "Dump as a superuser, or store these passwords elsewhere.",
            mappings,
        )
    subscriptions = [] if options.no_subscriptions else [name for (name,) in db.rows(_SUBSCRIPTIONS)]
    if subscriptions:
        db.warning(
            "subscriptions",
            f"{db.where}: only a superuser can dump subscriptions, and {user} is not one: {first_named(subscriptions)}",
            "Dump as a superuser, or set no_subscriptions if the dump need not contain them.",
            subscriptions,
        )


def _foreign(db: InspectedDatabase, tables: list[str]) -> None:
    if tables:
        db.warning(
            "foreign_tables",
            f"{db.where}: the rows of foreign tables are on other servers and not in the dump: {first_named(tables)}",
            "Back up those servers, or add the foreign servers to include_foreign_data.",
            tables,
        )
