"""Find what would make a restore of a healthy database fail or lose something, before it is dumped.

The problems are those of :mod:`.restorability_problems`. Each database is read in one snapshot, from its catalogs only,
which takes about a second; reading the rows as well is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.encoding import check_encoding, check_shared_names
from airflow_pgbackup.backup.check.extensions import check_extensions
from airflow_pgbackup.backup.check.functions import check_functions
from airflow_pgbackup.backup.check.locks import check_locks
from airflow_pgbackup.backup.check.objects import check_objects
from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.check.rows import check_rows
from airflow_pgbackup.backup.check.selection_dependencies import check_selection_dependencies
from airflow_pgbackup.backup.check.superuser_objects import check_superuser_objects, check_tablespaces
from airflow_pgbackup.backup.check.transport import check_keepalives
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# JIT compilation of these queries takes longer than running them.
_SETTINGS: LiteralString = """
select pg_catalog.set_config('search_path', '', true), pg_catalog.set_config('jit', 'off', true)
"""
_TEMPLATES: LiteralString = """
select pg_catalog.quote_ident(datname) from pg_catalog.pg_database
 where datname in ('template0', 'template1') and datcollversion is not null
   and datcollversion is distinct from pg_catalog.pg_database_collation_actual_version(oid)
 order by 1
"""


def check_server_restorability(db: InspectedDatabase, connection: ConnectionParams) -> None:
    """Check what concerns the server as a whole."""
    check_shared_names(db)
    if _is_supported(db):
        report_problem(db.findings, "template_collation", [name for (name,) in db.optional_rows(_TEMPLATES)])
    check_keepalives(connection, db.findings)


def check_restorability(
    db: InspectedDatabase,
    selection: Selection,
    options: DumpOptions | DumpAllOptions,
    rehearsal: Mapping[str, str] | None,
    *,
    managed: bool,
    scan_rows: bool = False,
) -> None:
    """Check one database. It changes the session's search_path, so it comes last.

    :param rehearsal: as for :func:`.extensions.check_extensions`.
    :param managed: the server belongs to a managed service, which lets its administrators, who are no superusers,
        create some of what only a superuser may create elsewhere.
    :param scan_rows: also read all tables, and search for rows that a restore would reject.
    """
    check_encoding(db)
    if not _is_supported(db):
        return
    db.optional_rows(_SETTINGS)
    if selection.rows:
        check_functions(db, selection)
    check_objects(db, selection, options)
    if not managed:
        check_superuser_objects(db, selection, options)
    check_tablespaces(db, selection, options)
    check_extensions(db, rehearsal)
    check_locks(db, selection)
    if isinstance(options, DumpOptions):
        check_selection_dependencies(db, selection, options)
    if scan_rows and selection.rows:
        check_rows(db, selection)


def _is_supported(db: InspectedDatabase) -> bool:
    """Return whether the server has the catalogs that the queries read."""
    return db.server_major >= OLDEST_MAJOR
