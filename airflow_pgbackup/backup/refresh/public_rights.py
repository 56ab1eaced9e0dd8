"""Revoke what PostgreSQL gives to PUBLIC on new objects by default: EXECUTE on routines, USAGE on types and languages.

The backup's own REVOKE is not restored. Without this, everybody could execute a SECURITY DEFINER function that the old
database did not have, with the privileges of the connection's role.
https://www.postgresql.org/docs/current/ddl-priv.html#PRIVILEGES-SUMMARY-TABLE
"""

from __future__ import annotations

from collections.abc import Collection

from airflow_pgbackup.backup.databases.sessions import Session, translated_errors
from airflow_pgbackup.backup.databases.user_objects import FIRST_USER_OID
from airflow_pgbackup.postgres.sql.anybytes import encoded

PublicObject = tuple[str, str, bool]
"""Kind, qualified and quoted name, and whether it runs with the privileges of its owner."""

_NO_MEMBER = (
    "NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d "
    "WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')"
)
# Array types and multiranges have the privileges of their element, row types are of no use without their table.
# REVOKE calls an aggregate a function, and a domain a type. It needs the modes of a procedure's arguments:
# p(integer, integer) is also p(IN integer, OUT integer).
_OBJECTS = f"""
SELECT CASE o.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END,
o.oid::pg_catalog.regprocedure::text, o.prosecdef,
CASE o.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
CASE o.prokind WHEN 'p' THEN pg_catalog.format('%I.%I(%s)', s.nspname, o.proname,
pg_catalog.pg_get_function_identity_arguments(o.oid)) ELSE o.oid::pg_catalog.regprocedure::text END
FROM pg_catalog.pg_proc AS o JOIN pg_catalog.pg_namespace AS s ON s.oid = o.pronamespace
WHERE o.oid >= {FIRST_USER_OID} AND {_NO_MEMBER}
UNION ALL SELECT CASE o.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, o.oid::pg_catalog.regtype::text, false,
'TYPE', o.oid::pg_catalog.regtype::text FROM pg_catalog.pg_type AS o
WHERE o.oid >= {FIRST_USER_OID} AND {_NO_MEMBER} AND o.typisdefined
AND (o.typtype IN ('b', 'd', 'e', 'r') OR o.typrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'c'))
AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS element WHERE element.typarray = o.oid)
UNION ALL SELECT 'LANGUAGE', pg_catalog.quote_ident(o.lanname), false, 'LANGUAGE', pg_catalog.quote_ident(o.lanname)
FROM pg_catalog.pg_language AS o
WHERE o.oid >= {FIRST_USER_OID} AND o.lanpltrusted AND {_NO_MEMBER}
"""  # noqa: S608  constants


def public_objects(connection: Session) -> dict[PublicObject, tuple[str, str]]:
    """Return the objects, apart from members of extensions, on which PUBLIC has privileges by default.

    :return: for each object the kind and the name by which REVOKE knows it.
    """
    with translated_errors("listing routines, types and languages"):
        rows = connection.execute(_OBJECTS).fetchall()
    return {(kind, name, definer): (known_as, full_name) for kind, name, definer, known_as, full_name in rows}


def revoke_default_rights(connection: Session, old: Collection[PublicObject]) -> None:
    """Revoke the privileges of PUBLIC on the objects that the old database did not have.

    An object of another kind counts as new, as does a routine that runs with the privileges of its owner only now.

    :param old: the objects of the old database.
    """
    new = [known for key, known in public_objects(connection).items() if key not in old]
    for kind in ("FUNCTION", "PROCEDURE", "TYPE", "LANGUAGE"):
        names = sorted(name for each, name in new if each == kind)
        if names:
            with translated_errors(f"revoking privileges of PUBLIC on each new {kind.lower()}"):
                connection.execute(encoded(f"REVOKE ALL ON {kind} {', '.join(names)} FROM PUBLIC"))
