"""What pg_dumpall leaves out of a cluster without a word (tried with 15 to 18, ``pg_dumpall.c``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.server_errors import server_hint, server_message
from airflow_pgbackup.postgres.options import DumpAllOptions
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.text import encodable
from airflow_pgbackup.wording import parameter

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# -2 marks a database whose DROP was interrupted (src/include/catalog/pg_database.h).
_DATABASES: LiteralString = """
select datname, datconnlimit = -2 from pg_catalog.pg_database
 where (not datallowconn or datconnlimit = -2) and datname <> 'template0'
   and not datname operator(pg_catalog.~) any (%s::text[])
 order by datname
"""

# Compared with what initdb sets: the owner (oid 10), the comments, and of template1 also that PUBLIC may not use
# TEMPORARY.
_PROPERTIES: LiteralString = """
select datname,
       datdba <> 10,
       exists (select from pg_catalog.pg_db_role_setting where setdatabase = d.oid),
       array(select acl::text from pg_catalog.aclexplode(datacl) acl order by 1)
         <> array(select acl::text from pg_catalog.aclexplode(pg_catalog.acldefault('d', datdba)) acl
                   where not (datname = 'template1' and acl.grantee = 0 and acl.privilege_type = 'TEMPORARY')
                   order by 1)
         and datacl is not null,
       pg_catalog.shobj_description(oid, 'pg_database') <> case datname
         when 'postgres' then 'default administrative connection database'
         else 'default template for new databases' end,
       datconnlimit <> -1
  from pg_catalog.pg_database d
 where datname in ('postgres', 'template1') and datallowconn and datconnlimit <> -2
   and not datname operator(pg_catalog.~) any (%s::text[])
 order by datname
"""

_ALL_ROLES: LiteralString = """
select distinct pg_catalog.split_part(setting, '=', 1)
  from pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) setting
 where setrole = 0 and setdatabase = 0
 order by 1
"""

# pg_dumpall skips tablespaces by this expression (dumpTablespaces).
_TABLESPACES: LiteralString = """
select spcname, spcowner <> 10, spcoptions is not null, spcacl is not null,
       pg_catalog.shobj_description(oid, 'pg_tablespace') is not null, false
  from pg_catalog.pg_tablespace
 where spcname operator(pg_catalog.~) '^pg_'
 order by spcname
"""

_NEVER = "pg_dumpall never dumps them"


@dataclass(frozen=True)
class Omission:
    """A part of a cluster that the dump will lack.

    :param hint: for the log, what dumps it.
    """

    what: str
    hint: str = ""


def find_omissions(connection: ConnectionParams, options: DumpAllOptions) -> list[Omission]:
    """Query what pg_dumpall with these options will leave out although no option says so.

    Databases that accept no connections or whose DROP was interrupted; without ``clean``, what was set for the
    databases ``postgres`` and ``template1``; ALTER ROLE ALL SET; what was set for ``pg_default`` and ``pg_global``.

    :raises ConnectError: the server is unreachable, or a query failed.
    """
    excluded = [parts[0] for parts in map(pattern_regexes, options.exclude_databases) if len(parts) == 1]
    data_only = options.data_only or options.no_schema or options.statistics_only
    whole = not (options.globals_only or options.roles_only or options.tablespaces_only)
    databases: list[tuple[Any, ...]] = []
    properties: list[tuple[Any, ...]] = []
    settings: list[tuple[Any, ...]] = []
    tablespaces: list[tuple[Any, ...]] = []
    with connection.open_session() as session:
        try:
            if whole:
                databases = session.execute(_DATABASES, [excluded]).fetchall()
            if whole and not (options.clean or data_only):
                properties = session.execute(_PROPERTIES, [excluded]).fetchall()
            if not (options.tablespaces_only or data_only):
                settings = session.execute(_ALL_ROLES).fetchall()
            if not (options.roles_only or options.no_tablespaces or data_only):
                tablespaces = session.execute(_TABLESPACES).fetchall()
        except psycopg.errors.InvalidRegularExpression:
            return []  # pg_dumpall will report the pattern
        except psycopg.Error as error:
            raise ConnectError(
                f"{connection.label}: cannot query what pg_dumpall leaves out: {server_message(error)}",
                hint=server_hint(error, "Undo any REVOKE on pg_catalog."),
            ) from None
    found = [Omission(f"database {encodable(name)} ({_reason(invalid)})") for name, invalid in databases]
    for name, *different in properties:
        if kinds := _kinds(different, options):
            hint = f"dump with {parameter('clean', True)}, {parameter('if_exists', True)} to include them"
            found.append(Omission(f"{', '.join(kinds)} of database {name}", hint))
    if settings:
        names = ", ".join(encodable(name) for (name,) in settings)
        found.append(Omission(f"settings of ALTER ROLE ALL ({names})", _NEVER))
    for name, *different in tablespaces:
        if kinds := _kinds(different, options):
            found.append(Omission(f"{', '.join(kinds)} of tablespace {name}", _NEVER))
    return found


def _reason(invalid: bool) -> str:
    return "its DROP DATABASE was interrupted" if invalid else "it accepts no connections"


def _kinds(different: Sequence[bool | None], options: DumpAllOptions) -> list[str]:
    wanted = (
        ("owner", not options.no_owner),
        ("settings", True),
        ("privileges", not options.no_privileges),
        ("comment", not options.no_comments),
        ("connection limit", True),
    )
    return [name for (name, may), differs in zip(wanted, different, strict=True) if may and differs]
