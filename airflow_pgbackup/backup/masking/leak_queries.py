"""What a database has in which values of the source can be found."""

from __future__ import annotations

# Of a column the type below all domains and arrays. Domains over numbers and dates are left out as these are.
RELATIONS = """
    WITH RECURSIVE base AS (
        SELECT oid, oid AS root, false AS array FROM pg_type
        UNION
        SELECT b.oid, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, b.array OR t.typtype <> 'd'
        FROM base b JOIN pg_type t ON t.oid = b.root
        WHERE t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0
    )
    SELECT n.nspname, c.relname, array_agg(a.attname ORDER BY a.attnum), array_agg(t.typname ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN base b ON b.oid = a.atttypid
    JOIN pg_type t ON t.oid = b.root AND t.typtype <> 'd' AND (t.typcategory <> 'A' OR t.typelem = 0)
    WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND n.nspname !~ '^pg_'
        AND n.nspname <> 'information_schema'
        AND (b.array OR t.typname NOT IN ('bool', 'int2', 'int4', 'float4', 'float8', 'date', 'time', 'timetz',
            'timestamp', 'timestamptz', 'interval'))
    GROUP BY 1, 2 ORDER BY 1, 2
"""
HIDDEN = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relrowsecurity AND row_security_active(c.oid) AND n.nspname !~ '^pg_' ORDER BY 1
"""
# With the table and the columns that each is about: of an index or an object of statistics those in its expressions.
STATISTICS = """
    SELECT 'statistics of ' || schemaname || '.' || tablename || '.' || attname, n.nspname, t.relname,
        CASE WHEN i.indexrelid IS NULL THEN ARRAY[s.attname] ELSE array(
            SELECT a.attname FROM pg_depend d
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjid = t.oid) END,
        concat_ws(' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text)
    FROM pg_stats s JOIN pg_namespace o ON o.nspname = s.schemaname
    JOIN pg_class c ON c.relname = s.tablename AND c.relnamespace = o.oid
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    JOIN pg_class t ON t.oid = coalesce(i.indrelid, c.oid) JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL
    SELECT 'statistics ' || statistics_schemaname || '.' || statistics_name, schemaname, tablename,
        array(SELECT a.attname FROM pg_statistic_ext x JOIN pg_namespace o ON o.oid = x.stxnamespace
            JOIN pg_depend d ON d.classid = 'pg_statistic_ext'::regclass AND d.objid = x.oid
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.refobjid = x.stxrelid AND x.stxname = statistics_name AND o.nspname = statistics_schemaname),
        shown
    FROM (
        SELECT statistics_schemaname, statistics_name, schemaname, tablename, most_common_vals::text AS shown
        FROM pg_stats_ext WHERE most_common_vals IS NOT NULL
        UNION ALL
        SELECT statistics_schemaname, statistics_name, schemaname, tablename,
            concat_ws(' ', most_common_vals::text, histogram_bounds::text)
        FROM pg_stats_ext_exprs
    ) AS extended
"""
_OWN = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_DEFINITIONS = f"""
    SELECT 'comment on ' || pg_describe_object(classoid, objoid, objsubid), description FROM pg_description
        WHERE objoid >= 16384 OR classoid = 'pg_namespace'::regclass AND objoid = 2200  -- schema public
    UNION ALL SELECT 'comment on the database', description FROM pg_shdescription
        WHERE classoid = 'pg_database'::regclass AND objoid = (SELECT oid FROM pg_database
            WHERE datname = current_database())
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text, concat_ws(' ', prosrc, pg_get_function_sqlbody(p.oid),
            pg_get_function_arguments(p.oid), array_to_string(proconfig, ' '))
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_OWN}
    UNION ALL SELECT 'definition of ' || c.oid::regclass::text, pg_get_viewdef(c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {_OWN}
    UNION ALL SELECT 'default of a column of ' || d.adrelid::regclass::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_OWN}
    UNION ALL SELECT 'default of domain ' || t.oid::regtype::text, typdefault
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE typtype = 'd' AND {_OWN}
    UNION ALL SELECT 'constraint ' || conname, pg_get_constraintdef(o.oid)
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE {_OWN}
    UNION ALL SELECT 'index ' || i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_OWN}
    UNION ALL SELECT 'partition bound of ' || c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_class c WHERE c.relpartbound IS NOT NULL
    UNION ALL SELECT 'trigger ' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'rule ' || rulename, pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT 'policy ' || polname,
            concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
    UNION ALL SELECT 'enum ' || enumtypid::regtype::text, string_agg(enumlabel, ' ') FROM pg_enum GROUP BY enumtypid
    UNION ALL SELECT 'security label', label FROM pg_seclabel
    UNION ALL SELECT 'options of foreign data wrapper ' || fdwname, array_to_string(fdwoptions, ' ')
        FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'options of server ' || srvname, array_to_string(srvoptions, ' ') FROM pg_foreign_server
    UNION ALL SELECT 'options of a user mapping of server ' || srvname, array_to_string(umoptions, ' ')
        FROM pg_user_mappings
    UNION ALL SELECT 'options of foreign table ' || ftrelid::regclass::text, array_to_string(ftoptions, ' ')
        FROM pg_foreign_table
    UNION ALL SELECT 'options of a column of ' || attrelid::regclass::text, array_to_string(attfdwoptions, ' ')
        FROM pg_attribute WHERE attfdwoptions IS NOT NULL
    UNION ALL SELECT 'text search dictionary ' || d.oid::regdictionary::text, dictinitoption
        FROM pg_ts_dict d JOIN pg_namespace n ON n.oid = d.dictnamespace WHERE {_OWN}
"""  # noqa: S608  constants
# Since PostgreSQL 15.
_ROW_FILTERS = """
    UNION ALL SELECT 'row filter of publication ' || pubname, pg_get_expr(prqual, prrelid)
        FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
"""


def definitions(server_version: int) -> str:
    """Return the query of definitions for a server.

    :param server_version: as libpq has it, 150004.
    """
    return _DEFINITIONS + (_ROW_FILTERS if server_version >= 150000 else "")
