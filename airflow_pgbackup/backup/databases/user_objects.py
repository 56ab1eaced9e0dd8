"""Objects and rows that users created in a database, without those of initdb and of extensions."""

from __future__ import annotations

from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value

FIRST_USER_OID = 16384
"""FirstNormalObjectId (src/include/access/transam.h): objects of initdb have lower OIDs."""

# Catalogs of user objects, each with its schema column, and a condition that skips what belongs to another object.
_CATALOGS = [
    ("pg_namespace", None, "nspname <> 'public'"),
    ("pg_class", "relnamespace", "relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"),
    ("pg_proc", "pronamespace", ""),
    (
        "pg_type",
        "typnamespace",
        "(typtype IN ('d', 'e', 'r') OR typtype = 'b' AND typcategory <> 'A' OR typtype = 'c' "
        "AND typrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'c'))",
    ),
    ("pg_operator", "oprnamespace", ""),
    ("pg_opclass", "opcnamespace", ""),
    ("pg_collation", "collnamespace", ""),
    ("pg_conversion", "connamespace", ""),
    ("pg_ts_config", "cfgnamespace", ""),
    ("pg_ts_dict", "dictnamespace", ""),
    ("pg_statistic_ext", "stxnamespace", ""),
    ("pg_cast", None, ""),
    ("pg_language", None, ""),
    ("pg_foreign_data_wrapper", None, ""),
    ("pg_foreign_server", None, ""),
    ("pg_event_trigger", None, ""),
    ("pg_publication", None, ""),
    ("pg_largeobject_metadata", None, ""),
]
_NO_SCHEMAS_OF_USERS = (
    "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema'"
)


def _objects_query() -> str:
    parts = []
    for catalog, schema, more in _CATALOGS:
        # pg_describe_object() knows large objects by the catalog of their data.
        class_of = "pg_largeobject" if catalog == "pg_largeobject_metadata" else catalog
        conditions = [f"{schema or 'oid'} NOT IN ({_NO_SCHEMAS_OF_USERS})", *([more] if more else [])]
        if catalog != "pg_largeobject_metadata":  # users may choose any OID for a large object
            conditions.append(f"oid >= {FIRST_USER_OID}")
        parts.append(
            f"SELECT 'pg_catalog.{class_of}'::pg_catalog.regclass AS classid, oid AS objid "  # noqa: S608  names above
            f"FROM pg_catalog.{catalog} WHERE {' AND '.join(conditions)}"
        )
    return (
        "SELECT pg_catalog.pg_describe_object(o.classid, o.objid, 0) FROM (" + " UNION ALL ".join(parts) + ") AS o "  # noqa: S608
        "WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d "
        "WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype = 'e')"
    )


_OBJECTS = _objects_query()


def user_objects(connection: Session) -> list[str]:
    """Return descriptions (``table film``) of the objects that users created, without members of extensions."""
    return fetch_column(connection, _OBJECTS)


def count_objects(connection: Session) -> int:
    """Return the number of :func:`user_objects`."""
    return int(fetch_value(connection, f"SELECT count(*) FROM ({_OBJECTS}) AS o"))  # noqa: S608  a constant


def count_rows(connection: Session) -> int | None:
    """Return the number of rows in ordinary tables: rows inserted since the database was created, less those deleted.

    From the cumulative statistics, which are exact unless the server has crashed; None if track_counts is off.
    https://www.postgresql.org/docs/current/monitoring-stats.html
    """
    if fetch_value(connection, "SELECT pg_catalog.current_setting('track_counts')") != "on":
        return None
    return int(
        fetch_value(
            connection,
            "SELECT coalesce(sum(s.n_tup_ins - s.n_tup_del), 0) FROM pg_catalog.pg_stat_user_tables AS s "
            "JOIN pg_catalog.pg_class AS c ON c.oid = s.relid WHERE c.relkind = 'r'",
        )
    )
