"""Let the foreign servers and tables of the new database point where those of the old database did.

Their options come from the backup and name the servers of production. The user mappings of the old database, which are
given to the new one, must not be used there.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import Session, translated_errors
from airflow_pgbackup.postgres.sql.anybytes import Identifier

_OPTIONS = """
SELECT s.srvname, w.fdwname, NULL, NULL, NULL, o.option_name, o.option_value
  FROM pg_catalog.pg_foreign_server AS s JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
  LEFT JOIN LATERAL pg_catalog.pg_options_to_table(s.srvoptions) AS o ON true
UNION ALL
SELECT s.srvname, w.fdwname, n.nspname, c.relname, a.attname, o.option_name, o.option_value
  FROM pg_catalog.pg_foreign_table AS f JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
  JOIN pg_catalog.pg_class AS c ON c.oid = f.ftrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL (SELECT NULL::name, f.ftoptions UNION ALL SELECT attname, attfdwoptions
    FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS a (attname, options)
  LEFT JOIN LATERAL pg_catalog.pg_options_to_table(a.options) AS o ON true
"""


@dataclass(frozen=True)
class _Place:
    """What has options: a server, a foreign table, or a column of one."""

    server: str
    wrapper: str
    schema: str | None
    table: str | None
    column: str | None

    def alter(self) -> sql.Composed:
        if self.schema is None or self.table is None:
            return sql.SQL("ALTER SERVER {} ").format(Identifier(self.server))
        statement = sql.SQL("ALTER FOREIGN TABLE {} ").format(Identifier(self.schema, self.table))
        return statement + sql.SQL("ALTER COLUMN {} ").format(Identifier(self.column)) if self.column else statement


ForeignOptions = dict[_Place, dict[str, str]]


def foreign_options(connection: Session) -> ForeignOptions:
    """Return the options of the foreign servers, foreign tables and their columns."""
    found: ForeignOptions = {}
    with translated_errors("reading the options of foreign servers"):
        for *place, option, value in connection.execute(_OPTIONS).fetchall():
            options = found.setdefault(_Place(*place), {})
            if option is not None:
                options[option] = value or ""
    return found


def restore_foreign_options(connection: Session, old: ForeignOptions) -> set[str]:
    """Give foreign servers and tables the options that they have in the old database, if it has them.

    :return: the servers that cannot have those, as the old database has no such server of the same wrapper.
    :raises RestoreError: the server refused an option.
    """
    new = foreign_options(connection)
    for place, options in new.items():
        wanted = old.get(place)
        if wanted is not None and wanted != options:
            with translated_errors(f"restoring the options of foreign server {place.server}"):
                connection.execute(place.alter() + _changes(options, wanted))
    return {place.server for place in new if place.table is None and place not in old}


def _changes(options: dict[str, str], wanted: dict[str, str]) -> sql.Composed:
    changes = [sql.SQL("DROP {}").format(Identifier(name)) for name in options if name not in wanted]
    for name, value in wanted.items():
        verb = sql.SQL("SET {} {}" if name in options else "ADD {} {}")
        changes.append(verb.format(Identifier(name), sql.Literal(value)))
    return sql.SQL("OPTIONS ({})").format(sql.SQL(", ").join(changes))
