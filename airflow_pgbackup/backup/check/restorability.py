"""What of a sound database a restore would stumble over, told before there is any: the kinds of :mod:`.restorability`.

All of one database is read in one snapshot, from its catalogs, which takes a second. Reading the rows too is asked for.
"""

from __future__ import annotations

import ipaddress
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
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.databases.selection import Selection
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR

if TYPE_CHECKING:
    from typing_extensions import LiteralString

LONGEST_IDLE = 900
"""Seconds of silence after which firewalls and load balancers are known to drop a connection: AWS's after 350."""

# Compiling such a query takes longer than running it.
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
    """What concerns all databases of the server."""
    check_shared_names(db)
    if _is_known(db):
        report_problem(db.findings, "template_collation", [name for (name,) in db.optional_rows(_TEMPLATES)])
    check_keepalives(connection, db.findings)


def check_restorability(
    db: InspectedDatabase,
    selection: Selection,
    options: DumpOptions | DumpAllOptions,
    rehearsal: Mapping[str, str] | None,
    *,
    scan_rows: bool = False,
) -> None:
    """What concerns one database; last, since it changes the session's search_path.

    :param rehearsal: as for :func:`.check_extensions.check_extensions`.
    :param scan_rows: read all tables, for rows that no restore takes.
    """
    check_encoding(db)
    if not _is_known(db):
        return
    db.optional_rows(_SETTINGS)
    if selection.rows:
        check_functions(db, selection)
    check_objects(db, selection, options)
    check_extensions(db, rehearsal)
    check_locks(db, selection)
    if isinstance(options, DumpOptions):
        check_selection_dependencies(db, selection, options)
    if scan_rows and selection.rows:
        check_rows(db, selection)


def _is_known(db: InspectedDatabase) -> bool:
    """Return whether the server has the catalogs that are read here."""
    return db.server_major >= OLDEST_MAJOR


def check_keepalives(connection: ConnectionParams, findings: Findings) -> None:
    """A connection through a network that stays silent while pg_dump reads, or the server sorts for an index."""
    keywords = connection.keywords
    hosts = (keywords.get("hostaddr") or keywords.get("host") or "").split(",")
    if all(_is_local(host) for host in hosts):
        return
    if keywords.get("keepalives") == "0":
        report_problem(findings, "keepalives", ["keepalives = 0"])
    elif (idle := keywords.get("keepalives_idle", "")).isdecimal() and int(idle) > LONGEST_IDLE:
        report_problem(findings, "keepalives", [f"keepalives_idle = {idle}"])


def _is_local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
