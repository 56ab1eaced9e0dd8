"""Extensions that another server may be unable to create: because of preloading, database or version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.extensions import DATABASE_SETTINGS
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_EXTENSIONS: LiteralString = """
select e.extname, pg_catalog.quote_ident(e.extname), e.extversion, a.default_version
  from pg_catalog.pg_extension e left join pg_catalog.pg_available_extensions a on a.name = e.extname order by 1
"""

# Extensions whose library must be in shared_preload_libraries, else CREATE EXTENSION fails: by the _PG_init function of
# each. Others, such as pg_stat_statements, can be created without preloading.
PRELOADED = frozenset(
    (
        *("citus", "documentdb_core", "pg_cron", "pg_net", "pg_squeeze", "pg_stat_kcache", "pg_tle", "pgaudit"),
        *("pglogical", "pgsodium", "timescaledb", "vchord"),
    )
)


def check_extensions(db: InspectedDatabase, rehearsal: Mapping[str, str] | None) -> None:
    """Check the extensions of a database.

    :param rehearsal: the extensions of the server that a rehearsal on this machine would start, with their default
        versions; None if it cannot rehearse.
    """
    preloaded, one_database, other = [], [], []
    for name, quoted, version, default in db.optional_rows(_EXTENSIONS):
        if name in PRELOADED:
            preloaded.append(quoted)
        if name in DATABASE_SETTINGS:
            one_database.append(quoted)
        here = (rehearsal or {}).get(name)
        if default is not None and default != version:
            other.append(f"{quoted} {version} ({default} on this server)")
        elif here and version_key(here) < version_key(version):
            other.append(f"{quoted} {version} ({here} in a rehearsal on this machine)")
    report_problem(db, "preload", preloaded)
    report_problem(db, "extension_database", one_database)
    report_problem(db, "extension_version", other)


def version_key(version: str) -> list[tuple[int, str]]:
    """Return a sort key that places version ``1.9`` before ``1.10``."""
    return [(int(number or -1), word) for number, word in re.findall(r"(\d+)|([a-zA-Z]+)", version)]
