"""Find stored generated columns whose values depend on more than their row.

A dump does not contain their values. If a function of the expression reads another table, which PostgreSQL cannot know,
the values depend on the order in which a restore loads the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded

if TYPE_CHECKING:
    from typing_extensions import LiteralString

OUTDATED = "differs from its expression"
"""What is said of a generated column whose values depend on more than its row."""

# Those that call a function of a user, perhaps by an operator. Functions in C are those of extensions.
_COLUMNS: LiteralString = """
select n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
       pg_catalog.pg_get_expr(d.adbin, d.adrelid)
  from pg_catalog.pg_attrdef d
  join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
  join pg_catalog.pg_class c on c.oid = d.adrelid and c.relkind = 'r'
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where pg_catalog.to_jsonb(a)->>'attgenerated' = 's'
   and exists (select from pg_catalog.pg_depend x
                 left join pg_catalog.pg_operator o
                   on x.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = x.refobjid
                 join pg_catalog.pg_proc p
                   on p.oid = o.oprcode
                   or x.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = x.refobjid
                 join pg_catalog.pg_language l on l.oid = p.prolang and l.lanname not in ('internal', 'c')
                where x.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and x.objid = d.oid
                  and p.oid >= 16384)
 order by 1, 2, 3
"""


@dataclass(frozen=True)
class OutdatedColumn:
    """A generated column.

    :param rows: the number of rows whose value differs from that of the expression.
    """

    schema: str
    table: str
    name: str
    rows: int


def outdated_columns(session: psycopg.Connection[Any]) -> list[OutdatedColumn]:
    """Return the columns with values that differ from those of their expressions.

    :param session: of whoever restored them, with the settings of server, database and role, as in the restore. It runs
        the functions that the restore has run.
    """
    session.execute("select pg_catalog.set_config('search_path', '', false)")
    found = []
    for schema, table, name, kind, expression in session.execute(_COLUMNS).fetchall():
        value = b"(%b)::%b" % (encoded(expression), encoded(kind))
        # It compares the bytes of the values, as not every type has an operator for equality.
        differs = b"row(%b)::record operator(pg_catalog.*<>) row(%b)::record" % (Identifier(name).as_bytes(), value)
        query = b"select count(*) from only %b where %b" % (Identifier(schema, table).as_bytes(), differs)
        if rows := (session.execute(query).fetchone() or (0,))[0]:
            found.append(OutdatedColumn(schema, table, name, rows))
    return found
