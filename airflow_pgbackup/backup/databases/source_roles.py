"""Read the rights of a database's roles from its server, for the manifest: a dump of one database lacks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.repository.source_roles import MAX_LISTED, RecordedMembership, SourceRoles

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# pg_shdepend does not list what the bootstrap superuser (oid 10) owns. Since version 16 each membership has its own
# inherit_option. A superuser needs no memberships, and each server has those of the predefined roles.
_ROLES: LiteralString = r"""
with recursive this as (
    select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()
), owners as (
    select r.oid, r.rolname, r.rolsuper, r.rolbypassrls from pg_catalog.pg_roles as r
     where r.oid = 10 or r.oid in (
           select d.refobjid from pg_catalog.pg_shdepend as d, this
            where d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.deptype = 'o'
              and (d.dbid = this.oid
                   or d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass and d.objid = this.oid))
), inherited as (
    select m.roleid, r.rolname as role, m.member, member.rolname as member_name
      from pg_catalog.pg_auth_members as m
      join pg_catalog.pg_roles as r on r.oid = m.roleid
      join pg_catalog.pg_roles as member on member.oid = m.member
     where coalesce((pg_catalog.to_jsonb(m)->>'inherit_option')::boolean, member.rolinherit)
       and not member.rolsuper and member.rolname !~ '^pg_'
), used as (
    select i.* from inherited as i where i.member in (select oid from owners)
    union
    select i.* from inherited as i join used as u on i.member = u.roleid
)
select 'superuser', rolname::text, '' from owners where rolsuper
union all select 'bypass_rls', rolname::text, '' from owners where rolbypassrls and not rolsuper
union all select 'membership', role::text, member_name::text from used
"""


def read_source_roles(session: psycopg.Connection[Any]) -> SourceRoles | None:
    """Return the rights of the roles that own the session's database or objects in it.

    :param session: in autocommit mode.
    :return: None where they cannot be read, or are too many for a manifest.
    """
    try:
        with session.cursor() as cursor:
            rows = cursor.execute(_ROLES).fetchmany(3 * MAX_LISTED + 1)
    except psycopg.Error:  # somebody has revoked SELECT, or a name cannot be converted to UTF-8
        return None
    rows.sort()
    found = SourceRoles(
        superusers=tuple(role for kind, role, _ in rows if kind == "superuser"),
        bypass_rls=tuple(role for kind, role, _ in rows if kind == "bypass_rls"),
        memberships=tuple(RecordedMembership(role, member) for kind, role, member in rows if kind == "membership"),
    )
    return found if found.valid else None
