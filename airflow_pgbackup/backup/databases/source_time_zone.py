"""The time zone of a source, which decides what functions make of its times: a rehearsal restores in the same one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.postgres.definitions.database import TIME_ZONE_NAME

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# ALTER DATABASE … SET, or else what the server has. A setting of our role or of the connection hides the latter.
_OF_DATABASE: LiteralString = """
select substr(setting, length('timezone=') + 1)
  from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) setting
 where s.setrole = 0 and setting ilike 'timezone=%'
   and s.setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
"""
_OF_SERVER: LiteralString = """
select pg_catalog.current_setting('TimeZone') from pg_catalog.pg_settings where name = 'TimeZone'
   and source in ('default', 'environment variable', 'configuration file', 'command line', 'global')
"""


def read_time_zone(session: psycopg.Connection[Any], *, cluster: bool = False) -> str | None:
    """Return the time zone of sessions in a database, without what a role or a client sets.

    :param session: in autocommit mode.
    :param cluster: that of the server instead, without what the database sets.
    :return: None if it cannot be found out.
    """
    try:
        row = None if cluster else session.execute(_OF_DATABASE).fetchone()
        row = row or session.execute(_OF_SERVER).fetchone()
    except psycopg.Error:
        return None
    return str(row[0]) if row and re.fullmatch(TIME_ZONE_NAME, str(row[0])) else None
