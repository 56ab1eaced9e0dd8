"""Materialized views that depend on the name of their database, as with ``current_database()``.

A restore that renames its database at the end fills them under a temporary name, with wrong rows. They are filled again
under the final name. Until then they have no rows, so that a query fails rather than returns wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value, session, translated_errors
from airflow_pgbackup.backup.databases.temporary_database import without_login_triggers
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.definitions.style import DATABASE_NAME
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel

# A view uses the name itself or through another view. If a function uses it that is not a trigger's, any view may do so
# through the function.
# In the order in which they were created, a view comes after those that it reads.
_VIEWS = f"""
WITH RECURSIVE named(oid) AS (
    SELECT oid FROM pg_catalog.pg_class
     WHERE relkind IN ('v', 'm') AND pg_catalog.pg_get_viewdef(oid) ~* '{DATABASE_NAME}'
    UNION
    SELECT r.ev_class
      FROM named AS n
      JOIN pg_catalog.pg_depend AS d ON d.refobjid = n.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
       AND d.classid = 'pg_catalog.pg_rewrite'::regclass
      JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid)
SELECT pg_catalog.format('%I.%I', s.nspname, c.relname)
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
 WHERE c.relkind = 'm' AND c.relispopulated AND (c.oid IN (SELECT oid FROM named) OR EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p
         WHERE p.oid >= 16384 AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
           AND concat(p.prosrc, pg_catalog.pg_get_function_sqlbody(p.oid)) ~* '{DATABASE_NAME}'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')))
 ORDER BY c.oid
"""  # noqa: S608  a constant
_EMPTY_VIEWS = _VIEWS.replace("c.relispopulated", "NOT c.relispopulated")
_AS_RESTORED = "SELECT pg_catalog.set_config('role', %s, false), pg_catalog.set_config('search_path', '', false)"


@contextmanager
def refilled_views(
    params: ConnectionParams,
    renames: Sequence[tuple[str, str]],
    warn: Callable[[str], None],
    cancel: Cancel | None,
) -> Iterator[None]:
    """Remove the rows of the materialized views that depend on the names of databases; fill the views again once the
    ``with`` block has renamed these.

    :param params: another database of the server.
    :param renames: old and new name of each database.
    :param warn: takes the views that cannot be emptied or filled. The databases are in use by then.
    """
    views: dict[str, list[str]] = {}
    for old, new in renames:
        with _session(params, params.with_database(old), cancel) as connection:
            with translated_errors(f"listing the materialized views of {old}"):
                views[new] = fetch_column(connection, _VIEWS)
            _refresh(connection, views[new], " WITH NO DATA", warn, cancel)
    yield
    for name, filled in views.items():
        if filled:
            try:
                with _session(params, params.with_database(name), cancel) as connection:
                    _refresh(connection, filled, "", warn, cancel)
            except ConnectError as error:
                warn(f"run REFRESH MATERIALIZED VIEW for {', '.join(filled)} in {name}: {error.message}")


def warn_of_empty_views(
    params: ConnectionParams, database: ConnectionParams, warn: Callable[[str], None], cancel: Cancel | None
) -> None:
    """Warn of materialized views that an attempt may have left without rows, because it ended before it filled them.

    :param params: another database of the server.
    """
    listing = f"listing the materialized views of {database.dbname}"
    with _session(params, database, cancel) as connection, translated_errors(listing):
        views = fetch_column(connection, _EMPTY_VIEWS)
    if views:
        warn(
            "materialized views have no rows, perhaps because the earlier attempt ended before it filled them: run "
            f"REFRESH MATERIALIZED VIEW for {', '.join(views)}"
        )


@contextmanager
def _session(params: ConnectionParams, database: ConnectionParams, cancel: Cancel | None) -> Iterator[Session]:
    with session(params, cancel) as other:
        quiet, user = without_login_triggers(other, database), fetch_value(other, "SELECT current_user::text")
    with session(quiet, cancel) as connection:
        # The database may set a role, and the restore filled the views with an empty search_path.
        connection.execute(_AS_RESTORED, [user])
        yield connection


def _refresh(
    connection: Session, views: Sequence[str], how: str, warn: Callable[[str], None], cancel: Cancel | None
) -> None:
    for view in views:
        try:
            connection.execute(encoded(f"REFRESH MATERIALIZED VIEW {view}{how}"))
        except psycopg.Error as error:
            if cancel:
                cancel.check()
            warn(
                f"materialized view {view} depends on the database's name, and is not up to date: run REFRESH "
                f"MATERIALIZED VIEW {view}; it failed here: {server_message(error)}"
            )
